//! Deletes files that no reader of the current version needs: those of lost or interrupted commits, and those of replaced
//! versions.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{Lake, error::LakeError};
use crate::{clock, error::Result, schema::Table};

/// A file that is not needed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Garbage {
    pub(crate) table: String,
    /// Its name in the table's folder.
    pub(crate) file: String,
    pub(crate) bytes: u64,
}

/// Returns the data files of `table` that its current version does not name and that are older than `age`; a younger one
/// can belong to a commit in progress. With `apply` they are deleted. Before that the current version is read once more,
/// so that a commit since then keeps its files.
///
/// # Errors
/// Returns an error if the log cannot be read, or a file cannot be listed or deleted.
pub(crate) async fn gc(lake: &Lake, table: &Table, age: Duration, apply: bool) -> Result<Vec<Garbage>> {
    let Some(live) = lake.live_files(table).await? else { return Ok(Vec::new()) };
    let failed = |source: object_store::Error| LakeError::Collect { url: lake.url(table), source: Box::new(source) };
    let store = &lake.location().store;
    let folder = lake.location().path(&table.name);
    let listed: Vec<ObjectMeta> = store.list(Some(&folder)).try_collect().await.map_err(failed)?;
    let before = clock::now_ms() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let mut garbage = Vec::new();
    for object in listed {
        // The log and other folders are left alone.
        let Some(file) = name_in(&folder, &object.location) else { continue };
        if file.ends_with(".parquet") && !live.contains_key(&file) && object.last_modified.timestamp_millis() < before {
            garbage.push((Garbage { table: table.name.clone(), file, bytes: object.size }, object.location));
        }
    }
    if apply {
        let live = lake.live_files(table).await?.unwrap_or_default();
        garbage.retain(|(found, _)| !live.contains_key(&found.file));
        for (_, path) in &garbage {
            store.delete(path).await.map_err(failed)?;
        }
    }
    Ok(garbage.into_iter().map(|(found, _)| found).collect())
}

/// Returns the name of a file that is directly in `folder`.
fn name_in(folder: &object_store::path::Path, path: &object_store::path::Path) -> Option<String> {
    let mut parts = path.prefix_match(folder)?;
    let name = parts.next()?.as_ref().to_owned();
    parts.next().is_none().then_some(name)
}
