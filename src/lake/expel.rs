//! Takes the rows that another program wrote out of an incremental table, so that its step computes them itself.

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::{DeltaTableError, kernel::Action, protocol::SaveMode};

use super::{
    Lake, OpenTable,
    commit::Change,
    data_file::digest_in_name,
    log_entry::LogEntry,
    marks::{Mark, Marks},
};
use crate::{
    error::Result,
    schema::Table,
    storage::simulated::{Mutant, has},
};

/// The operation that changes data and writes only rows that it has read, those that it leaves in a file. So does
/// compaction, which changes no data.
const DELETE: &str = "DELETE";

impl Lake {
    /// Removes the files that another program wrote since the step was last complete, unless they have only rows that
    /// were there before. Does nothing if no other program has changed the table.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read or written, or the commit loses to other writers too often.
    pub(crate) async fn expel(&self, table: &Table) -> Result<()> {
        self.until_committed(table, async |mut open| {
            let unreadable = self.fail(table, "its log cannot be read");
            if open.marks().await.map_err(&unreadable)?.changed().is_none() || has(Mutant::KeepOthers) {
                return Ok(true);
            }
            let theirs = open.theirs().await.map_err(&unreadable)?;
            let state = open.delta.snapshot().map_err(unreadable)?;
            let is_theirs = |path: &str| theirs.contains(path);
            let files = state.log_data();
            let removed = files.iter().filter(|file| is_theirs(&file.path()));
            let actions: Vec<Action> = removed.map(|file| Action::Remove(file.remove_action(true))).collect();
            if actions.is_empty() {
                return Ok(true);
            }
            self.commit(&mut open, table, Change::of(actions, Mark::Keep, SaveMode::Append)).await
        })
        .await
    }
}

impl OpenTable {
    /// Returns the live files with rows that another program wrote, as far back as the last completion of the step, which
    /// has accounted for everything before.
    async fn theirs(&self) -> Result<BTreeSet<String>, DeltaTableError> {
        let live = self.live_files()?.into_keys().filter(|name| digest_in_name(name).is_none());
        // Each file that is looked for, and the live files with its rows.
        let mut wanted: BTreeMap<String, BTreeSet<String>> =
            live.map(|name| (name.clone(), BTreeSet::from([name]))).collect();
        let mut theirs = BTreeSet::new();
        let log = self.delta.log_store();
        for version in (0..=self.delta.snapshot()?.version()).rev() {
            if wanted.is_empty() {
                break;
            }
            let Some(entry) = LogEntry::read(log.as_ref(), version).await? else { break };
            if Marks::of(&entry, version).is_some_and(|marks| marks.complete().is_some()) {
                break;
            }
            // A restored file was written earlier.
            if entry.operation == "RESTORE" {
                continue;
            }
            let written: BTreeSet<String> =
                entry.added.iter().filter_map(|name| wanted.remove(name)).flatten().collect();
            if entry.changes_data && entry.operation != DELETE {
                theirs.extend(written);
            } else if !written.is_empty() {
                for name in entry.removed.iter().filter(|name| digest_in_name(name).is_none()) {
                    wanted.entry(name.clone()).or_default().extend(written.clone());
                }
            }
        }
        Ok(theirs)
    }
}
