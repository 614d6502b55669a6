//! Reads of a table: its rows for queries, its size, its ids, its live files.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use datafusion::catalog::TableProvider;

use super::{FINGERPRINT, Lake};
use crate::{error::Result, schema::Table};

/// A table at one version.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Its rows, for queries.
    pub(crate) provider: Arc<dyn TableProvider>,
    /// Delta's version.
    pub(crate) version: u64,
    /// The fingerprint of the step that completed the table; `None` if its rows have changed since.
    pub(crate) fingerprint: Option<i64>,
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
        let unreadable = self.fail(table, "its files cannot be listed");
        let state = open.delta.snapshot().map_err(&unreadable)?;
        let version = state.version();
        let provider = open.delta.table_provider().await.map_err(self.fail(table, "it cannot be queried"))?;
        let fingerprint = match open.fingerprint {
            Some((at, fingerprint)) if at == version => fingerprint,
            _ => state
                .transaction_version(open.delta.log_store().as_ref(), FINGERPRINT)
                .await
                .map_err(unreadable)?
                .filter(|&fingerprint| fingerprint != 0),
        };
        open.fingerprint = Some((version, fingerprint));
        Ok(Some(Reading { provider, version, fingerprint }))
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
            size.rows += file.num_records().unwrap_or(0);
            size.bytes += u64::try_from(file.size()).unwrap_or(0);
        }
        Ok(Some(size))
    }

    /// Returns the ids of all rows: the values of `column`.
    ///
    /// # Errors
    /// Returns an error if the log or a data file cannot be read.
    pub(crate) async fn ids(&self, table: &Table, column: &str) -> Result<HashSet<String>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(HashSet::new()) };
        let live = open.live_files().map_err(self.fail(table, "its log cannot be read"))?;
        open.ids.refresh(&self.location, &table.name, column, &live).await?;
        Ok(open.ids.all().clone())
    }

    /// Returns name and size of every live data file, or `None` if the table was never written.
    pub(super) async fn live_files(&self, table: &Table) -> Result<Option<BTreeMap<String, u64>>> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(None) };
        Ok(Some(open.live_files().map_err(self.fail(table, "its log cannot be read"))?))
    }
}
