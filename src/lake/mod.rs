//! The lake: Delta tables at `<root>/<pipeline>/<table>`.
//!
//! A data file is immutable and named by its content. A file that no commit names is invisible. A commit is a
//! compare-and-swap on the table's version. Before it, the ids that other commits have added are read, and rows with
//! these ids are dropped from the new rows: a row is in a table once, whatever other writers do.

mod checkpoints;
mod clear;
mod commit;
mod data_file;
mod error;
mod expel;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gc;
mod hidden;
mod ids;
mod log_entry;
mod log_faults;
mod log_store;
mod log_view;
mod marks;
mod probe;
mod protocol;
mod read;
mod repair;
mod statistics;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use object_store::ObjectStore;
use tokio::sync::Mutex;

pub(crate) use commit::UnitRows;
pub(crate) use data_file::{DataFile, StreamingWriter};
pub(crate) use gc::{Collector, Garbage};
pub(crate) use hidden::Hidden;
pub(crate) use log_faults::{LogFault, Remedy};
pub(crate) use read::Reading;
pub(crate) use verify::{Finding, FindingKind, verify_files};

use self::{error::LakeError, ids::Ids, log_view::LogView, marks::Marks};
use crate::{
    error::{Result, Warning, contained},
    schema::Table,
    storage::Location,
};

/// How often a log that cannot be read is read again: a listing of a directory can miss an entry that exists.
const MAX_READS: u32 = 3;
const REREAD_DELAY: Duration = Duration::from_millis(50);

/// The tables of one pipeline.
#[derive(Debug)]
pub(crate) struct Lake {
    location: Location,
    tables: Mutex<BTreeMap<String, OpenTable>>,
    /// Commits with an unknown outcome since the last one with a known outcome.
    lost_responses: AtomicU32,
    /// What was wrong with a table and did not stop the work.
    warnings: std::sync::Mutex<Vec<Warning>>,
}

/// A table whose log has been read.
#[derive(Debug)]
struct OpenTable {
    delta: DeltaTable,
    /// Its marks, at the version for which they were last needed.
    marks: Option<Marks>,
    ids: Ids,
}

impl Lake {
    /// Opens the lake of `pipeline` below `root`, a directory or URL. Nothing is read or written yet.
    ///
    /// # Errors
    /// Returns an error if `root` does not name a store, or one that the library of the log cannot read.
    pub(crate) fn open(root: &str, pipeline: &str) -> Result<Self> {
        log_store::register();
        let location = Location::open(root)?.below(pipeline)?;
        // It takes a path out of a URL twice, and would look elsewhere.
        if ["%25", "%5C"].iter().any(|encoded| location.url.path().contains(encoded)) {
            return Err(LakeError::UnreadablePath { root: root.to_owned() }.into());
        }
        Ok(Self::at(location))
    }

    /// Opens the lake at `location`.
    pub(crate) fn at(location: Location) -> Self {
        let (tables, lost_responses, warnings) = Default::default();
        Self { location, tables, lost_responses, warnings }
    }

    fn warn(&self, warning: Warning) {
        tracing::warn!("{}", warning.message);
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    /// Returns what was found to be wrong with tables so far and did not stop the work.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns where the tables are.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    fn url(&self, table: &Table) -> String {
        self.location.url_of(&table.name)
    }

    /// Returns a function that turns the library's error about `table` into ours.
    fn fail<E>(&self, table: &Table, problem: &'static str) -> impl Fn(E) -> LakeError + use<E>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let url = self.url(table);
        move |error| LakeError::Delta { url: url.clone(), problem, source: error.into() }
    }

    /// Opens the log of `table` in `store`, which is that of the lake or a part of it.
    fn delta_table(&self, table: &Table, store: Arc<dyn ObjectStore>) -> Result<DeltaTable> {
        let location = self.location.below(&table.name)?;
        let store = Arc::new(LogView::new(store));
        let opened = DeltaTableBuilder::from_url(location.url.clone())
            .map(|builder| builder.with_storage_backend(store, location.url))
            .and_then(DeltaTableBuilder::build);
        Ok(opened.map_err(self.fail(table, "the table cannot be opened"))?)
    }

    /// Brings the open table up to its latest version; returns `None` if it was never written.
    async fn refresh<'a>(
        &self,
        tables: &'a mut BTreeMap<String, OpenTable>,
        table: &Table,
    ) -> Result<Option<&'a mut OpenTable>> {
        let unreadable = self.fail(table, "its log cannot be read");
        if !tables.contains_key(&table.name) {
            let delta = self.delta_table(table, Arc::clone(&self.location.store))?;
            if !delta.log_store().is_delta_table_location().await.map_err(&unreadable)? {
                return Ok(None);
            }
            tables.insert(table.name.clone(), OpenTable { delta, marks: None, ids: Ids::default() });
        }
        let Some(open) = tables.get_mut(&table.name) else { return Ok(None) };
        let mut updated = update(&mut open.delta).await;
        for read in 1..MAX_READS {
            if !matches!(updated, Err(DeltaTableError::KernelError(_))) {
                break;
            }
            tokio::time::sleep(REREAD_DELAY * read).await;
            updated = update(&mut open.delta).await;
        }
        if let Err(error) = updated {
            open.delta = self.open_without_checkpoints(table).await?.ok_or_else(|| unreadable(error))?;
        }
        Ok(Some(open))
    }
}

/// Reads the new entries of a log. The library panics on some damaged checkpoints.
async fn update(delta: &mut DeltaTable) -> Result<(), DeltaTableError> {
    contained(delta.update_state()).await.unwrap_or_else(|panic| Err(DeltaTableError::Generic(panic)))
}

impl OpenTable {
    /// Returns name and size of every live data file.
    fn live_files(&self) -> Result<BTreeMap<String, u64>, DeltaTableError> {
        let files = self.delta.snapshot()?.log_data();
        Ok(files.iter().map(|file| (file.path().into_owned(), u64::try_from(file.size()).unwrap_or(0))).collect())
    }
}
