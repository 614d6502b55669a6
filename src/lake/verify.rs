//! Checks that the files of a table exist, are complete, have the content that their names promise, and hold what the log
//! says of them.

use std::{cmp::Ordering, collections::BTreeMap};

use arrow::{array::RecordBatch, compute::cast, datatypes::Schema};
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use super::{Lake, data_file::matches_name, statistics::statistics};
use crate::{
    error::{Result, chain},
    schema::Table,
};

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) table: String,
    pub(crate) problem: String,
}

/// Reads every live file of `table`, and compares its size and digest with the log and its name. A `deep` check also
/// compares its rows with the statistics in the log, by which readers skip files.
///
/// # Errors
/// Returns an error if the log cannot be read. A file that cannot be read is a finding.
pub(crate) async fn verify_files(lake: &Lake, table: &Table, deep: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let logged = if deep { lake.statistics(table).await? } else { BTreeMap::new() };
    for (name, size) in lake.live_files(table).await?.unwrap_or_default() {
        let problem = match lake.location().get(&format!("{}/{name}", table.name)).await {
            Err(error) => Some(format!("file `{name}` cannot be read: {}", chain(&error))),
            Ok(None) => Some(format!("file `{name}` does not exist")),
            Ok(Some(bytes)) if bytes.len() as u64 != size => {
                Some(format!("file `{name}` has {} bytes, its commit says {size}", bytes.len()))
            }
            Ok(Some(bytes)) if matches_name(&name, &bytes) == Some(false) => {
                Some(format!("file `{name}` does not have the content that its name promises"))
            }
            Ok(Some(bytes)) => logged.get(&name).and_then(|logged| {
                let differs = disagreement(&table.schema, bytes, logged)?;
                Some(format!("file `{name}` does not have the {differs} that the log says"))
            }),
        };
        findings.extend(problem.map(|problem| Finding { table: table.name.clone(), problem }));
    }
    Ok(findings)
}

impl Lake {
    /// Returns the statistics in the log of each live file that has any.
    async fn statistics(&self, table: &Table) -> Result<BTreeMap<String, Value>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(BTreeMap::new()) };
        let files = open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?.log_data();
        let parsed = files
            .iter()
            .filter_map(|file| Some((file.path().into_owned(), serde_json::from_str(&file.stats()?).ok()?)));
        Ok(parsed.collect())
    }
}

/// Returns what the statistics say wrongly of a file; `None` if they are right or the file cannot be read as rows of the
/// table, which is the matter of others.
fn disagreement(schema: &Schema, bytes: Bytes, logged: &Value) -> Option<String> {
    let batches = plain_columns(schema, bytes)?;
    let found: Value = serde_json::from_str(&statistics(schema, &batches)).ok()?;
    if logged.get("numRecords").is_some_and(|rows| Some(rows) != found.get("numRecords")) {
        return Some("number of rows".to_owned());
    }
    schema.fields().iter().map(|field| field.name()).find_map(|column| {
        let bound = |of: &Value, kind: &str| of.get(kind).and_then(|bounds| bounds.get(column)).cloned();
        let excludes = |kind: &str, outside: Ordering| {
            let (logged, found) = (bound(logged, kind)?, bound(&found, kind)?);
            Some(order(&logged, &found)? == outside)
        };
        let is_wrong = excludes("minValues", Ordering::Greater) == Some(true)
            || excludes("maxValues", Ordering::Less) == Some(true);
        is_wrong.then(|| format!("range of `{column}`"))
    })
}

/// Reads the columns that have statistics, in the types of the table.
fn plain_columns(schema: &Schema, bytes: Bytes) -> Option<Vec<RecordBatch>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
    let plain = schema.fields().iter().filter(|field| !field.data_type().is_nested());
    let mask = ProjectionMask::columns(builder.parquet_schema(), plain.map(|field| field.name().as_str()));
    let conform = |batch: RecordBatch| {
        let found = batch.schema();
        let columns = found.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let wanted = schema.field_with_name(field.name()).ok()?;
            Some((field.name().clone(), cast(column, wanted.data_type()).ok()?))
        });
        RecordBatch::try_from_iter(columns.collect::<Option<Vec<_>>>()?).ok()
    };
    builder.with_projection(mask).build().ok()?.map(|batch| conform(batch.ok()?)).collect()
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
    }
}
