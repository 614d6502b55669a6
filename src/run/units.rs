//! Cuts a step into units: rows that are generated and committed together.
//!
//! The contents of a unit follow only from the rows that request the work. They depend neither on what is already done
//! nor on other workers. So all workers cut the same units, and a unit's transaction in the table's log means the same
//! to each of them.

use std::collections::{BTreeMap, HashSet};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
};

use super::shard::Shard;
use crate::{
    error::{Error, Result},
    identity::Digest,
    schema::{SOURCE_ID, columns::Columns},
};

/// Some of the rows that request a step's work.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// A digest of the step and of every id in the unit, done or not.
    pub(super) id: String,
    /// The rows whose work is not done yet.
    pub(super) missing: RecordBatch,
}

/// Cuts `requests`, the rows that request the work of `step`, into units. Leaves out units that are done and units of
/// other workers.
///
/// # Errors
/// Returns an error if `requests` lack the column `id` or `source_id`.
pub(super) fn cut(
    step: &str,
    requests: &[RecordBatch],
    id: &str,
    sources_per_unit: usize,
    done: &HashSet<String>,
    shard: Option<Shard>,
) -> Result<Vec<Unit>> {
    let Some(first) = requests.first() else {
        return Ok(Vec::new());
    };
    let fail = |error: arrow::error::ArrowError| Error::query(step, error.into());
    let requests = concat_batches(&first.schema(), requests).map_err(fail)?;
    let columns = Columns::new(step, &requests);
    let (ids, sources) = (columns.strings(id)?, columns.strings(SOURCE_ID)?);
    let distinct: HashSet<&str> = sources.iter().flatten().collect();
    let buckets = distinct.len().div_ceil(sources_per_unit.max(1)) as u64;
    let mut units: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for row in 0..requests.num_rows() {
        let key = if sources_per_unit == 1 {
            sources.value(row).to_owned()
        } else {
            format!("{:08}", bucket(sources.value(row), buckets))
        };
        units.entry(key).or_default().push(row);
    }
    let mut cut = Vec::new();
    let is_ours = |key: &String| shard.is_none_or(|shard| shard.owns(key));
    for (_, mut rows) in units.into_iter().filter(|(key, _)| is_ours(key)) {
        rows.sort_by_key(|&row| ids.value(row));
        let digest = rows.iter().fold(Digest::new("unit").text(step), |digest, &row| digest.text(ids.value(row)));
        rows.retain(|&row| !done.contains(ids.value(row)));
        if !rows.is_empty() {
            let order: UInt32Array = rows.iter().filter_map(|&row| u32::try_from(row).ok()).collect();
            cut.push(Unit { id: digest.id(), missing: take_record_batch(&requests, &order).map_err(fail)? });
        }
    }
    Ok(cut)
}

/// Divides the ids into `buckets` equal ranges and returns the one that contains `source_id`. Ids are uniform. Ranges
/// make data files disjoint in their ids, so that readers can skip files.
fn bucket(source_id: &str, buckets: u64) -> u64 {
    let leading = source_id.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    ((u128::from(leading) * u128::from(buckets)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, StringArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn requests(rows: &[(&str, &str)]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("sample_id", DataType::Utf8, true),
            Field::new("source_id", DataType::Utf8, true),
        ]);
        let ids: StringArray = rows.iter().map(|row| Some(row.0)).collect();
        let sources: StringArray = rows.iter().map(|row| Some(row.1)).collect();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids) as ArrayRef, Arc::new(sources)]).unwrap()
    }

    #[test]
    fn a_unit_keeps_its_id_while_its_rows_are_added() {
        let rows = requests(&[("1", "a"), ("2", "a"), ("3", "b")]);
        let all = cut("s", std::slice::from_ref(&rows), "sample_id", 1, &HashSet::new(), None).unwrap();
        let done = HashSet::from(["1".to_owned(), "3".to_owned()]);
        let rest = cut("s", &[rows], "sample_id", 1, &done, None).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].id, all[0].id);
        assert_eq!(rest[0].missing.num_rows(), 1);
    }

    #[test]
    fn the_order_of_rows_does_not_matter() {
        let a = requests(&[("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")]);
        let b = requests(&[("4", "d"), ("2", "b"), ("1", "a"), ("3", "c")]);
        let ids = |rows| -> Vec<String> {
            cut("s", &[rows], "sample_id", 2, &HashSet::new(), None).unwrap().into_iter().map(|unit| unit.id).collect()
        };
        assert_eq!(ids(a), ids(b));
    }
}
