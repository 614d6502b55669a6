//! Which ids a table holds: read once from each data file, whoever wrote it.
//!
//! Rows are exactly once by id and not by unit: two pipelines that overlap on one lake share rows, but
//! their units differ.

use std::collections::{BTreeMap, HashSet};

use arrow::{array::AsArray, compute::cast, datatypes::DataType};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};

use crate::error::{Error, Result};
use crate::storage::{Location, Object};

/// Files that are read at once.
const READ_AT_ONCE: usize = 16;

/// The ids of the files that were read so far.
#[derive(Debug, Default)]
pub(super) struct Ids {
    files: HashSet<String>,
    ids: HashSet<String>,
}

impl Ids {
    /// Reads the ids in those of `live`, by name and size, that are not known yet.
    pub(super) async fn refresh(
        &mut self,
        location: &Location,
        table: &str,
        column: &str,
        live: &BTreeMap<String, i64>,
    ) -> Result<()> {
        let new: Vec<_> = live.iter().filter(|(name, _)| !self.files.contains(*name)).collect();
        let mut reads = stream::iter(new)
            .map(
                |(name, &size)| async move { Ok::<_, Error>((name, read(location, table, name, size, column).await?)) },
            )
            .buffer_unordered(READ_AT_ONCE);
        while let Some((name, ids)) = reads.try_next().await? {
            self.files.insert(name.clone());
            self.ids.extend(ids);
        }
        Ok(())
    }

    /// Notes a file that this process has committed.
    pub(super) fn note<'a>(&mut self, file: &str, ids: impl Iterator<Item = &'a str>) {
        self.files.insert(file.to_owned());
        self.ids.extend(ids.map(str::to_owned));
    }

    pub(super) fn all(&self) -> &HashSet<String> {
        &self.ids
    }
}

async fn read(location: &Location, table: &str, name: &str, size: i64, column: &str) -> Result<Vec<String>> {
    let path = location.path(&format!("{table}/{name}"));
    let fail = |error: parquet::errors::ParquetError| {
        Error::lake(path.to_string(), format!("column `{column}` of a data file cannot be read; see `verify`"), error)
    };
    let meta = ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: u64::try_from(size).unwrap_or(0),
        e_tag: None,
        version: None,
    };
    let builder = ParquetRecordBatchStreamBuilder::new(Object::new(&location.store, &meta)).await.map_err(fail)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
    let batches: Vec<_> = builder.with_projection(mask).build().map_err(fail)?.try_collect().await.map_err(fail)?;
    let mut ids = Vec::new();
    for batch in batches {
        let Some(column) = batch.columns().first() else {
            return Err(Error::Data(format!(
                "`{path}` has no column `{column}`: the lake is of another version of this program; `--lake` \
                 names another location"
            )));
        };
        let texts = cast(column, &DataType::Utf8).map_err(|error| fail(error.into()))?;
        ids.extend(texts.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(ids)
}
