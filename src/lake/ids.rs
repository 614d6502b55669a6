//! The ids of a table, read once from each data file, whoever wrote it.
//!
//! Rows are exactly once by id and not by unit: two overlapping pipelines on one lake have the same rows, but in different
//! units.

use std::collections::{BTreeMap, HashSet};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::DataType,
};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::{
    arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask},
    errors::ParquetError,
};

use super::error::LakeError;
use crate::storage::{Location, StoredObject, Version};

/// Files that are read in parallel.
const MAX_CONCURRENT_READS: usize = 16;

/// The ids of the files that were read so far.
#[derive(Debug, Default)]
pub(super) struct Ids {
    files: HashSet<String>,
    ids: HashSet<String>,
}

impl Ids {
    /// Reads the ids of those `live` files, given by name and size, that are not known yet.
    pub(super) async fn refresh(
        &mut self,
        location: &Location,
        table: &str,
        column: &str,
        live: &BTreeMap<String, u64>,
    ) -> Result<(), LakeError> {
        let new: Vec<_> = live.iter().filter(|(name, _)| !self.files.contains(*name)).collect();
        let mut reads = stream::iter(new)
            .map(|(name, &size)| async move {
                let file = location.object(&format!("{table}/{name}"), Version::immutable(size));
                Ok::<_, LakeError>((name, read(file, column).await?))
            })
            .buffer_unordered(MAX_CONCURRENT_READS);
        while let Some((name, ids)) = reads.try_next().await? {
            self.files.insert(name.clone());
            self.ids.extend(ids);
        }
        Ok(())
    }

    /// Adds the ids of a file that this process has committed.
    pub(super) fn add(&mut self, file: String, ids: Vec<String>) {
        self.files.insert(file);
        self.ids.extend(ids);
    }

    pub(super) fn all(&self) -> &HashSet<String> {
        &self.ids
    }
}

/// Returns the values of `column`, or `None` if there is no such column of strings or it has nulls.
pub(super) fn strings<'a>(rows: &'a RecordBatch, column: &str) -> Option<Vec<&'a str>> {
    rows.column_by_name(column)?.as_string_opt::<i32>()?.iter().collect()
}

async fn read(file: StoredObject, column: &str) -> Result<Vec<String>, LakeError> {
    let url = file.url();
    let unreadable =
        |source: ParquetError| LakeError::ReadColumn { url: url.clone(), column: column.to_owned(), source };
    let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(unreadable)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
    let stream = builder.with_projection(mask).build().map_err(unreadable)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(unreadable)?;
    let mut ids = Vec::new();
    for batch in batches {
        // The file is of another version of this program.
        let Some(found) = batch.columns().first() else {
            return Err(LakeError::OtherVersion { url });
        };
        let found = cast(found, &DataType::Utf8).map_err(|error| unreadable(error.into()))?;
        ids.extend(found.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn ids_are_strings_without_nulls() {
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("null", Arc::new(StringArray::from(vec![Some("a"), None]))),
            ("number", Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        assert_eq!(strings(&rows, "id"), Some(vec!["a", "b"]));
        for column in ["null", "number", "absent"] {
            assert_eq!(strings(&rows, column), None, "{column}");
        }
    }
}
