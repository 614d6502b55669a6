//! Takes damaged files out of a lake: files of a log are moved aside, data files are removed from the log.

use std::collections::BTreeSet;

use deltalake_core::{kernel::Action, protocol::SaveMode};
use serde_json::json;

use super::{
    Lake,
    commit::Change,
    log_faults::{LogFault, Remedy},
    marks::Mark,
    verify::verify_those,
};
use crate::{clock, error::Result, schema::Table};

/// The end of the name of a file that was moved aside. No reader of Delta tables reads such a file of a log.
pub(super) const CORRUPT: &str = ".corrupt";

impl Lake {
    /// Returns the name under which a damaged file of a log is kept.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub(crate) async fn name_aside(&self, fault: &LogFault) -> Result<String> {
        let mut name = format!("{}{CORRUPT}", fault.file);
        let mut number = 1;
        while self.location.exists(&name).await? {
            number += 1;
            name = format!("{}.{number}{CORRUPT}", fault.file);
        }
        Ok(name)
    }

    /// Takes a damaged file out of a log: moves it to the name `aside`, or puts an entry in its place that does nothing.
    /// Does nothing if it is whole by now. An entry may have changed rows; the table has to be made incomplete afterwards.
    ///
    /// # Errors
    /// Returns an error if the store does not read or write it.
    pub(crate) async fn take_out(&self, fault: &LogFault, aside: &str) -> Result<()> {
        let still = |now: &LogFault| now.file == fault.file && now.remedy == fault.remedy;
        if !self.log_faults(&fault.table).await?.iter().any(still) {
            return Ok(());
        }
        if fault.remedy == Remedy::EmptyEntry {
            let entry = json!({ "commitInfo": { "timestamp": clock::now_ms(), "operation": "REPAIR" } });
            return Ok(self.location.put(&fault.file, entry.to_string().into()).await?);
        }
        Ok(self.location.rename(&fault.file, aside).await?)
    }

    /// Removes damaged data files from the log, and makes the table incomplete, so that its rows are looked for again.
    /// Files that are whole by now stay.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read, or the commit fails or loses to other writers too often.
    pub(crate) async fn drop_files(&self, table: &Table, names: &BTreeSet<String>, deep: bool) -> Result<()> {
        let found = verify_those(self, table, deep, |name| names.contains(name)).await?;
        let damaged: BTreeSet<_> = found.iter().filter_map(|finding| finding.damaged_file()).collect();
        self.until_committed(table, async |mut open| {
            let state = open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?;
            let files = state.log_data();
            let removed = files.iter().filter(|file| damaged.contains(file.path().as_ref()));
            let actions: Vec<Action> = removed.map(|file| Action::Remove(file.remove_action(true))).collect();
            if actions.is_empty() {
                return Ok(true);
            }
            self.commit(&mut open, table, Change::of(actions, Mark::Reset, SaveMode::Append)).await
        })
        .await
    }
}
