//! Files that no reader of the current version needs: those of commits that were lost or interrupted, and those of
//! versions that were replaced.

use std::{collections::BTreeMap, time::Duration};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{Lake, live_files};
use crate::{clock, error::Result, schema::Table};

/// A file that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Garbage {
    /// The table.
    pub table: String,
    /// The file, in the table's folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
}

/// The data files of `table` that its current version does not name and that were written before `age` ago: a younger
/// one may belong to a commit that is on its way. With `apply` they are deleted, and the current version is read once
/// more before, so that a commit since then keeps its files.
///
/// # Errors
/// Where the log cannot be read, or a file cannot be listed or deleted.
pub async fn gc(lake: &Lake, table: &Table, age: Duration, apply: bool) -> Result<Vec<Garbage>> {
    let Some(live) = live(lake, table).await? else { return Ok(Vec::new()) };
    let location = lake.location();
    let folder = location.path(&table.name);
    let listed = location.store.list(Some(&folder)).try_collect::<Vec<ObjectMeta>>().await;
    let before = clock::now_ms() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let mut garbage = Vec::new();
    for object in listed.map_err(lake.fail(&table.name, "its files cannot be listed"))? {
        // the log and what else is in folders of their own is not ours to judge
        let Some(file) = name_in(&folder, &object.location) else { continue };
        if file.ends_with(".parquet") && !live.contains_key(&file) && object.last_modified.timestamp_millis() < before {
            garbage.push((Garbage { table: table.name.clone(), file, bytes: object.size }, object.location));
        }
    }
    if apply {
        let live = self::live(lake, table).await?.unwrap_or_default();
        garbage.retain(|(found, _)| !live.contains_key(&found.file));
        for (_, path) in &garbage {
            let deleted = location.store.delete(path).await;
            deleted.map_err(lake.fail(&table.name, "a file that nobody needs cannot be deleted"))?;
        }
    }
    Ok(garbage.into_iter().map(|(found, _)| found).collect())
}

/// The name of a file that lies directly in `folder`.
fn name_in(folder: &object_store::path::Path, location: &object_store::path::Path) -> Option<String> {
    let mut parts = location.prefix_match(folder)?;
    let name = parts.next()?.as_ref().to_owned();
    parts.next().is_none().then_some(name)
}

/// The live files of a table; none where it was never written.
async fn live(lake: &Lake, table: &Table) -> Result<Option<BTreeMap<String, i64>>> {
    let mut open = lake.open.lock().await;
    if !lake.refresh(&mut open, table).await? {
        return Ok(None);
    }
    let Some(found) = open.get(&table.name) else { return Ok(None) };
    live_files(&found.delta).map(Some).map_err(lake.fail(&table.name, "its log cannot be read"))
}
