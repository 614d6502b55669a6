//! A step whose rows are replaced by a new version: everything that only chooses.

use std::sync::Arc;

use arrow::{
    array::{Array, RecordBatch},
    row::{OwnedRow, RowConverter, SortField},
};
use datafusion::{
    dataframe::DataFrame,
    prelude::{SessionContext, ident},
};
use futures::TryStreamExt;

use crate::{
    error::{Error, Result},
    lake::DataFile,
    plan::Step,
    schema::conform::{check_schema, conform},
    session,
};

/// Rows of a data file of a chosen table: they are in memory until it is written.
const ROWS_PER_FILE: usize = 1 << 18;

/// The rows of `step`, in the order of its table's key, as data files; and where they are to be kept, as batches.
///
/// # Errors
/// Where the query fails, has other columns than the table, or gives two rows of one key.
pub(super) async fn files(
    context: &SessionContext,
    step: &Step,
    keep: bool,
) -> Result<(Vec<DataFile>, Vec<RecordBatch>)> {
    let name = &step.query.name;
    let rows = session::query(context, name, &step.statement).await?;
    check_schema(name, rows.schema().as_arrow(), &step.table)?;
    let mut stream = in_order(rows, step)?.execute_stream().await.map_err(|error| Error::query(name, error))?;
    let mut distinct = Distinct::new(step)?;
    let (mut files, mut kept) = (Vec::new(), Vec::new());
    let (mut pending, mut count) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await.map_err(|error| Error::query(name, error))? {
        let batch = conform(name, &batch, &step.table.schema)?.batch;
        distinct.check(&batch)?;
        count += batch.num_rows();
        if keep {
            kept.push(batch.clone());
        }
        pending.push(batch);
        if count >= ROWS_PER_FILE {
            files.push(DataFile::write("rows", &step.table.schema, &pending)?);
            (pending, count) = (Vec::new(), 0);
        }
    }
    if count > 0 {
        files.push(DataFile::write("rows", &step.table.schema, &pending)?);
    }
    Ok((files, kept))
}

/// Sorted by the table's key, or by every column where it has none: equal rows make equal files. Nulls come last, as they
/// do in windows by default, so that what a window has sorted is not sorted again.
fn in_order(rows: DataFrame, step: &Step) -> Result<DataFrame> {
    let columns: Vec<String> = match step.table.key.is_empty() {
        true => rows.schema().fields().iter().map(|field| field.name().clone()).collect(),
        false => step.table.key.iter().map(|&column| column.to_owned()).collect(),
    };
    let order = columns.into_iter().map(|column| ident(column).sort(true, false)).collect();
    rows.sort(order).map_err(|error| Error::query(&step.query.name, error))
}

/// Sees that no two neighbouring rows have one key.
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
                return Err(self.duplicate(&columns));
            }
            self.last = Some(row.owned());
        }
        Ok(())
    }

    fn duplicate(&self, columns: &[arrow::array::ArrayRef]) -> Error {
        let count = columns.first().map_or(0, |column| column.len());
        Error::Query {
            query: self.step.query.name.clone(),
            message: format!(
                "it gives two rows with the same ({}) among {count}; `{}` holds one of each",
                self.step.table.key.join(", "),
                self.step.table.name
            ),
        }
    }
}
