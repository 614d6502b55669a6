//! The rows of `rejects` and `ledger`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
};
use tokio::time::Instant;

use super::job::Outcome;
use crate::{
    clock,
    error::{Error, Result},
    lake::{Lake, UnitRows},
    models::Rates,
    plan::Step,
    schema::{LEDGER_TABLE, REJECTS_TABLE, Table},
};

#[derive(Debug, thiserror::Error)]
enum LedgerError {
    #[error("the parts of a fingerprint cannot be written as JSON")]
    Parts(#[from] serde_json::Error),
}

/// The column that identifies a reject.
pub(super) const REJECT_ID: &str = "id";
/// The column that identifies an entry of the ledger.
const LEDGER_ID: &str = "unit";
/// How long a row of the ledger may wait for others; a killed run loses those that wait.
const COSTS_INTERVAL: Duration = Duration::from_secs(10);

/// A requested row that could not be generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) id: String,
    pub(super) source_id: Option<String>,
    pub(super) reason: String,
    /// The path of the real image in the listing.
    pub(super) path: Option<String>,
}

/// What a unit cost, or the completion of a step.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) unit: Option<String>,
    pub(super) rows: usize,
    pub(super) rejects: usize,
    pub(super) unet_evaluations: u64,
    pub(super) seconds: f64,
    pub(super) provider: Option<String>,
    /// The batches of the diffusion model, as text.
    pub(super) batches: Option<String>,
    /// The rates of the diffusion model, for a step.
    pub(super) rates: Rates,
}

/// What units cost that are committed already. Many workers share the ledger's log, so rows are gathered.
#[derive(Debug)]
pub(super) struct Costs {
    rows: Vec<RecordBatch>,
    /// When they were last committed.
    since: Instant,
}

impl Default for Costs {
    fn default() -> Self {
        Self { rows: Vec::new(), since: Instant::now() }
    }
}

impl Costs {
    pub(super) fn add(&mut self, row: RecordBatch) {
        self.rows.push(row);
    }

    pub(super) fn are_due(&self) -> bool {
        self.since.elapsed() >= COSTS_INTERVAL
    }

    /// Commits the rows as one file.
    ///
    /// # Errors
    /// Returns an error if the lake cannot be written.
    pub(super) async fn commit(&mut self, lake: &Lake) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.since = Instant::now();
        if rows.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&LEDGER_TABLE.schema, &rows);
        let rows = rows.map_err(|error| Error::query(&LEDGER_TABLE.name, error.into()))?;
        lake.append(&LEDGER_TABLE, LEDGER_ID, &[UnitRows { unit: "units".to_owned(), rows }]).await
    }
}

/// Records in the ledger that `step` is complete, with the parts of its fingerprint.
///
/// # Errors
/// Returns an error if the lake cannot be written.
pub(super) async fn record_completion(lake: &Lake, step: &Step, outcome: &Outcome) -> Result<()> {
    let unit = format!("{:016x}", step.fingerprint.mark());
    let entry = Entry {
        unit: Some(unit.clone()),
        rows: outcome.rows,
        rejects: outcome.rejects,
        seconds: outcome.seconds,
        rates: outcome.rates.unwrap_or_default(),
        ..Entry::default()
    };
    let rows = ledger_row(step, Some(&step.fingerprint.parts), &entry)?;
    lake.append(&LEDGER_TABLE, LEDGER_ID, &[UnitRows { unit, rows }]).await
}

pub(super) fn reject_rows(step: &str, unit: &str, rejects: &[Reject]) -> Result<RecordBatch> {
    let strings = |of: &dyn Fn(&Reject) -> Option<String>| -> ArrayRef {
        Arc::new(rejects.iter().map(of).collect::<StringArray>())
    };
    rows(
        &REJECTS_TABLE,
        vec![
            strings(&|_| Some(step.to_owned())),
            strings(&|_| Some(unit.to_owned())),
            strings(&|reject| Some(reject.id.clone())),
            strings(&|reject| reject.source_id.clone()),
            strings(&|reject| Some(reject.reason.clone())),
            strings(&|reject| reject.path.clone()),
        ],
    )
}

pub(super) fn ledger_row(step: &Step, parts: Option<&BTreeMap<String, String>>, entry: &Entry) -> Result<RecordBatch> {
    let string = |value: Option<String>| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let integer = |value: u64| -> ArrayRef { Arc::new(Int64Array::from(vec![i64::try_from(value).ok()])) };
    let number = |value: Option<f64>| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
    let parts = parts.map(serde_json::to_string).transpose();
    let parts = parts.map_err(|error| Error::failed(LedgerError::Parts(error)))?;
    rows(
        &LEDGER_TABLE,
        vec![
            string(Some(step.table.name.clone())),
            string(entry.unit.clone()),
            string(Some(format!("{:016x}", step.fingerprint.mark()))),
            string(parts),
            integer(entry.rows as u64),
            integer(entry.rejects as u64),
            integer(entry.unet_evaluations),
            Arc::new(Float64Array::from(vec![entry.seconds])),
            string(entry.provider.clone()),
            Arc::new(Int64Array::from(vec![clock::now_ms()])),
            string(entry.batches.clone()),
            number(entry.rates.tflops),
            number(entry.rates.peak_share),
            number(entry.rates.gap_ms),
            Arc::new(Int64Array::from(vec![entry.rates.memory_mib.and_then(|mib| i64::try_from(mib).ok())])),
        ],
    )
}

fn rows(table: &Table, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::clone(&table.schema), columns).map_err(|error| Error::query(&table.name, error.into()))
}
