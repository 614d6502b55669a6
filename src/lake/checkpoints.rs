//! Checkpoints of a table's log: derived data, without which a log is as whole as before. They are written every few
//! commits, a failure to write one is a warning, and a damaged one is passed over where the entries tell everything.

use deltalake_core::{DeltaTable, checkpoints::create_checkpoint};

use super::{Hidden, Lake, LogFault, OpenTable, Remedy, error::LakeError, update};
use crate::{
    error::{Result, Warning, chain},
    schema::Table,
};

/// Commits between two checkpoints of the log. Tests have few, so that simulated histories have checkpoints.
pub(super) const CHECKPOINT_INTERVAL: u64 = if cfg!(any(test, fuzzing)) { 4 } else { 20 };

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

    /// Opens a table whose log cannot be read without its damaged checkpoints. Returns `None` if no file of the log is
    /// damaged.
    ///
    /// # Errors
    /// Returns an error that names a damaged file if the log is not whole without it.
    pub(super) async fn open_without_checkpoints(&self, table: &Table) -> Result<Option<DeltaTable>> {
        let faults = self.log_faults(&table.name).await?;
        if faults.is_empty() {
            return Ok(None);
        }
        if let Some(LogFault { file, problem, .. }) = faults.iter().find(|fault| fault.remedy != Remedy::Derived) {
            return Err(LakeError::Damaged { url: self.location.url_of(file), problem: problem.clone() }.into());
        }
        let names: Vec<String> = faults
            .iter()
            .map(|fault| format!("`{}` {}", fault.file.rsplit('/').next().unwrap_or_default(), fault.problem))
            .collect();
        let message = format!("`{}`: damaged checkpoints are passed over: {}", self.url(table), names.join("; "));
        self.warn(Warning::new(message, "all rows are there without; `discl-pipe verify --repair` moves them aside"));
        let mut delta = self.delta_table(table, self.store_without(&Hidden::of(&faults)))?;
        update(&mut delta).await.map_err(self.fail(table, "its log cannot be read"))?;
        Ok(Some(delta))
    }
}
