//! Converts the result of a query to its table: columns by name and types by the schema. Also collects the errors of
//! rows that failed.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray, UInt32Array, new_null_array},
    compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, Float64Type, Schema, SchemaRef},
    error::ArrowError,
};

use super::{ERROR_FIELD, SIMILARITIES, Table, is_image};
use crate::error::{Error, Result};

/// Checks that a query has exactly the columns of its table, by name, with types that fit.
///
/// # Errors
/// Returns an error that names every column that is missing, unknown or of another type.
pub(crate) fn check_schema(query: &str, found: &Schema, table: &Table) -> Result<()> {
    let mut problems = Vec::new();
    for field in table.schema.fields() {
        match found.field_with_name(field.name()) {
            Err(_) if table.optional.contains(&field.name().as_str()) => {}
            Err(_) => problems.push(format!("column `{}` is missing", field.name())),
            Ok(column) if !fits(column.data_type(), field.data_type()) => problems.push(format!(
                "column `{}` is {}, expected {}",
                field.name(),
                short_type(column.data_type()),
                short_type(field.data_type())
            )),
            Ok(_) => {}
        }
    }
    for column in found.fields() {
        if table.schema.field_with_name(column.name()).is_err() {
            problems.push(format!("unknown column `{}`", column.name()));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let expected: Vec<_> = table
        .schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), short_type(field.data_type())))
        .collect();
    Err(Error::Query {
        query: query.into(),
        message: format!(
            "{}\nhint: the columns of `{}` are ({})",
            problems.join("; "),
            table.name,
            expected.join(", ")
        ),
    })
}

/// Checks that a query has at least `columns`, of fitting types.
///
/// # Errors
/// Returns an error that names every column that is missing or of another type.
pub(crate) fn check_columns(query: &str, found: &Schema, columns: &[(&str, DataType)]) -> Result<()> {
    let problem = |(name, expected): &(&str, DataType)| match found.field_with_name(name) {
        Err(_) => Some(format!("column `{name}` ({}) is missing", short_type(expected))),
        Ok(field) if !fits(field.data_type(), expected) => {
            Some(format!("column `{name}` is {}, expected {}", short_type(field.data_type()), short_type(expected)))
        }
        Ok(_) => None,
    };
    let problems: Vec<String> = columns.iter().filter_map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let message = format!("{}\nhint: it must return {}", problems.join("; "), names.join(", "));
    Err(Error::Query { query: query.into(), message })
}

fn short_type(data_type: &DataType) -> String {
    match data_type {
        other if is_image(other) => "image".into(),
        DataType::Struct(_) => "struct".into(),
        other => other.to_string().to_lowercase(),
    }
}

/// Whether a column of type `from` can become `to`: the same values in another encoding, or integers as floating-point
/// numbers.
pub(crate) fn fits(from: &DataType, to: &DataType) -> bool {
    let real = |ty: &DataType| ty.is_floating() || ty.is_integer() || matches!(ty, DataType::Decimal128(..));
    match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Struct(found), DataType::Struct(expected)) => expected
            .iter()
            .all(|field| found.iter().any(|f| f.name() == field.name() && fits(f.data_type(), field.data_type()))),
        (DataType::List(found) | DataType::LargeList(found), DataType::List(expected)) => {
            fits(found.data_type(), expected.data_type())
        }
        (DataType::Timestamp(..), DataType::Timestamp(..)) => true,
        (from, to) if to.is_integer() => from.is_integer(),
        (from, to) if to.is_floating() => real(from),
        (from, to) if to.is_string() => from.is_string(),
        (from, to) if to.is_binary() => from.is_binary(),
        (from, to) => from == to,
    }
}

/// A batch as rows of a table.
pub(crate) struct Rows {
    pub(crate) batch: RecordBatch,
    /// For each row the reason why it failed, or NULL.
    pub(crate) errors: StringArray,
}

/// Converts a batch that passed [`check_schema`] to the columns of `table`. A column that it does not have is NULL.
///
/// # Errors
/// Returns an error if a value does not fit the type of its column.
pub(crate) fn conform(query: &str, batch: &RecordBatch, table: &SchemaRef) -> Result<Rows> {
    let fail = |error: ArrowError| Error::Query { query: query.into(), message: error.to_string() };
    let mut columns = Vec::with_capacity(table.fields().len());
    for field in table.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) => conform_column(column, field.data_type()).map_err(fail)?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    Ok(Rows {
        batch: RecordBatch::try_new(Arc::clone(table), columns).map_err(fail)?,
        errors: first_errors(batch, table),
    })
}

/// Converts batches like [`conform`], for queries whose rows cannot fail.
///
/// # Errors
/// Returns an error if a value does not fit the type of its column.
pub(crate) fn conform_batches(query: &str, batches: &[RecordBatch], table: &SchemaRef) -> Result<Vec<RecordBatch>> {
    batches.iter().map(|batch| Ok(conform(query, batch, table)?.batch)).collect()
}

fn conform_column(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.as_struct_opt(), data_type) {
        (Some(parts), DataType::Struct(fields)) => {
            let children = fields
                .iter()
                .map(|field| {
                    let child = parts
                        .column_by_name(field.name())
                        .ok_or_else(|| ArrowError::SchemaError(format!("field `{}` is missing", field.name())))?;
                    conform_column(child, field.data_type())
                })
                .collect::<Result<_, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), children, parts.nulls().cloned())?))
        }
        _ => cast(column, data_type),
    }
}

/// Returns for each row the first `error` among its structs, or else why it has no score.
fn first_errors(batch: &RecordBatch, table: &SchemaRef) -> StringArray {
    let columns: Vec<StringArray> = batch
        .columns()
        .iter()
        .filter_map(|column| column.as_struct_opt()?.column_by_name(ERROR_FIELD))
        .filter_map(|errors| Some(cast(errors, &DataType::Utf8).ok()?.as_string::<i32>().clone()))
        .chain(SIMILARITIES.into_iter().filter_map(|(name, reason)| missing_scores(batch, table, name, reason)))
        .collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().find(|errors| errors.is_valid(row)).map(|errors| errors.value(row)))
        .collect()
}

/// Returns `reason` for each row whose similarity `name` is NULL or not finite. A query that writes `NULL` for a similarity
/// has none, which is no failure; it shows in the type of the column.
fn missing_scores(batch: &RecordBatch, table: &SchemaRef, name: &str, reason: &'static str) -> Option<StringArray> {
    table.field_with_name(name).ok()?;
    let scores = batch.column_by_name(name).filter(|scores| *scores.data_type() != DataType::Null)?;
    let scores = cast(scores, &DataType::Float64).ok()?;
    let scores = scores.as_primitive::<Float64Type>().iter();
    Some(scores.map(|score| (!score.is_some_and(f64::is_finite)).then_some(reason)).collect())
}

/// Concatenates `batches`, sorted by the columns of `key`.
///
/// # Errors
/// Returns an error if the batches have other columns.
pub(crate) fn sorted(table: &SchemaRef, batches: &[RecordBatch], key: &[&str]) -> Result<RecordBatch, ArrowError> {
    let batch = concat_batches(table, batches)?;
    let columns: Vec<SortColumn> = key
        .iter()
        .filter_map(|name| batch.column_by_name(name))
        .map(|values| SortColumn { values: Arc::clone(values), options: None })
        .collect();
    if columns.is_empty() {
        return Ok(batch);
    }
    let order: UInt32Array = lexsort_to_indices(&columns, None)?;
    take_record_batch(&batch, &order)
}
