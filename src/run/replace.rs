//! Replaces a full-refresh table by a new version.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    row::{OwnedRow, RowConverter, SortField},
};
use datafusion::{dataframe::DataFrame, prelude::ident};
use futures::TryStreamExt;

use super::generate::IMAGES_PER_BATCH;
use crate::{
    error::{Error, Result},
    lake::{DataFile, Lake},
    plan::Step,
    schema::conform::{check_schema, conform},
    session::{self, Session, Snapshot},
    storage::simulated::{Mutant, has},
};

/// Rows of a data file. They are in memory until it is written.
const ROWS_PER_FILE: usize = 1 << 18;

/// The rows that a query computed, as data files, and the version of the table at that time.
#[derive(Debug, Default)]
pub(super) struct Computed {
    files: Vec<DataFile>,
    /// The rows in memory, if they were requested.
    pub(super) batches: Vec<RecordBatch>,
    base: Option<u64>,
}

impl Computed {
    pub(super) fn rows(&self) -> usize {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Whether both have the same rows. Files are named by their content.
    pub(super) fn has_same_rows(&self, other: &Self) -> bool {
        self.files.iter().map(|file| &file.name).eq(other.files.iter().map(|file| &file.name))
            || has(Mutant::SettleEarly)
    }
}

/// Replaces the table by `computed` and gives it the mark `fingerprint`. Returns `false`, and changes nothing, if the
/// table is no longer at the version on which the rows were computed.
///
/// # Errors
/// Returns an error if the lake cannot be written.
pub(super) async fn replace(lake: &Lake, step: &Step, computed: &Computed, fingerprint: Option<i64>) -> Result<bool> {
    lake.replace(&step.table, &computed.files, fingerprint, computed.base).await
}

/// Runs the query of `step` on `snapshot`. The rows are in the order of the table's key. If `keep` is set, they stay in
/// memory too.
///
/// # Errors
/// Returns an error if the query fails, has other columns than the table, or returns two rows with one key.
#[tracing::instrument(name = "query", skip_all, fields(query = %step.query.name))]
pub(super) async fn compute(session: &Session, step: &Step, snapshot: &Snapshot, keep: bool) -> Result<Computed> {
    let context = match step.calls_models() {
        true => session.image_context(snapshot, IMAGES_PER_BATCH)?,
        false => session.context(snapshot)?,
    };
    let name = &step.query.name;
    let rows = session::query(&context, name, &step.statement).await?;
    check_schema(name, rows.schema().as_arrow(), &step.table)?;
    let mut stream = in_order(rows, step)?.execute_stream().await.map_err(|error| Error::query(name, error))?;
    let mut computed = Computed { base: snapshot.version(&step.table.name), ..Computed::default() };
    let mut distinct = Distinct::new(step)?;
    let (mut pending, mut count) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await.map_err(|error| Error::query(name, error))? {
        let batch = conform(name, &batch, &step.table.schema)?.batch;
        distinct.check(&batch)?;
        count += batch.num_rows();
        if keep {
            computed.batches.push(batch.clone());
        }
        pending.push(batch);
        if count >= ROWS_PER_FILE {
            computed.files.push(DataFile::write("rows", &step.table.schema, &pending)?);
            (pending, count) = (Vec::new(), 0);
        }
    }
    if count > 0 {
        computed.files.push(DataFile::write("rows", &step.table.schema, &pending)?);
    }
    Ok(computed)
}

/// Sorts by the table's key, or by every column if it has none, so that equal rows give equal files. Nulls come last, as
/// in windows by default, so that the rows of a window are not sorted again.
fn in_order(rows: DataFrame, step: &Step) -> Result<DataFrame> {
    let columns: Vec<String> = match step.table.key.is_empty() {
        true => rows.schema().fields().iter().map(|field| field.name().clone()).collect(),
        false => {
            // A query may leave out an optional column of the key.
            let has = |column: &&&str| rows.schema().has_column_with_unqualified_name(column);
            step.table.key.iter().filter(has).map(|&column| column.to_owned()).collect()
        }
    };
    let order = columns.into_iter().map(|column| ident(column).sort(true, false)).collect();
    rows.sort(order).map_err(|error| Error::query(&step.query.name, error))
}

/// Checks that no two neighbouring rows have the same key.
struct Distinct<'a> {
    step: &'a Step,
    converter: RowConverter,
    last: Option<OwnedRow>,
}

impl<'a> Distinct<'a> {
    fn new(step: &'a Step) -> Result<Self> {
        let schema = &step.table.schema;
        let fields = step
            .table
            .key
            .iter()
            .filter_map(|column| schema.field_with_name(column).ok())
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        let converter = RowConverter::new(fields).map_err(|error| Error::query(&step.query.name, error.into()))?;
        Ok(Self { step, converter, last: None })
    }

    fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        let key = &self.step.table.key;
        let columns: Vec<_> = key.iter().filter_map(|column| batch.column_by_name(column)).map(Arc::clone).collect();
        if columns.is_empty() {
            return Ok(());
        }
        let fail = |error: arrow::error::ArrowError| Error::query(&self.step.query.name, error.into());
        for row in &self.converter.convert_columns(&columns).map_err(fail)? {
            if self.last.as_ref().is_some_and(|last| last.row() == row) {
                return Err(self.duplicate());
            }
            self.last = Some(row.owned());
        }
        Ok(())
    }

    fn duplicate(&self) -> Error {
        Error::Query {
            query: self.step.query.name.clone(),
            message: format!(
                "it returns two rows with the same ({}); `{}` allows one row per key",
                self.step.table.key.join(", "),
                self.step.table.name
            ),
        }
    }
}
