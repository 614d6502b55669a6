//! Other programs that write the tables: they compact, delete, change, append and restore.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    check::{ROOT, batches_of},
    model::{ASKED, KEPT, REJECTS, SPECTRUM},
    world::World,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StructArray},
    compute::concat_batches,
    datatypes::Int64Type,
};
use bytes::Bytes;
use object_store::{PutMode, PutOptions, path::Path};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

const TABLES: [&str; 4] = [ASKED, SPECTRUM, KEPT, REJECTS];

/// What a stranger commits.
#[derive(Debug, Default)]
struct Change {
    operation: &'static str,
    changes_data: bool,
    removed: Vec<String>,
    /// Rows of a new file.
    rows: Option<RecordBatch>,
    /// Files of an earlier version.
    restored: Vec<(String, i64)>,
}

/// Commits one change of a random table, if there is anything to change.
pub(super) fn interfere(world: &World) {
    let table = TABLES[usize::try_from(world.draw(TABLES.len() as u64)).unwrap()];
    let operation = world.draw(6);
    let Some(change) = change(world, table, operation) else { return };
    let version = world.state().checker.logs[table].versions;
    let mut lines = vec![json!({ "commitInfo": { "operation": change.operation, "engineInfo": "a stranger" } })];
    lines.extend(change.removed.iter().map(|file| removal(file, change.changes_data)));
    if let Some(rows) = change.rows {
        let (bytes, count) = (encode(&rows), rows.num_rows());
        let name = format!("part-{version:05}-of-a-stranger.snappy.parquet");
        lines.push(addition(&name, bytes.len(), count, change.changes_data));
        write(world, &format!("{table}/{name}"), bytes, PutMode::Overwrite);
    }
    for (file, size) in &change.restored {
        let count = world.state().checker.files[&format!("{table}/{file}")].len();
        lines.push(addition(file, usize::try_from(*size).unwrap(), count, change.changes_data));
    }
    let entry: Vec<String> = lines.iter().map(Value::to_string).collect();
    world.note(format!("a stranger commits version {version} of `{table}`: {}", change.operation));
    world.count(|counts| counts.foreign += 1);
    write(world, &format!("{table}/_delta_log/{version:020}.json"), entry.join("\n").into(), PutMode::Create);
}

fn change(world: &World, table: &str, operation: u64) -> Option<Change> {
    let log = world.state().checker.logs.get(table).cloned()?;
    let live: Vec<String> = log.live.keys().cloned().collect();
    let pick = |files: &[String]| {
        let chosen = usize::try_from(world.draw(files.len().max(1) as u64)).unwrap();
        files.get(chosen).cloned()
    };
    let change = Change { changes_data: true, ..Change::default() };
    Some(match operation {
        0 => Change {
            operation: "OPTIMIZE",
            changes_data: false,
            rows: Some(rows(world, table, &live)?),
            removed: live,
            ..change
        },
        1 => Change { operation: "DELETE", removed: vec![pick(&live)?], ..change },
        2 => {
            let file = pick(&live)?;
            let rows = rows(world, table, std::slice::from_ref(&file))?;
            Change { operation: "UPDATE", rows: Some(altered(&rows)), removed: vec![file], ..change }
        }
        3 => Change { operation: "WRITE", rows: Some(rows(world, table, &[pick(&live)?])?.slice(0, 1)), ..change },
        4 => {
            let rows = rows(world, table, &[pick(&live)?])?;
            Change { operation: "WRITE", rows: Some(renamed(&rows.slice(0, 1))), ..change }
        }
        _ => {
            let chosen = usize::try_from(world.draw(log.past.len() as u64)).unwrap();
            let then: BTreeMap<String, i64> = log.past[chosen].1.clone();
            let restored: Vec<_> = then.into_iter().filter(|(file, _)| !log.live.contains_key(file)).collect();
            let exists = |file: &str| world.state().disk.read(&path(&format!("{table}/{file}"))).is_some();
            let removed = live.into_iter().filter(|file| !log.past[chosen].1.contains_key(file)).collect();
            if !restored.iter().all(|(file, _)| exists(file)) {
                return None;
            }
            Change { operation: "RESTORE", restored, removed, ..change }
        }
    })
}

fn path(name: &str) -> Path {
    Path::from(format!("{ROOT}/{name}"))
}

/// Writes an object and syncs it.
fn write(world: &World, name: &str, bytes: Bytes, mode: PutMode) {
    let stranger = (usize::MAX - 1, 0);
    world.put(&path(name), bytes.into(), PutOptions::from(mode), stranger).unwrap();
    world.sync_bytes(&path(name)).unwrap();
    world.sync_names().unwrap();
}

fn addition(file: &str, bytes: usize, rows: usize, changes_data: bool) -> Value {
    let stats = json!({ "numRecords": rows }).to_string();
    json!({ "add": {
        "path": file, "partitionValues": {}, "size": bytes, "modificationTime": 0, "dataChange": changes_data,
        "stats": stats
    } })
}

fn removal(file: &str, changes_data: bool) -> Value {
    json!({ "remove": { "path": file, "deletionTimestamp": 0, "dataChange": changes_data } })
}

/// Returns the rows of some files.
fn rows(world: &World, table: &str, files: &[String]) -> Option<RecordBatch> {
    let mut batches = Vec::new();
    for file in files {
        batches.extend(batches_of(world.state().disk.read(&path(&format!("{table}/{file}")))?)?);
    }
    concat_batches(&batches.first()?.schema(), &batches).ok()
}

fn encode(rows: &RecordBatch) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes.into()
}

/// Returns rows with other values.
fn altered(rows: &RecordBatch) -> RecordBatch {
    replaced(rows, |name, column| match name {
        "value" => Some(greater(column)),
        "made" => {
            let made = column.as_struct();
            let values = made.columns().iter().map(greater).collect();
            Some(Arc::new(StructArray::try_new(made.fields().clone(), values, None).unwrap()))
        }
        "reason" => Some(Arc::new(StringArray::from(vec!["a stranger's"; column.len()]))),
        _ => None,
    })
}

fn greater(values: &ArrayRef) -> ArrayRef {
    Arc::new(values.as_primitive::<Int64Type>().unary::<_, Int64Type>(|value| value + 2) as Int64Array)
}

/// Returns rows with ids that nobody asked for.
fn renamed(rows: &RecordBatch) -> RecordBatch {
    let ids = |column: &ArrayRef| Arc::new(StringArray::from(vec!["a stranger's"; column.len()])) as ArrayRef;
    replaced(rows, |name, column| (name == "id").then(|| ids(column)))
}

fn replaced(rows: &RecordBatch, with: impl Fn(&str, &ArrayRef) -> Option<ArrayRef>) -> RecordBatch {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| with(field.name(), column).unwrap_or_else(|| Arc::clone(column)));
    RecordBatch::try_new(rows.schema(), columns.collect()).unwrap()
}
