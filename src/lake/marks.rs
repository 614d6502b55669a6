//! What the log of a table says about its step: which fingerprint completed it, and whether another program has changed
//! its rows since.
//!
//! Each commit of this program carries its own version as an application transaction, so a commit without it is another
//! program's. If such a commit changes data, which compaction does not, the table is no longer what its step made. Our
//! next commit records the version of that change, so nobody has to read older entries of the log again.

use deltalake_core::{
    DeltaTableError,
    kernel::Transaction,
    logstore::{LogStore, LogStoreRef},
    table::state::DeltaTableState,
};

use super::{OpenTable, ids::Ids, log_entry::LogEntry};
use crate::storage::simulated::{Mutant, has};

/// The application id under which a table has the fingerprint of the step that completed it; 0 is none.
const FINGERPRINT: &str = "discl-pipe/fingerprint";
/// The application id under which each of our commits has its own version.
const VERSION: &str = "discl-pipe/version";
/// The application id of [`Marks::changed`].
const CHANGED: &str = "discl-pipe/changed";
/// New entries of a log that are read one by one. Beyond, the library looks the marks up.
const MAX_NEW_ENTRIES: u64 = 256;

/// The marks of a table at one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    version: u64,
    fingerprint: i64,
    /// The latest version since which rows have to be looked for again, because another program changed them or because
    /// somebody asked for it; 0 if there is none.
    changed: u64,
}

/// What a commit does to the marks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// Nothing: rows are added.
    Keep,
    /// The step with this fingerprint, or 0 for an incomplete one, accounts for all rows of the version `since`.
    Set { fingerprint: i64, since: u64 },
    /// The table is incomplete, whatever a run in progress finds.
    Reset,
}

impl Marks {
    /// Returns the fingerprint of the step whose rows the table holds; `None` if it is incomplete or was changed.
    pub(super) fn complete(self) -> Option<i64> {
        (self.fingerprint != 0 && self.changed == 0).then_some(self.fingerprint)
    }

    /// Returns the version since which rows have to be looked for again.
    pub(super) fn changed(self) -> Option<u64> {
        (self.changed != 0).then_some(self.changed)
    }

    /// Returns the version in which another program changed a complete table.
    pub(super) fn changed_after_completion(self) -> Option<u64> {
        self.changed().filter(|_| self.fingerprint != 0)
    }

    /// Returns whether the table is as the step with `fingerprint` left it, or unchanged at all if that is `None`.
    pub(super) fn agree(self, fingerprint: Option<i64>) -> bool {
        self.changed == 0 && fingerprint.is_none_or(|fingerprint| fingerprint == self.fingerprint)
    }

    /// Returns the marks after the commit on top of these.
    pub(super) fn after(self, mark: Mark) -> Self {
        let version = self.version + 1;
        match mark {
            Mark::Keep => Self { version, ..self },
            Mark::Set { fingerprint, since } => {
                let is_later = self.changed > since && !has(Mutant::CompleteBlindly);
                Self { version, fingerprint, changed: if is_later { self.changed } else { 0 } }
            }
            Mark::Reset => Self { version, fingerprint: 0, changed: version },
        }
    }

    /// Returns what a commit with these marks carries. The first commit of a table is [`Marks::default`]'s.
    pub(super) fn transactions(self) -> Vec<Transaction> {
        let number = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
        vec![
            Transaction::new(FINGERPRINT, self.fingerprint),
            Transaction::new(VERSION, number(self.version)),
            Transaction::new(CHANGED, number(self.changed)),
        ]
    }

    /// Returns the marks of the entry that is `version` of a table; `None` if another program wrote it.
    pub(super) fn of(entry: &LogEntry, version: u64) -> Option<Self> {
        let number = |id| entry.transaction(id).and_then(|number| u64::try_from(number).ok());
        let (fingerprint, changed) = (entry.transaction(FINGERPRINT)?, number(CHANGED)?);
        (number(VERSION)? == version).then_some(Self { version, fingerprint, changed })
    }

    /// Looks the marks up in the log.
    async fn load(state: &DeltaTableState, log: &dyn LogStore) -> Result<Self, DeltaTableError> {
        let find = async |id| state.transaction_version(log, id).await;
        let number = |version: Option<i64>| version.and_then(|version| u64::try_from(version).ok());
        let version = state.version();
        let ours = number(find(VERSION).await?);
        let mut marks = Self {
            version,
            fingerprint: find(FINGERPRINT).await?.unwrap_or(0),
            changed: number(find(CHANGED).await?).unwrap_or(0),
        };
        for entry in (ours.map_or(0, |ours| ours + 1)..=version).rev() {
            let changes_data = LogEntry::read(log, entry).await?.is_none_or(|entry| entry.changes_data);
            if changes_data && !has(Mutant::TrustOthers) {
                marks.changed = entry;
                break;
            }
        }
        Ok(marks)
    }

    /// Brings the marks up to `version` by reading the entries since. Notes in `ids` which ids their files have.
    async fn follow(mut self, log: &dyn LogStore, version: u64, ids: &mut Ids) -> Result<Self, DeltaTableError> {
        for version in self.version + 1..=version {
            let entry = LogEntry::read(log, version).await?;
            self.version = version;
            if let Some(marks) = entry.as_ref().and_then(|entry| Self::of(entry, version)) {
                self = marks;
                ids.announce(entry.map(|entry| entry.ids).unwrap_or_default());
            } else if entry.is_none_or(|entry| entry.changes_data) && !has(Mutant::TrustOthers) {
                self.changed = version;
            }
        }
        Ok(self)
    }
}

impl Default for Marks {
    /// Those of version 0 of a table: no rows.
    fn default() -> Self {
        Self { version: 0, fingerprint: 0, changed: 0 }
    }
}

impl OpenTable {
    /// Returns the marks of the open version.
    pub(super) async fn marks(&mut self) -> Result<Marks, DeltaTableError> {
        let state = self.delta.snapshot()?;
        let (log, version): (LogStoreRef, u64) = (self.delta.log_store(), state.version());
        let marks = match self.marks {
            Some(known) if (known.version..=known.version + MAX_NEW_ENTRIES).contains(&version) => {
                known.follow(log.as_ref(), version, &mut self.ids).await?
            }
            _ => Marks::load(state, log.as_ref()).await?,
        };
        self.marks = Some(marks);
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_makes_good_what_it_has_seen() {
        let found = Marks { version: 7, fingerprint: 5, changed: 6 };
        assert_eq!((found.complete(), found.changed()), (None, Some(6)));
        let set = |since| found.after(Mark::Set { fingerprint: 5, since });
        assert_eq!((set(7).complete(), set(6).complete(), set(5).complete()), (Some(5), Some(5), None));
        assert_eq!(set(5).changed(), Some(6));
        let reset = found.after(Mark::Reset);
        assert_eq!((reset.complete(), reset.changed_after_completion()), (None, None));
        assert_eq!(reset.after(Mark::Set { fingerprint: 5, since: 7 }).complete(), None, "it looked before the reset");
        assert_eq!(found.after(Mark::Keep).changed(), Some(6));
    }

    #[test]
    fn a_commit_carries_its_marks() {
        let marks = Marks { version: 3, fingerprint: -4, changed: 2 };
        let lines: Vec<_> = marks
            .transactions()
            .iter()
            .map(|txn| serde_json::json!({ "txn": { "appId": txn.app_id, "version": txn.version } }).to_string())
            .collect();
        let entry = LogEntry::parse(lines.join("\n").as_bytes()).unwrap();
        assert_eq!(Marks::of(&entry, 3), Some(marks));
        assert_eq!(Marks::of(&entry, 4), None, "another program has copied the entry");
    }
}
