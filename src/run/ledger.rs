//! The rows of `rejects` and `ledger`.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};

use crate::{
    error::{Error, Result},
    schema::{self, Table},
};

/// The column that names a reject.
pub(super) const REJECT_ID: &str = "id";
/// The column that names an entry of the ledger.
pub(super) const LEDGER_ID: &str = "unit";

/// Something that was asked for and could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) id: String,
    pub(super) source_id: Option<String>,
    pub(super) reason: String,
}

/// What a unit cost; or, with no unit, the completion of a step.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) unit: Option<String>,
    pub(super) rows: usize,
    pub(super) rejects: usize,
    pub(super) unet_evaluations: u64,
    pub(super) seconds: f64,
    pub(super) provider: Option<String>,
}

pub(super) fn rejects_table() -> Result<&'static Table> {
    journal(schema::REJECTS)
}

pub(super) fn ledger_table() -> Result<&'static Table> {
    journal(schema::LEDGER)
}

fn journal(name: &str) -> Result<&'static Table> {
    schema::find(name).ok_or_else(|| Error::Data(format!("no schema of `{name}`")))
}

pub(super) fn reject_rows(step: &str, unit: &str, rejects: &[Reject]) -> Result<RecordBatch> {
    let texts = |of: &dyn Fn(&Reject) -> Option<String>| -> ArrayRef {
        Arc::new(rejects.iter().map(of).collect::<StringArray>())
    };
    rows(
        rejects_table()?,
        vec![
            texts(&|_| Some(step.to_owned())),
            texts(&|_| Some(unit.to_owned())),
            texts(&|reject| Some(reject.id.clone())),
            texts(&|reject| reject.source_id.clone()),
            texts(&|reject| Some(reject.reason.clone())),
        ],
    )
}

pub(super) fn ledger_row(
    step: &str,
    fingerprint: i64,
    parts: Option<&BTreeMap<String, String>>,
    entry: &Entry,
) -> Result<RecordBatch> {
    let text = |value: Option<String>| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let integer = |value: u64| -> ArrayRef { Arc::new(Int64Array::from(vec![i64::try_from(value).ok()])) };
    let parts = parts.map(serde_json::to_string).transpose();
    let parts = parts.map_err(|error| Error::Data(format!("the ledger's entry is no JSON: {error}")))?;
    rows(
        ledger_table()?,
        vec![
            text(Some(step.to_owned())),
            text(entry.unit.clone()),
            text(Some(format!("{fingerprint:016x}"))),
            text(parts),
            integer(entry.rows as u64),
            integer(entry.rejects as u64),
            integer(entry.unet_evaluations),
            Arc::new(Float64Array::from(vec![entry.seconds])),
            text(entry.provider.clone()),
            Arc::new(Int64Array::from(vec![crate::clock::now_ms()])),
        ],
    )
}

fn rows(table: &Table, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::clone(&table.schema), columns)
        .map_err(|error| Error::Data(format!("the rows of `{}` are no table: {error}", table.name)))
}
