//! Delta's statistics of a data file, by which readers skip it.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute,
    datatypes::{DataType, Float64Type, Int64Type, Schema},
};
use serde_json::{Map, Value, json};

/// Characters of a string in the statistics.
const MAX_BOUND_CHARS: usize = 32;

/// Returns the number of rows, and the range and nulls of every plain column. A reader can take a column without a range
/// for an empty one.
pub(super) fn statistics(table_schema: &Schema, batches: &[RecordBatch]) -> String {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in table_schema.fields().iter().filter(|field| !field.data_type().is_nested()) {
        let name = field.name();
        let columns: Vec<_> = batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
        nulls.insert(name.clone(), columns.iter().map(|column| column.null_count()).sum::<usize>().into());
        if let Some((low, high)) = range(field.data_type(), &columns) {
            least.insert(name.clone(), low);
            most.insert(name.clone(), high);
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    json!({ "numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls }).to_string()
}

/// Returns the least and the greatest value of a column, or `None` if it is empty or has no order.
fn range(data_type: &DataType, columns: &[&ArrayRef]) -> Option<(Value, Value)> {
    match data_type {
        DataType::Int64 => {
            let columns = || columns.iter().map(|column| column.as_primitive::<Int64Type>());
            let low = columns().filter_map(compute::min).min()?;
            Some((low.into(), columns().filter_map(compute::max).max()?.into()))
        }
        DataType::Float32 | DataType::Float64 => {
            let reals = columns.iter().filter_map(|column| compute::cast(column, &DataType::Float64).ok());
            let reals: Vec<f64> =
                reals.flat_map(|c| c.as_primitive::<Float64Type>().iter().flatten().collect::<Vec<_>>()).collect();
            // A value that is not finite cannot be in a range.
            let is_finite = reals.iter().all(|real| real.is_finite());
            let low = reals.iter().copied().min_by(f64::total_cmp).filter(|_| is_finite)?;
            Some((low.into(), reals.iter().copied().max_by(f64::total_cmp)?.into()))
        }
        DataType::Utf8 => {
            let columns = || columns.iter().map(|column| column.as_string::<i32>());
            let low = columns().filter_map(compute::min_string).min()?;
            let high = columns().filter_map(compute::max_string).max()?;
            Some((low.chars().take(MAX_BOUND_CHARS).collect::<String>().into(), upper_bound(high).into()))
        }
        DataType::Boolean => {
            let columns = || columns.iter().map(|column| column.as_boolean());
            let low = columns().filter_map(compute::min_boolean).min()?;
            Some((low.into(), columns().filter_map(compute::max_boolean).max()?.into()))
        }
        _ => None,
    }
}

/// Returns a string that is greater than every string with the same first characters as `text`.
fn upper_bound(text: &str) -> String {
    match text.char_indices().nth(MAX_BOUND_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}\u{10FFFF}", text.get(..end).unwrap_or(text)),
    }
}
