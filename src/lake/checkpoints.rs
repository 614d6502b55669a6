//! Checkpoints of a table's log: derived data, without which a log is as whole as before. They are written every few
//! commits, a failure to write one is a warning, and a damaged one is passed over where the entries tell everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::catch_unwind,
};

use bytes::Bytes;
use deltalake_core::checkpoints::create_checkpoint;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{Lake, OpenTable, log_view::LogView};
use crate::{
    error::{Result, Warning, chain},
    schema::Table,
};

/// Commits between two checkpoints of the log. Tests have few, so that simulated histories have checkpoints.
pub(super) const CHECKPOINT_INTERVAL: u64 = if cfg!(test) { 4 } else { 20 };

/// What the folder of a log holds.
#[derive(Debug, Default)]
struct LogFolder {
    entries: BTreeSet<u64>,
    /// The checkpoints that can be read.
    sound: BTreeSet<u64>,
    /// Checkpoints that cannot be read, and a hint that names none.
    damaged: BTreeSet<Path>,
}

impl LogFolder {
    /// Returns whether the entries, after the latest sound checkpoint, tell everything.
    fn is_whole(&self) -> bool {
        let first = self.sound.last().map_or(0, |version| version + 1);
        let after = self.entries.range(first..);
        let last = self.entries.last().copied();
        after.clone().count() as u64 == last.map_or(0, |last| (last + 1).saturating_sub(first))
            && (last.is_some() || !self.sound.is_empty())
    }
}

impl Lake {
    /// Writes a checkpoint of the latest version of `open` if it is time for one.
    pub(super) async fn checkpoint(&self, open: &mut OpenTable, table: &Table, version: u64) {
        if !(version + 1).is_multiple_of(CHECKPOINT_INTERVAL) {
            return;
        }
        let written = match open.delta.update_incremental(Some(version)).await {
            Ok(()) => create_checkpoint(&open.delta, None).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            let message =
                format!("`{}`: a checkpoint of its log could not be written: {}", self.url(table), chain(&error));
            self.warn(Warning::new(
                message,
                "the rows are committed; opening the table takes longer until the next one",
            ));
        }
    }

    /// Hides the damaged checkpoints of `table`, whose log cannot be read, in `view`. Returns false if there are none, or if
    /// the log is not whole without them.
    ///
    /// # Errors
    /// Returns an error if the folder of the log cannot be read.
    pub(super) async fn pass_over_checkpoints(&self, table: &Table, view: &LogView) -> Result<bool> {
        let folder = self.log_folder(table, view).await?;
        if folder.damaged.is_empty() || !folder.is_whole() {
            return Ok(false);
        }
        let names: Vec<String> =
            folder.damaged.iter().filter_map(Path::filename).map(|name| format!("`{name}`")).collect();
        let message = format!("`{}`: damaged checkpoints are passed over: {}", self.url(table), names.join(", "));
        self.warn(Warning::new(message, "`discl-pipe verify --repair` removes them; all rows are there without"));
        view.hide(folder.damaged);
        Ok(true)
    }

    async fn log_folder(&self, table: &Table, view: &LogView) -> Result<LogFolder> {
        let failed = self.fail(table, "the folder of its log cannot be read");
        let path = self.location.path(&format!("{}/_delta_log", table.name));
        let listed = view.list_with_delimiter(Some(&path)).await.map_err(&failed)?;
        let (mut folder, mut checkpoints, mut hint) = (LogFolder::default(), BTreeMap::new(), None);
        for found in listed.objects {
            let name = found.location.filename().unwrap_or_default();
            let version = name.get(..20).and_then(|version| version.parse::<u64>().ok());
            match (version, name.get(20..)) {
                (Some(version), Some(".json")) => {
                    folder.entries.insert(version);
                }
                (Some(version), Some(rest)) if rest.starts_with(".checkpoint") && rest.ends_with(".parquet") => {
                    checkpoints.entry(version).or_insert_with(Vec::new).push(found.location);
                }
                _ if name == "_last_checkpoint" => hint = Some(found.location),
                _ => {}
            }
        }
        for (version, parts) in checkpoints {
            let mut is_sound = true;
            for part in &parts {
                is_sound &= is_readable(view.get(part).await.map_err(&failed)?.bytes().await.map_err(&failed)?);
            }
            if is_sound {
                folder.sound.insert(version);
            } else {
                folder.damaged.extend(parts);
            }
        }
        if let Some(hint) = hint {
            let bytes = view.get(&hint).await.map_err(&failed)?.bytes().await.map_err(&failed)?;
            let named = serde_json::from_slice(&bytes).ok().and_then(|hint: Value| hint.get("version")?.as_u64());
            if !named.is_some_and(|version| folder.sound.contains(&version)) {
                folder.damaged.insert(hint);
            }
        }
        Ok(folder)
    }
}

/// Returns whether all rows of a Parquet file can be read.
fn is_readable(bytes: Bytes) -> bool {
    let read = move || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?.build().ok()?;
        reader.map(|batch| batch.ok().map(drop)).collect::<Option<Vec<()>>>().map(drop)
    };
    // The library panics on some damaged files.
    catch_unwind(read).is_ok_and(|read| read.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_whole_from_its_start_or_from_a_sound_checkpoint() {
        let is_whole = |entries: &[u64], sound: &[u64]| {
            let (entries, sound) = (entries.iter().copied().collect(), sound.iter().copied().collect());
            LogFolder { entries, sound, damaged: BTreeSet::new() }.is_whole()
        };
        assert!(is_whole(&[0, 1, 2], &[]) && is_whole(&[0, 2, 3], &[1]) && is_whole(&[4], &[3]) && is_whole(&[], &[3]));
        assert!(!is_whole(&[1, 2], &[]) && !is_whole(&[0, 2], &[]) && !is_whole(&[5], &[3]) && !is_whole(&[], &[]));
    }
}
