//! Reads of a table: its rows for queries, its size, its ids, its live files.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use datafusion::catalog::TableProvider;

use super::{Lake, error::LakeError};
use crate::{
    error::Result,
    schema::{Kind, Table},
};

/// A table at one version.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Its rows, for queries.
    pub(crate) provider: Arc<dyn TableProvider>,
    /// Delta's version.
    pub(crate) version: u64,
    /// The fingerprint of the step that completed the table; `None` if its rows have changed since.
    pub(crate) fingerprint: Option<i64>,
    /// The version in which another program has changed the table after its step completed it.
    pub(crate) changed: Option<u64>,
}

/// The size of a table at one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Delta's version.
    pub(crate) version: u64,
    /// Live data files.
    pub(crate) files: usize,
    /// Live rows.
    pub(crate) rows: usize,
    /// Bytes of the live data files.
    pub(crate) bytes: u64,
}

impl Lake {
    /// Reads the latest version of the table; returns `None` if it was never written.
    ///
    /// # Errors
    /// Returns an error if its log cannot be read.
    pub(crate) async fn read(&self, table: &Table) -> Result<Option<Reading>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(None) };
        let unreadable = self.fail(table, "its log cannot be read");
        let marks = open.marks().await.map_err(&unreadable)?;
        let version = open.delta.snapshot().map_err(unreadable)?.version();
        let provider = open.delta.table_provider().await.map_err(self.fail(table, "it cannot be queried"))?;
        Ok(Some(Reading {
            provider,
            version,
            fingerprint: marks.complete(),
            changed: marks.changed_after_completion(),
        }))
    }

    /// Returns the version in which another program has changed the table, if nobody has accounted for it since.
    ///
    /// # Errors
    /// Returns an error if its log cannot be read.
    pub(crate) async fn changed(&self, table: &Table) -> Result<Option<u64>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(None) };
        let marks = open.marks().await.map_err(self.fail(table, "its log cannot be read"))?;
        Ok(marks.changed())
    }

    /// Returns version, live files and rows of the table, or `None` if it was never written.
    ///
    /// # Errors
    /// Returns an error if its log cannot be read.
    pub(crate) async fn size(&self, table: &Table) -> Result<Option<Size>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(None) };
        let state = open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?;
        let mut size = Size { version: state.version(), files: 0, rows: 0, bytes: 0 };
        for file in state.log_data().iter() {
            size.files += 1;
            let deleted = file.deletion_vector_descriptor().map_or(0, |vector| vector.cardinality);
            size.rows += file.num_records().unwrap_or(0).saturating_sub(usize::try_from(deleted).unwrap_or(0));
            size.bytes += u64::try_from(file.size()).unwrap_or(0);
        }
        Ok(Some(size))
    }

    /// Returns the ids of all rows: the values of `column`.
    ///
    /// # Errors
    /// Returns an error if the log or a data file cannot be read, or if two rows of an incremental table have one id.
    pub(crate) async fn ids(&self, table: &Table, column: &str) -> Result<HashSet<String>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(HashSet::new()) };
        self.refresh_ids(open, table, column).await?;
        match open.ids.duplicate().filter(|_| matches!(table.kind, Kind::Incremental { .. })) {
            Some(id) => Err(LakeError::Duplicate { url: self.url(table), id: id.to_owned() }.into()),
            None => Ok(open.ids.all().clone()),
        }
    }

    /// Returns name and size of every live data file, or `None` if the table was never written.
    pub(super) async fn live_files(&self, table: &Table) -> Result<Option<BTreeMap<String, u64>>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(None) };
        Ok(Some(open.live_files().map_err(self.fail(table, "its log cannot be read"))?))
    }
}
