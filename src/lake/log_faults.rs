//! Finds the damaged files in the log of a table, which the library only reports as a log that cannot be read.
//!
//! A reader starts at the newest checkpoint, or at entry 0, and needs every entry after it. So a damaged checkpoint is in
//! the way only if it is the newest or named by the hint `_last_checkpoint`, and can be moved aside if the entries before
//! it are whole. A damaged entry can be moved aside if no whole one follows: then the table is as it was before it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use serde_json::Value;

use super::{Hidden, Lake, data_file::parquet_problem};
use crate::{error::Result, storage::StorageError};

/// The folder of a table's log.
pub(super) const LOG: &str = "_delta_log";
/// The hint that tells readers where the newest checkpoint is.
const HINT: &str = "_last_checkpoint";
/// Digits of a version in the name of a file.
const VERSION_DIGITS: usize = 20;

/// A damaged file in the log of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFault {
    pub(crate) table: String,
    /// The name of the file in the lake.
    pub(crate) file: String,
    /// What is wrong with it.
    pub(crate) problem: String,
    pub(crate) remedy: Remedy,
}

/// What helps against a damaged file in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Readers do without it: it is a checkpoint, or a hint of one, and the log is whole.
    Derived,
    /// The table is as before the entry once it is moved aside.
    LastEntry,
    /// The entry is empty and others follow: readers take it for a commit that did nothing.
    EmptyEntry,
    /// Without it, nobody knows what the table holds.
    None,
}

impl Hidden {
    /// Returns what has to be hidden of a lake with these faults so that the tables can be read: the damaged files, and the
    /// whole log of a table that cannot be repaired.
    pub(crate) fn of(faults: &[LogFault]) -> Self {
        let hidden = faults.iter().filter_map(|fault| match fault.remedy {
            Remedy::Derived | Remedy::LastEntry => Some(fault.file.clone()),
            Remedy::EmptyEntry => None,
            Remedy::None => Some(format!("{}/{LOG}", fault.table)),
        });
        Self(hidden.collect())
    }
}

/// The files of a log, by what they are for.
#[derive(Debug, Default)]
struct LogFiles {
    entries: BTreeSet<u64>,
    checkpoints: BTreeMap<u64, Vec<Checkpoint>>,
    /// Several entries in one, which readers may read instead of these.
    compacted: Vec<String>,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Checkpoint {
    /// Its parts that exist.
    files: Vec<String>,
    /// The parts that it consists of; 1 if it is not cut into parts.
    parts: usize,
}

impl LogFiles {
    fn sort(names: impl Iterator<Item = String>) -> Self {
        let mut found = Self::default();
        for name in names {
            let Some((version, rest)) = name.split_once('.').and_then(|(digits, rest)| Some((version(digits)?, rest)))
            else {
                continue;
            };
            match rest.split('.').collect::<Vec<_>>().as_slice() {
                ["json"] => {
                    found.entries.insert(version);
                }
                [_, "compacted", "json"] => found.compacted.push(name),
                ["checkpoint", "parquet"] | ["checkpoint", _, "json" | "parquet"] => {
                    found.checkpoints.entry(version).or_default().push(Checkpoint { files: vec![name], parts: 1 });
                }
                ["checkpoint", _, parts, "parquet"] => {
                    let Ok(parts) = parts.parse() else { continue };
                    let group = found.checkpoints.entry(version).or_default();
                    match group.iter_mut().find(|checkpoint| checkpoint.parts == parts && parts > 1) {
                        Some(checkpoint) => checkpoint.files.push(name),
                        None => group.push(Checkpoint { files: vec![name], parts }),
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// Returns the version that the name of a file of a log begins with.
pub(super) fn version(digits: &str) -> Option<u64> {
    let version: u64 = digits.parse().ok().filter(|_| digits.len() == VERSION_DIGITS)?;
    // Delta's versions are signed.
    i64::try_from(version).is_ok().then_some(version)
}

/// Looks at the log of one table.
struct Look<'a> {
    lake: &'a Lake,
    table: &'a str,
    files: LogFiles,
    faults: Vec<LogFault>,
}

impl Lake {
    /// Returns the damaged files in the log of `table`; none if it was never written.
    ///
    /// # Errors
    /// Returns an error if the log cannot be listed, or if a file of it cannot be read although it exists.
    pub(crate) async fn log_faults(&self, table: &str) -> Result<Vec<LogFault>> {
        // Before the listing, which then has the checkpoint that another process has named.
        let hint = self.location.get(&format!("{table}/{LOG}/{HINT}")).await?;
        let folder = self.location.path(&format!("{table}/{LOG}"));
        let listed: Vec<ObjectMeta> =
            self.location.store.list(Some(&folder)).try_collect().await.map_err(|source| StorageError::List {
                url: self.location.url_of(&format!("{table}/{LOG}")),
                source,
            })?;
        let direct = listed.into_iter().filter_map(|found| {
            let mut parts = found.location.prefix_match(&folder)?;
            let name = parts.next()?.as_ref().to_owned();
            parts.next().is_none().then_some(name)
        });
        let mut look = Look { lake: self, table, files: LogFiles::sort(direct), faults: Vec::new() };
        let newest = look.newest_whole_checkpoint().await?;
        if let Some(hint) = hint {
            look.hint(&hint).await?;
        }
        look.entries(newest).await?;
        look.compacted().await?;
        // Nothing is moved aside in a log that stays unreadable.
        if look.faults.iter().any(|fault| fault.remedy == Remedy::None) {
            look.faults.iter_mut().for_each(|fault| fault.remedy = Remedy::None);
        }
        Ok(look.faults)
    }
}

impl Look<'_> {
    fn found(&mut self, name: &str, problem: impl Into<String>, remedy: Remedy) {
        let (table, file) = (self.table.to_owned(), format!("{}/{LOG}/{name}", self.table));
        // A checkpoint can be in the way twice: as the newest, and as the one that the hint names.
        if self.faults.iter().all(|fault| fault.file != file) {
            self.faults.push(LogFault { table, file, problem: problem.into(), remedy });
        }
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.lake.location.get(&format!("{}/{LOG}/{name}", self.table)).await?)
    }

    /// Returns the version of the newest whole checkpoint. Damaged ones that are newer are faults.
    async fn newest_whole_checkpoint(&mut self) -> Result<Option<u64>> {
        let versions: Vec<u64> = self.files.checkpoints.keys().rev().copied().collect();
        for version in versions {
            if self.has_whole_checkpoint(version).await? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Returns whether there is a whole checkpoint of `version`. Damaged ones of it are faults.
    async fn has_whole_checkpoint(&mut self, version: u64) -> Result<bool> {
        let mut is_whole = false;
        for checkpoint in self.files.checkpoints.get(&version).cloned().unwrap_or_default() {
            let mut broken = Vec::new();
            for name in &checkpoint.files {
                let bytes = self.read(name).await?;
                broken.extend(bytes.and_then(|bytes| checkpoint_problem(name, bytes)).map(|problem| (name, problem)));
            }
            is_whole |= broken.is_empty() && checkpoint.files.len() == checkpoint.parts;
            for (name, problem) in broken {
                self.found(name, problem, Remedy::Derived);
            }
        }
        Ok(is_whole)
    }

    async fn hint(&mut self, bytes: &[u8]) -> Result<()> {
        let hint = serde_json::from_slice::<Value>(bytes).ok();
        let Some(version) = hint.as_ref().and_then(|hint| hint.get("version")?.as_u64()) else {
            let problem = if is_blank(bytes) { EMPTY } else { "is torn" };
            self.found(HINT, problem, Remedy::Derived);
            return Ok(());
        };
        if !self.has_whole_checkpoint(version).await? {
            let problem = match self.files.checkpoints.contains_key(&version) {
                true => format!("names the checkpoint {version}, which is damaged"),
                false => format!("names the checkpoint {version}, which does not exist"),
            };
            self.found(HINT, problem, Remedy::Derived);
        }
        Ok(())
    }

    /// Looks at the entries that readers need if they start at the checkpoint of version `base`.
    async fn entries(&mut self, base: Option<u64>) -> Result<()> {
        let first = base.map_or(0, |base| base + 1);
        let needed: Vec<u64> = self.files.entries.range(first..).copied().collect();
        let mut broken: BTreeMap<u64, &str> = BTreeMap::new();
        let (mut expected, mut last_whole) = (first, None);
        for version in needed {
            while expected <= version {
                let bytes = self.read(&entry_name(expected)).await?;
                match bytes.as_deref().map_or(Some(MISSING), entry_problem) {
                    Some(problem) => drop(broken.insert(expected, problem)),
                    None => last_whole = Some(expected),
                }
                // A listing of a directory may lack an entry that was written meanwhile, so it is asked for; but a gap is
                // one fault.
                expected = if bytes.is_none() { version.max(expected + 1) } else { expected + 1 };
            }
        }
        if base.is_none() && self.files.entries.is_empty() && !self.files.checkpoints.is_empty() {
            self.found(&entry_name(first), MISSING, Remedy::None);
        }
        for (version, problem) in broken {
            let is_followed = last_whole.is_some_and(|last| version < last);
            let remedy = match (is_followed, problem) {
                // Only damaged entries follow, which are moved aside.
                (false, MISSING) => continue,
                (false, _) => Remedy::LastEntry,
                // Entry 0 says what the table is.
                (true, EMPTY) if version > 0 => Remedy::EmptyEntry,
                (true, _) => Remedy::None,
            };
            let problem = if is_followed { format!("{problem}, and later entries follow") } else { problem.to_owned() };
            self.found(&entry_name(version), problem, remedy);
        }
        Ok(())
    }

    async fn compacted(&mut self) -> Result<()> {
        for name in self.files.compacted.clone() {
            let bytes = self.read(&name).await?;
            if let Some(problem) = bytes.as_deref().and_then(entry_problem) {
                self.found(&name, problem, Remedy::Derived);
            }
        }
        Ok(())
    }
}

fn entry_name(version: u64) -> String {
    format!("{version:020}.json")
}

const EMPTY: &str = "is empty";
const MISSING: &str = "is missing";

fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

/// Returns what is wrong with the bytes of an entry.
fn entry_problem(bytes: &[u8]) -> Option<&'static str> {
    let mut lines = bytes.split(|&byte| byte == b'\n').filter(|line| !is_blank(line));
    let is_action = |line: &[u8]| serde_json::from_slice::<Value>(line).is_ok_and(|action| action.is_object());
    if is_blank(bytes) {
        Some(EMPTY)
    } else if bytes.iter().all(|&byte| byte == 0) {
        Some("consists of zeros")
    } else if !lines.all(is_action) {
        Some("is torn")
    } else {
        None
    }
}

/// Returns what is wrong with the bytes of a checkpoint or of a part of one.
fn checkpoint_problem(name: &str, bytes: Bytes) -> Option<String> {
    if bytes.is_empty() {
        return Some(EMPTY.to_owned());
    }
    if name.ends_with(".json") {
        return entry_problem(&bytes).map(str::to_owned);
    }
    parquet_problem(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_lines_of_json_objects() {
        for (bytes, problem) in [
            (&b"{\"txn\":{}}\n{\"add\":{}}"[..], None),
            (b"{\"txn\":{}}\n", None),
            (b"", Some(EMPTY)),
            (b" \n", Some(EMPTY)),
            (b"\0\0\0", Some("consists of zeros")),
            (b"{\"txn\":{}}\n{\"ad", Some("is torn")),
            (b"{\"txn\":{}}\n\0\0", Some("is torn")),
            (b"[]", Some("is torn")),
        ] {
            assert_eq!(entry_problem(bytes), problem, "{bytes:?}");
        }
    }

    #[test]
    fn files_of_a_log_are_known_by_their_names() {
        let names = [
            "00000000000000000002.json",
            "00000000000000000002.json.corrupt",
            "00000000000000000002.checkpoint.parquet",
            "00000000000000000003.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000003.checkpoint.0000000002.0000000002.parquet",
            "00000000000000000001.00000000000000000002.compacted.json",
            "00000000000000000002.crc",
        ];
        let found = LogFiles::sort(names.into_iter().map(str::to_owned));
        assert_eq!(found.entries.into_iter().collect::<Vec<_>>(), [2]);
        let parts =
            |version| found.checkpoints.get(&version).map(|all: &Vec<Checkpoint>| (all.len(), all[0].files.len()));
        assert_eq!((parts(2), parts(3)), (Some((1, 1)), Some((1, 2))));
        assert_eq!(found.compacted.len(), 1);
    }
}
