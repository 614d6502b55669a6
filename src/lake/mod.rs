//! The lake: Delta tables at `<root>/<pipeline>/<table>`. The only user of `object_store`, `parquet`
//! and `deltalake`.
//!
//! What is promised here: a data file is immutable and named by its content; a file that no commit
//! names is invisible; a commit carries one Delta application transaction per unit, and a unit whose
//! transaction the table already has is dropped. So the same work committed twice, by this process or
//! another, is in the table once.

mod data_file;
mod store;
mod verify;

use std::{collections::BTreeMap, sync::Arc};

use datafusion::catalog::TableProvider;
use deltalake_core::{
    DeltaTable, DeltaTableBuilder, DeltaTableError,
    kernel::{
        Action, Add, Transaction,
        engine::arrow_conversion::TryIntoKernel,
        schema::StructType,
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

pub use data_file::DataFile;
pub use store::Place;
pub use verify::{Finding, verify_files};

use crate::{
    error::{Error, Result},
    schema::Table,
};

/// The application id under which a table carries the fingerprint of the step that completed it.
const FINGERPRINT: &str = "discl-pipe/fingerprint";
/// Commits between two checkpoints of the log.
const CHECKPOINT_INTERVAL: &str = "20";
/// How often a commit is tried against other writers before it is given up.
const COMMIT_ATTEMPTS: usize = 20;

/// The work of a unit, ready to be committed.
#[derive(Debug, Clone)]
pub struct UnitFiles {
    /// The unit: unique in its table.
    pub unit: String,
    /// Its rows; none where every row of it was rejected.
    pub files: Vec<DataFile>,
}

/// How much is in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Delta's version.
    pub version: u64,
    /// Live data files.
    pub files: usize,
    /// Live rows.
    pub rows: usize,
}

/// The tables of one pipeline.
#[derive(Debug)]
pub struct Lake {
    place: Place,
    open: tokio::sync::Mutex<BTreeMap<String, DeltaTable>>,
}

impl Lake {
    /// The lake of `pipeline` below `root`, a directory or URL. Nothing is read or made yet.
    ///
    /// # Errors
    /// Where `root` names no store.
    pub fn open(root: &str, pipeline: &str) -> Result<Self> {
        let place = Place::open(root)?.below(pipeline)?;
        Ok(Self { place, open: tokio::sync::Mutex::default() })
    }

    /// Where the tables are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn fail<E>(&self, table: &str, message: &'static str) -> impl Fn(E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let url = format!("{}{table}", self.place.url);
        move |error| Error::lake(url.clone(), message, error)
    }

    fn handle(&self, table: &Table) -> Result<DeltaTable> {
        let place = self.place.below(&table.name)?;
        DeltaTableBuilder::from_url(place.url.clone())
            .map(|builder| builder.with_storage_backend(place.store, place.url))
            .and_then(DeltaTableBuilder::build)
            .map_err(self.fail(&table.name, "the table cannot be opened"))
    }

    /// The table as it is now, or `None` where it was never written.
    pub async fn load(&self, table: &Table) -> Result<Option<DeltaTable>> {
        let mut open = self.open.lock().await;
        let unreadable = self.fail(&table.name, "its log cannot be read");
        let mut delta = match open.get(&table.name) {
            Some(delta) => delta.clone(),
            None => {
                let delta = self.handle(table)?;
                if !delta.log_store().is_delta_table_location().await.map_err(&unreadable)? {
                    return Ok(None);
                }
                delta
            }
        };
        delta.update_state().await.map_err(&unreadable)?;
        open.insert(table.name.clone(), delta.clone());
        Ok(Some(delta))
    }

    /// The table as it is now for queries, or `None` where it was never written.
    pub async fn provider(&self, table: &Table) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(delta) = self.load(table).await? else {
            return Ok(None);
        };
        let provider = delta.table_provider().await.map_err(self.fail(&table.name, "its files cannot be listed"))?;
        Ok(Some(provider))
    }

    /// Version, live files and rows of the table; `None` where it was never written.
    ///
    /// # Errors
    /// Where its log cannot be read.
    pub async fn size(&self, table: &Table) -> Result<Option<Size>> {
        let Some(delta) = self.load(table).await? else {
            return Ok(None);
        };
        let state = delta.snapshot().map_err(self.fail(&table.name, "its log cannot be read"))?;
        let rows: Vec<usize> = state.log_data().iter().map(|file| file.num_records().unwrap_or(0)).collect();
        Ok(Some(Size { version: state.version(), files: rows.len(), rows: rows.iter().sum() }))
    }

    /// The fingerprint of the step that completed the table last; `None` where none did, or where
    /// its rows have changed since.
    pub async fn fingerprint(&self, table: &Table) -> Result<Option<i64>> {
        let Some(delta) = self.load(table).await? else {
            return Ok(None);
        };
        let found = self.transaction(&delta, table, FINGERPRINT).await?;
        Ok(found.filter(|&fingerprint| fingerprint != 0))
    }

    async fn transaction(&self, delta: &DeltaTable, table: &Table, app: &str) -> Result<Option<i64>> {
        let state = delta.snapshot().map_err(self.fail(&table.name, "its log cannot be read"))?;
        state
            .transaction_version(delta.log_store().as_ref(), app)
            .await
            .map_err(self.fail(&table.name, "its log cannot be read"))
    }

    async fn load_or_create(&self, table: &Table) -> Result<DeltaTable> {
        if let Some(delta) = self.load(table).await? {
            return Ok(delta);
        }
        let columns: StructType = table
            .schema
            .as_ref()
            .try_into_kernel()
            .map_err(self.fail(&table.name, "Delta has no such column types"))?;
        let created = CreateBuilder::new()
            .with_log_store(self.handle(table)?.log_store())
            .with_save_mode(SaveMode::Ignore)
            .with_columns(columns.fields().cloned())
            .with_configuration([("delta.checkpointInterval", Some(CHECKPOINT_INTERVAL))])
            .await;
        match (created, self.load(table).await?) {
            (_, Some(delta)) => Ok(delta),
            (Err(error), None) => Err(self
                .fail(&table.name, "the table cannot be made; is the lake's root writable? `--lake` names another")(
                error,
            )),
            (Ok(_), None) => Err(Error::Data(format!("table `{}` vanished after it was made", table.name))),
        }
    }

    /// Adds the rows of `units` in one commit. Units that the table already has are dropped.
    ///
    /// # Errors
    /// Where a file cannot be put, or the commit loses to other writers too often.
    pub async fn append(&self, table: &Table, units: &[UnitFiles]) -> Result<()> {
        self.load_or_create(table).await?;
        for unit in units {
            self.put(table, &unit.files).await?;
        }
        for _ in 0..COMMIT_ATTEMPTS {
            let delta = self.load_or_create(table).await?;
            let mut actions = Vec::new();
            let mut transactions = Vec::new();
            for unit in units {
                if self.transaction(&delta, table, &unit.unit).await?.is_none() {
                    actions.extend(unit.files.iter().map(|file| Action::Add(add(file))));
                    transactions.push(Transaction::new(&unit.unit, 1));
                }
            }
            if transactions.is_empty() || self.commit(&delta, table, actions, transactions, SaveMode::Append).await? {
                return Ok(());
            }
        }
        Err(self.contended(table))
    }

    /// Replaces the rows of the table by `files` in one commit; files that are there stay there.
    /// `fingerprint` is that of the step, or 0 where the step is not complete yet.
    ///
    /// # Errors
    /// As [`Lake::append`].
    pub async fn replace(&self, table: &Table, files: &[DataFile], fingerprint: i64) -> Result<()> {
        self.load_or_create(table).await?;
        self.put(table, files).await?;
        for _ in 0..COMMIT_ATTEMPTS {
            let delta = self.load_or_create(table).await?;
            let state = delta.snapshot().map_err(self.fail(&table.name, "its log cannot be read"))?;
            let mut wanted: BTreeMap<&str, &DataFile> = files.iter().map(|file| (file.name.as_str(), file)).collect();
            let mut actions = Vec::new();
            for file in state.log_data().iter() {
                if wanted.remove(file.path().as_ref()).is_none() {
                    actions.push(Action::Remove(file.remove_action(true)));
                }
            }
            actions.extend(wanted.values().map(|file| Action::Add(add(file))));
            let current = self.transaction(&delta, table, FINGERPRINT).await?;
            if actions.is_empty() && current == Some(fingerprint) {
                return Ok(());
            }
            let mark = vec![Transaction::new(FINGERPRINT, fingerprint)];
            if self.commit(&delta, table, actions, mark, SaveMode::Overwrite).await? {
                return Ok(());
            }
        }
        Err(self.contended(table))
    }

    /// Marks the table as completed by the step with `fingerprint`; its rows stay as they are.
    ///
    /// # Errors
    /// As [`Lake::append`].
    pub async fn complete(&self, table: &Table, fingerprint: i64) -> Result<()> {
        for _ in 0..COMMIT_ATTEMPTS {
            let delta = self.load_or_create(table).await?;
            if self.transaction(&delta, table, FINGERPRINT).await? == Some(fingerprint) {
                return Ok(());
            }
            let mark = vec![Transaction::new(FINGERPRINT, fingerprint)];
            if self.commit(&delta, table, Vec::new(), mark, SaveMode::Append).await? {
                return Ok(());
            }
        }
        Err(self.contended(table))
    }

    fn contended(&self, table: &Table) -> Error {
        Error::Lake {
            url: format!("{}{}", self.place.url, table.name),
            message: format!("{COMMIT_ATTEMPTS} commits in a row lost to other writers; run again"),
            source: None,
        }
    }

    /// Puts files that are not there yet. Their names say their content, so one that is there is ours.
    async fn put(&self, table: &Table, files: &[DataFile]) -> Result<()> {
        for file in files {
            let path = self.place.path(&format!("{}/{}", table.name, file.name));
            let options = PutOptions { mode: PutMode::Create, ..Default::default() };
            let payload = PutPayload::from(file.bytes.clone());
            match self.place.store.put_opts(&path, payload, options).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => {
                    return Err(self.fail(&table.name, "a data file cannot be written; is the lake writable?")(error));
                }
            }
        }
        Ok(())
    }

    /// One commit on top of `delta`; false where another writer's commit stands in its way.
    async fn commit(
        &self,
        delta: &DeltaTable,
        table: &Table,
        actions: Vec<Action>,
        transactions: Vec<Transaction>,
        mode: SaveMode,
    ) -> Result<bool> {
        let state = delta.snapshot().map_err(self.fail(&table.name, "its log cannot be read"))?;
        let properties = CommitProperties::default().with_application_transactions(transactions);
        let operation = DeltaOperation::Write { mode, partition_by: None, predicate: None };
        let committed = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(state), delta.log_store(), operation)
            .await;
        match committed {
            Ok(_) => Ok(true),
            Err(DeltaTableError::VersionAlreadyExists(_)) => Ok(false),
            Err(DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_) | TransactionError::MaxCommitAttempts(_),
            }) => Ok(false),
            Err(error) => Err(self.fail(&table.name, "the commit failed")(error)),
        }
    }

    /// Writes a file beside the tables, replacing what is there.
    ///
    /// # Errors
    /// Where the store refuses it.
    pub async fn put_beside(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.place.path(name);
        self.place
            .store
            .put(&path, bytes.into())
            .await
            .map(drop)
            .map_err(self.fail(name, "the file cannot be written; is the lake writable?"))
    }
}

fn add(file: &DataFile) -> Add {
    Add {
        path: file.name.clone(),
        size: i64::try_from(file.bytes.len()).unwrap_or(i64::MAX),
        // a fact of the log entry, which no content depends on: Delta asks for a time in milliseconds
        modification_time: crate::clock::now_ms(),
        data_change: true,
        stats: Some(file.stats.clone()),
        ..Add::default()
    }
}
