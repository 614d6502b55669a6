//! Checks that the files of a table exist, are complete, have the content that their names promise, and hold what the log
//! says of them.

use std::{cmp::Ordering, collections::BTreeMap};

use arrow::{array::RecordBatch, compute::cast, datatypes::Schema};
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use super::{
    Lake,
    data_file::{matches_name, parquet_problem},
    statistics::statistics,
};
use crate::{
    error::{Result, chain},
    schema::Table,
    storage::StorageError,
};

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) table: String,
    /// The name of the file in the table's folder, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    pub(crate) problem: String,
    #[serde(skip)]
    pub(crate) kind: FindingKind,
}

/// What a violation is, which decides what repairs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FindingKind {
    /// A file of the log.
    Log,
    /// A data file is damaged or gone.
    File,
    /// The step of the table has to run.
    Stale,
    /// The table lacks rows or has others, and its step makes them.
    Rows,
    /// Nothing is known to repair it.
    Other,
}

impl Finding {
    /// Returns the name of the data file that is damaged.
    pub(super) fn damaged_file(&self) -> Option<&str> {
        self.file.as_deref().filter(|_| self.kind == FindingKind::File)
    }
}

/// Reads every live file of `table`, and compares its size and digest with the log and its name. A `deep` check also
/// compares its rows with the statistics in the log, by which readers skip files.
///
/// # Errors
/// Returns an error if the log cannot be read. A file that cannot be read is a finding.
pub(crate) async fn verify_files(lake: &Lake, table: &Table, deep: bool) -> Result<Vec<Finding>> {
    verify_those(lake, table, deep, |_| true).await
}

/// Does what [`verify_files`] does, with the files that are `wanted` only.
pub(super) async fn verify_those(
    lake: &Lake,
    table: &Table,
    deep: bool,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let logged = if deep { lake.statistics(table).await? } else { BTreeMap::new() };
    let mut live = lake.live_files(table).await?.unwrap_or_default();
    live.retain(|name, _| wanted(name));
    for (file, size) in live {
        let found = match lake.file_problem(table, &file, size, logged.get(&file)).await {
            // What the store does not answer now it may answer later.
            Err(error) => Some((format!("file `{file}` cannot be read: {}", chain(&error)), FindingKind::Other)),
            Ok(problem) => problem.map(|problem| (format!("file `{file}` {problem}"), FindingKind::File)),
        };
        let finding = |(problem, kind)| Finding { table: table.name.clone(), file: Some(file.clone()), problem, kind };
        findings.extend(found.map(finding));
    }
    Ok(findings)
}

impl Lake {
    /// Returns what is wrong with a live data file, which has `size` bytes and the statistics `logged` by the log.
    async fn file_problem(
        &self,
        table: &Table,
        name: &str,
        size: u64,
        logged: Option<&Value>,
    ) -> Result<Option<String>, StorageError> {
        let Some(bytes) = self.location.get(&format!("{}/{name}", table.name)).await? else {
            return Ok(Some("does not exist".to_owned()));
        };
        if bytes.len() as u64 != size {
            return Ok(Some(format!("has {} bytes, its commit says {size}", bytes.len())));
        }
        let promise = match matches_name(name, &bytes) {
            Some(true) => None,
            Some(false) => Some("does not have the content that its name promises".to_owned()),
            // Another program has written it.
            None => parquet_problem(bytes.clone()),
        };
        if promise.is_some() {
            return Ok(promise);
        }
        let differs = logged.and_then(|logged| disagreement(&table.schema, bytes, logged));
        Ok(differs.map(|differs| format!("does not have the {differs} that the log says")))
    }

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
