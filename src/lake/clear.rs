//! Removes all rows of a table.

use std::sync::atomic::{AtomicBool, Ordering};

use deltalake_core::{kernel::Action, protocol::SaveMode};

use super::{Lake, commit::Change, marks::Mark};
use crate::{error::Result, schema::Table};

impl Lake {
    /// Removes all rows of the table if it is at the version `base`; returns false, and does nothing, if it is not. The same
    /// commit says that its rows have changed, until a completion accounts for that.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read or written.
    pub(crate) async fn clear(&self, table: &Table, base: u64) -> Result<bool> {
        let is_outrun = AtomicBool::new(false);
        self.until_committed(table, async |mut open| {
            let state = open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?;
            if state.version() != base {
                is_outrun.store(true, Ordering::Relaxed);
                return Ok(true);
            }
            let files = state.log_data();
            let actions = files.iter().map(|file| Action::Remove(file.remove_action(true))).collect();
            self.commit(&mut open, table, Change::of(actions, Mark::Reset, SaveMode::Overwrite)).await
        })
        .await?;
        Ok(!is_outrun.into_inner())
    }
}
