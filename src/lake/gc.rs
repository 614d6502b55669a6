//! Deletes files that no reader of the current version needs: those of lost or interrupted commits, those of replaced
//! versions, what killed writers have left, and what `verify --repair` has moved aside.
//!
//! Data files are named by their content, so a name that is garbage may come back at any moment: a run writes the file
//! again, and then commits it. Writing renews the age of a file, so its age is asked for directly before its deletion. On
//! a local file system, which renames atomically, the file is looked at once nobody can write it any more. In a cloud
//! there is a moment between the question and the deletion; a writer looks at its files again after its commit
//! (`Lake::keep`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::TryStreamExt;
use object_store::{Error, ObjectMeta, ObjectStoreExt};

use super::{
    Lake,
    error::LakeError,
    log_faults::{LOG, Remedy},
    probe::arbitrary,
    repair::CORRUPT,
};
use crate::{
    clock,
    error::Result,
    schema::Table,
    storage::{
        StorageError, is_staging_end,
        simulated::{Mutant, has},
    },
};

/// Deletions after which the live files are read again.
const MAX_DELETIONS_PER_LOOK: usize = 100;
/// The end of the name of a data file that is about to be deleted.
const DOOMED: &str = ".deleted";

/// A file that is not needed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Garbage {
    /// The table; empty for a file that is in the folder of the pipeline itself.
    pub(crate) table: String,
    /// Its name in the table's folder.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    #[serde(skip)]
    kind: Kind,
}

/// What a file is, which decides how it is looked at and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A data file of a table. A run may write it again.
    Data,
    /// What nobody writes again: moved aside by a repair or by an interrupted deletion.
    Aside,
    /// A local file `NAME#…` that a killed writer has left. The store neither lists nor opens such names.
    Staging,
}

impl Garbage {
    /// Returns the name of the file in the lake.
    pub(crate) fn name(&self) -> String {
        if self.table.is_empty() { self.file.clone() } else { format!("{}/{}", self.table, self.file) }
    }
}

/// Finds and deletes what is not needed.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    lake: &'a Lake,
    tables: Vec<&'a Table>,
    /// The time of the store, in milliseconds since 1970, before which a file must have been written.
    before: i64,
    /// The table whose live files were read last, and how many deletions ago.
    live: Option<(String, BTreeMap<String, u64>, usize)>,
}

impl<'a> Collector<'a> {
    /// Returns the files of `tables` that their current versions do not name and that are older than `age`; a younger one
    /// can belong to a commit in progress. Deletes nothing. Ages are by the clock of the store, unless the lake is not
    /// `writable`.
    ///
    /// # Errors
    /// Returns an error if a log cannot be read, or a folder cannot be listed.
    pub(crate) async fn find(
        lake: &'a Lake,
        tables: Vec<&'a Table>,
        age: Duration,
        writable: bool,
    ) -> Result<(Self, Vec<Garbage>)> {
        let mut found = unneeded_staging(lake, "", "").await?;
        for table in &tables {
            found.extend(unneeded(lake, table).await?);
        }
        // Nothing is written to a lake that has no garbage.
        let now = match found.is_empty() {
            true => clock::now_ms(),
            false => now(lake, writable).await?,
        };
        let age = if has(Mutant::CollectYoung) { Duration::ZERO } else { age };
        let before = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let old = found.into_iter().filter(|(_, written)| *written <= before).map(|(garbage, _)| garbage).collect();
        Ok((Self { lake, tables, before, live: None }, old))
    }

    /// Deletes a file that [`Collector::find`] has found, unless somebody has written it since, or a commit names it.
    /// Returns whether it was deleted.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read, or if the store does not delete the file.
    pub(crate) async fn delete(&mut self, garbage: &Garbage) -> Result<bool> {
        let (name, is_local) = (garbage.name(), self.lake.location.directory().is_some());
        match garbage.kind {
            Kind::Staging => self.delete_staging(garbage).await,
            Kind::Aside => self.delete_if_old(&name).await,
            Kind::Data if self.is_live(garbage).await? => Ok(false),
            Kind::Data if is_local => self.delete_aside(&name).await,
            Kind::Data => self.delete_if_old(&name).await,
        }
    }

    /// Returns whether the current version of the table names the file. It is read again after every hundredth deletion.
    async fn is_live(&mut self, garbage: &Garbage) -> Result<bool> {
        if let Some((table, live, deletions)) = &mut self.live
            && *table == garbage.table
            && *deletions < MAX_DELETIONS_PER_LOOK
        {
            *deletions += 1;
            return Ok(live.contains_key(&garbage.file));
        }
        let Some(table) = self.tables.iter().find(|table| table.name == garbage.table) else { return Ok(true) };
        let live = self.lake.live_files(table).await?.unwrap_or_default();
        let is_live = live.contains_key(&garbage.file);
        self.live = Some((garbage.table.clone(), live, 1));
        Ok(is_live)
    }

    /// Deletes an object if it is old at this moment.
    async fn delete_if_old(&self, name: &str) -> Result<bool> {
        let location = &self.lake.location;
        match location.store.head(&location.path(name)).await {
            Ok(meta) if meta.last_modified.timestamp_millis() > self.before && !has(Mutant::CollectUnseen) => Ok(false),
            Ok(_) => Ok(location.delete(name).await?),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(StorageError::Find { url: location.url_of(name), source }.into()),
        }
    }

    /// Deletes a local data file. It is renamed first: a file that is written from then on is another one, and whether
    /// somebody wrote this one before, its age tells.
    async fn delete_aside(&self, name: &str) -> Result<bool> {
        let location = &self.lake.location;
        let aside = format!("{name}{DOOMED}");
        if !location.exists(name).await? {
            return Ok(false);
        }
        location.rename(name, &aside).await?;
        if self.delete_if_old(&aside).await? {
            return Ok(true);
        }
        let (from, to) = (location.path(&aside), location.path(name));
        match location.store.rename_if_not_exists(&from, &to).await {
            Ok(()) => {}
            // Somebody has written it once more meanwhile, with the same content.
            Err(Error::AlreadyExists { .. }) => drop(location.delete(&aside).await?),
            Err(source) => return Err(StorageError::Write { url: location.url_of(name), source }.into()),
        }
        Ok(false)
    }

    async fn delete_staging(&self, garbage: &Garbage) -> Result<bool> {
        let (lake, before) = (self.lake, self.before);
        let Some(root) = lake.location.directory() else { return Ok(false) };
        let path = root.join(garbage.name());
        let deleted = blocking(move || match fs::symlink_metadata(&path) {
            Ok(found) if written(&found) <= before => fs::remove_file(&path).map(|()| true),
            _ => Ok(false),
        });
        let failed =
            |source| LakeError::Collect { url: lake.location.url_of(&garbage.name()), source: Box::new(source) };
        Ok(deleted.await.map_err(failed)?)
    }
}

/// Returns the time of the store: that at which it says that an object was written just now. A machine whose clock is wrong
/// would take for old what a run is about to commit. If nothing can be written, nothing can be deleted either, and the
/// clock of this machine has to do.
async fn now(lake: &Lake, writable: bool) -> Result<i64> {
    let (location, name) = (&lake.location, format!("_gc-{:016x}", arbitrary()));
    let asked = async {
        location.put(&name, "gc".into()).await?;
        let written = location.store.head(&location.path(&name)).await;
        // What an error has left is small and harmless.
        location.delete(&name).await?;
        let written = written.map_err(|source| StorageError::Find { url: location.url_of(&name), source })?;
        Ok::<_, StorageError>(written.last_modified.timestamp_millis())
    };
    match asked.await {
        Err(error) if writable => Err(error.into()),
        asked => Ok(asked.unwrap_or_else(|_| clock::now_ms())),
    }
}

/// Returns the files of a table that its current version does not name, and when each was written, in milliseconds since
/// 1970. A table that was never written may have what a killed writer has left.
async fn unneeded(lake: &Lake, table: &Table) -> Result<Vec<(Garbage, i64)>> {
    // A lost entry names files that may come back with it.
    let faults = lake.log_faults(&table.name).await?;
    if let Some(fault) = faults.into_iter().find(|fault| fault.remedy != Remedy::Derived) {
        return Err(LakeError::Damaged { url: lake.location.url_of(&fault.file), problem: fault.problem }.into());
    }
    let live = lake.live_files(table).await?.unwrap_or_default();
    let failed = |source: Error| LakeError::Collect { url: lake.url(table), source: Box::new(source) };
    let folder = lake.location.path(&table.name);
    let listed: Vec<ObjectMeta> = lake.location.store.list(Some(&folder)).try_collect().await.map_err(failed)?;
    let mut found = Vec::new();
    for object in listed {
        let Some(file) = name_in(&folder, &object.location) else { continue };
        // Of the log only what was moved aside; other folders are left alone.
        let kind = match file.strip_prefix(LOG).and_then(|rest| rest.strip_prefix('/')) {
            Some(entry) if entry.ends_with(CORRUPT) => Kind::Aside,
            None if file.ends_with(&format!(".parquet{DOOMED}")) => Kind::Aside,
            None if file.ends_with(".parquet") && !live.contains_key(&file) => Kind::Data,
            _ => continue,
        };
        let garbage = Garbage { table: table.name.clone(), file, bytes: object.size, kind };
        found.push((garbage, object.last_modified.timestamp_millis()));
    }
    found.extend(unneeded_staging(lake, &table.name, "").await?);
    found.extend(unneeded_staging(lake, &table.name, LOG).await?);
    Ok(found)
}

/// Returns the name of a file in `folder`, if it is directly in it or in the log.
fn name_in(folder: &object_store::path::Path, path: &object_store::path::Path) -> Option<String> {
    let parts: Vec<String> = path.prefix_match(folder)?.map(|part| part.as_ref().to_owned()).collect();
    match parts.as_slice() {
        [name] => Some(name.clone()),
        [log, name] if log == LOG => Some(format!("{log}/{name}")),
        _ => None,
    }
}

/// Returns the files of killed writers in a folder of a table, or of the pipeline if `table` is empty, and when each was
/// written. There are none in a cloud.
async fn unneeded_staging(lake: &Lake, table: &str, below: &str) -> Result<Vec<(Garbage, i64)>> {
    let Some(root) = lake.location.directory() else { return Ok(Vec::new()) };
    let folder: PathBuf = root.join(table).join(below);
    let listed = blocking(move || staging(&folder)).await;
    let listed =
        listed.map_err(|source| LakeError::Collect { url: lake.location.url_of(table), source: Box::new(source) })?;
    let garbage = |(name, bytes, written): (String, u64, i64)| {
        let file = if below.is_empty() { name } else { format!("{below}/{name}") };
        (Garbage { table: table.to_owned(), file, bytes, kind: Kind::Staging }, written)
    };
    Ok(listed.into_iter().map(garbage).collect())
}

/// Returns name, bytes and time of the files in `folder` that a writer of this program has begun.
fn staging(folder: &Path) -> std::io::Result<Vec<(String, u64, i64)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A writer may be done with it by now.
        let Ok(metadata) = entry.metadata() else { continue };
        if is_staging(&name) && metadata.is_file() {
            found.push((name, metadata.len(), written(&metadata)));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name is `NAME#N` or another one of a write that has begun, where `NAME` is one that this program writes.
fn is_staging(name: &str) -> bool {
    name.split_once('#').is_some_and(|(name, end)| {
        let is_ours = [".parquet", ".json", ".crc", ".png"].iter().any(|end| name.ends_with(end));
        let is_number = !end.is_empty() && end.bytes().all(|digit| digit.is_ascii_digit());
        (is_number || is_staging_end(end))
            && (is_ours || name.starts_with("_last_checkpoint") || name.starts_with("_gc-"))
    })
}

/// Returns when a file was written, in milliseconds since 1970.
fn written(metadata: &fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_program_are_left_by_its_writers() {
        for name in [
            "rows-0123.parquet#1",
            "00000000000000000001.json#12",
            "_last_checkpoint#1",
            "sheet.png#0123456789abcdef-3",
        ] {
            assert!(is_staging(name), "{name}");
        }
        for name in ["rows.parquet", "rows.parquet#", "rows.parquet#a", "#1", "notes#1", "notes.txt#1", "a#1.parquet"] {
            assert!(!is_staging(name), "{name}");
        }
    }
}
