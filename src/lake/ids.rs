//! The ids of a table, read once from each data file, whoever wrote it.
//!
//! Rows are exactly once by id and not by unit: two overlapping pipelines on one lake have the same rows, but in different
//! units.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::DataType,
};
use deltalake_core::{
    DeltaTableError,
    delta_datafusion::{DeltaScanConfig, DeltaScanNext, create_session},
};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::{
    arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask},
    errors::ParquetError,
};

use super::{Lake, OpenTable, error::LakeError};
use crate::{
    error::{Result, contained},
    schema::Table,
    storage::{Location, StoredObject, Version, panicked},
};

/// Files that are read in parallel.
const MAX_CONCURRENT_READS: usize = 16;
/// Files whose announced ids are kept until somebody asks for them.
const MAX_ANNOUNCED: usize = 4096;

/// The ids of the live files that were read so far.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// [`LiveFile::key`] of each.
    files: HashSet<String>,
    ids: HashSet<String>,
    /// An id that two rows have.
    duplicate: Option<String>,
    /// The ids of new files, as the entries of the log say that added them.
    announced: BTreeMap<String, Vec<String>>,
}

/// A live data file.
#[derive(Debug)]
struct LiveFile {
    name: String,
    size: u64,
    /// Identifies the deletion vector by which another program has deleted rows of the file.
    vector: Option<String>,
}

impl LiveFile {
    /// Tells the file with its deletion vector from the same file with another one.
    fn key(&self) -> String {
        self.vector.as_ref().map_or_else(|| self.name.clone(), |vector| format!("{} {vector}", self.name))
    }
}

/// For each file with a deletion vector, which of its rows are live.
type LiveRows = BTreeMap<String, Vec<bool>>;

impl Lake {
    /// Reads the ids of the live files that are not known yet.
    pub(super) async fn refresh_ids(&self, open: &mut OpenTable, table: &Table, column: &str) -> Result<()> {
        let unreadable = self.fail(table, "its log cannot be read");
        // Reads the new entries.
        open.marks().await.map_err(&unreadable)?;
        let live = open.live_with_vectors().map_err(&unreadable)?;
        open.ids.forget_others(&live);
        let is_new = |file: &LiveFile, ids: &mut Ids| !ids.files.contains(&file.key()) && !ids.add_announced(file);
        let new: Vec<LiveFile> = live.into_iter().filter(|file| is_new(file, &mut open.ids)).collect();
        open.ids.announced.clear();
        let live_rows = match new.iter().any(|file| file.vector.is_some()) {
            true => self.live_rows(open).await.map_err(unreadable)?,
            false => LiveRows::new(),
        };
        Ok(open.ids.read(&self.location, &table.name, column, &new, &live_rows).await?)
    }

    /// Reads the deletion vectors of a table.
    async fn live_rows(&self, open: &OpenTable) -> Result<LiveRows, DeltaTableError> {
        let context = create_session().into_inner();
        context.register_object_store(&self.location.url, Arc::clone(&self.location.store));
        let snapshot = open.delta.snapshot()?.snapshot().clone();
        let scan = DeltaScanNext::new(snapshot, DeltaScanConfig::default())?;
        let vectors = scan.deletion_vectors(&context.state()).await?;
        let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(vectors.into_iter().map(|vector| (name(&vector.filepath), vector.keep_mask)).collect())
    }
}

impl OpenTable {
    fn live_with_vectors(&self) -> Result<Vec<LiveFile>, DeltaTableError> {
        let files = self.delta.snapshot()?.log_data();
        let live = files.iter().map(|file| LiveFile {
            name: file.path().into_owned(),
            size: u64::try_from(file.size()).unwrap_or(0),
            vector: file
                .deletion_vector_descriptor()
                .map(|vector| format!("{} {:?}", vector.path_or_inline_dv, vector.offset)),
        });
        Ok(live.collect())
    }
}

impl Ids {
    /// Starts again if another program has removed or compacted a file that was read.
    fn forget_others(&mut self, live: &[LiveFile]) {
        let live: HashSet<String> = live.iter().map(LiveFile::key).collect();
        if !self.files.is_subset(&live) {
            *self = Self { announced: std::mem::take(&mut self.announced), ..Self::default() };
        }
    }

    async fn read(
        &mut self,
        location: &Location,
        table: &str,
        column: &str,
        new: &[LiveFile],
        live_rows: &LiveRows,
    ) -> Result<(), LakeError> {
        let mut reads = stream::iter(new)
            .map(|file| async move {
                let stored = location.object(&format!("{table}/{}", file.name), Version::immutable(file.size));
                let live = live_rows.get(&file.name).filter(|_| file.vector.is_some());
                Ok::<_, LakeError>((file.key(), read(stored, column, live.map(Vec::as_slice)).await?))
            })
            .buffer_unordered(MAX_CONCURRENT_READS);
        while let Some((file, ids)) = reads.try_next().await? {
            self.add(file, ids);
        }
        Ok(())
    }

    /// Adds the ids of a file, which may be one that this process has committed.
    pub(super) fn add(&mut self, file: String, ids: Vec<String>) {
        self.files.insert(file);
        for id in ids {
            if let Some(id) = self.ids.replace(id) {
                self.duplicate = Some(id);
            }
        }
    }

    /// Notes which ids the files of an entry have.
    pub(super) fn announce(&mut self, files: BTreeMap<String, Vec<String>>) {
        if self.announced.len() < MAX_ANNOUNCED {
            self.announced.extend(files);
        }
    }

    /// Adds the ids of a file of which an entry has told them; returns false if none has.
    fn add_announced(&mut self, file: &LiveFile) -> bool {
        let Some(ids) = self.announced.remove(&file.name).filter(|_| file.vector.is_none()) else { return false };
        self.add(file.key(), ids);
        true
    }

    pub(super) fn all(&self) -> &HashSet<String> {
        &self.ids
    }

    /// Returns an id that two rows have.
    pub(super) fn duplicate(&self) -> Option<&str> {
        self.duplicate.as_deref()
    }
}

/// Returns the values of `column`, or `None` if there is no such column of strings or it has nulls.
pub(super) fn strings<'a>(rows: &'a RecordBatch, column: &str) -> Option<Vec<&'a str>> {
    rows.column_by_name(column)?.as_string_opt::<i32>()?.iter().collect()
}

/// Returns the values of `column` in the rows of a file that are `live`: all of them, if it is `None`.
async fn read(file: StoredObject, column: &str, live: Option<&[bool]>) -> Result<Vec<String>, LakeError> {
    let url = file.url();
    let unreadable =
        |source: ParquetError| LakeError::ReadColumn { url: url.clone(), column: column.to_owned(), source };
    let read = async {
        let builder = ParquetRecordBatchStreamBuilder::new(file).await?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
        builder.with_projection(mask).build()?.try_collect().await
    };
    let read = contained(read).await.unwrap_or_else(|panic| Err(panicked(panic)));
    let batches: Vec<RecordBatch> = read.map_err(unreadable)?;
    let mut ids = Vec::new();
    for batch in batches {
        let Some(found) = batch.columns().first() else {
            return Err(LakeError::NoIdColumn { url, column: column.to_owned() });
        };
        let found = cast(found, &DataType::Utf8).map_err(|error| unreadable(error.into()))?;
        ids.extend(found.as_string::<i32>().iter().map(|id| id.map(str::to_owned)));
    }
    let is_live = |row: usize| live.is_none_or(|live| live.get(row).copied().unwrap_or(true));
    Ok(ids.into_iter().enumerate().filter(|(row, _)| is_live(*row)).filter_map(|(_, id)| id).collect())
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
