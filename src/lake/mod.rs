//! The lake: Delta tables at `<root>/<pipeline>/<table>`. The only user of `deltalake`, and with `source`
//! of `object_store` and `parquet`.
//!
//! What is promised here: a data file is immutable and named by its content; a file that no commit names
//! is invisible; a commit is a compare-and-swap on the table's version. Before it, the ids that other
//! commits have brought are read, and rows with these ids are dropped from ours: a row is in a table once,
//! whoever works on it beside us.

mod data_file;
mod gc;
mod ids;
#[cfg(test)]
mod simulation;
mod verify;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use datafusion::catalog::TableProvider;
use deltalake_core::{
    DeltaTable, DeltaTableBuilder, DeltaTableError,
    kernel::{
        Action, Add, MetadataExt, Transaction,
        engine::arrow_conversion::TryIntoKernel,
        schema::StructType,
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::{Mutex, MutexGuard};

pub use data_file::{DataFile, StreamingWriter};
pub use gc::gc;
pub use verify::{Finding, verify_files};

use self::ids::Ids;
use crate::{
    error::{Error, Result},
    schema::Table,
    storage::Location,
};

/// The application id under which a table carries the fingerprint of the step that completed it.
const FINGERPRINT: &str = "discl-pipe/fingerprint";
/// Commits between two checkpoints of the log; few where histories are simulated, so that they have some.
const CHECKPOINT_INTERVAL: &str = if cfg!(test) { "4" } else { "20" };
/// How often a commit is tried against other writers before it is given up.
const COMMIT_ATTEMPTS: u32 = 100;
/// How often a table is made before it is given up.
const CREATE_ATTEMPTS: u32 = 5;
/// How many answers to commits a process may miss one after another before it gives up.
const LOST_ANSWERS: u32 = 20;
/// How long a writer that lost waits at most.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// Rows that are committed together.
#[derive(Debug, Clone)]
pub struct UnitRows {
    /// Names the unit, and its data file.
    pub unit: String,
    /// Its rows; none where every row of it was rejected.
    pub rows: RecordBatch,
}

/// A table as it was at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its rows, for queries.
    pub provider: Arc<dyn TableProvider>,
    /// Delta's version.
    pub version: u64,
    /// The fingerprint of the step that completed it; none where its rows have changed since.
    pub fingerprint: Option<i64>,
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
    /// Bytes of the live data files.
    pub bytes: u64,
}

/// A table of which the log has been read, and what was found out about it.
#[derive(Debug)]
struct Open {
    delta: DeltaTable,
    /// The fingerprint at a version.
    fingerprint: Option<(u64, Option<i64>)>,
    ids: Ids,
}

/// The tables of one pipeline.
#[derive(Debug)]
pub struct Lake {
    location: Location,
    open: Mutex<BTreeMap<String, Open>>,
    /// Commits, since the last that was answered, of which it is not known whether they are there.
    lost_answers: AtomicU32,
}

impl Lake {
    /// The lake of `pipeline` below `root`, a directory or URL. Nothing is read or made yet.
    ///
    /// # Errors
    /// Where `root` names no store.
    pub fn open(root: &str, pipeline: &str) -> Result<Self> {
        let location = Location::open(root)?.below(pipeline)?;
        Ok(Self { location, open: Mutex::default(), lost_answers: AtomicU32::new(0) })
    }

    /// Where the tables are.
    pub fn location(&self) -> &Location {
        &self.location
    }

    fn fail<E>(&self, table: &str, message: &'static str) -> impl Fn(E) -> Error + use<E>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let url = format!("{}{table}", self.location.url);
        move |error| Error::lake(url.clone(), message, error)
    }

    fn handle(&self, table: &Table) -> Result<DeltaTable> {
        let location = self.location.below(&table.name)?;
        DeltaTableBuilder::from_url(location.url.clone())
            .map(|builder| builder.with_storage_backend(location.store, location.url))
            .and_then(DeltaTableBuilder::build)
            .map_err(self.fail(&table.name, "the table cannot be opened"))
    }

    /// Brings what is known of `table` up to its latest version; false where it was never written.
    async fn refresh(&self, open: &mut BTreeMap<String, Open>, table: &Table) -> Result<bool> {
        let unreadable = self.fail(&table.name, "its log cannot be read");
        if !open.contains_key(&table.name) {
            let delta = self.handle(table)?;
            if !delta.log_store().is_delta_table_location().await.map_err(&unreadable)? {
                return Ok(false);
            }
            open.insert(table.name.clone(), Open { delta, fingerprint: None, ids: Ids::default() });
        }
        if let Some(found) = open.get_mut(&table.name) {
            found.delta.update_state().await.map_err(&unreadable)?;
        }
        Ok(true)
    }

    /// The table as it is now, or `None` where it was never written.
    ///
    /// # Errors
    /// Where its log cannot be read.
    pub async fn read(&self, table: &Table) -> Result<Option<Reading>> {
        let mut open = self.open.lock().await;
        if !self.refresh(&mut open, table).await? {
            return Ok(None);
        }
        let Some(found) = open.get_mut(&table.name) else { return Ok(None) };
        let unreadable = self.fail(&table.name, "its files cannot be listed");
        let state = found.delta.snapshot().map_err(&unreadable)?;
        let version = state.version();
        let provider = found.delta.table_provider().await.map_err(self.fail(&table.name, "it cannot be queried"))?;
        let fingerprint = match found.fingerprint {
            Some((at, fingerprint)) if at == version => fingerprint,
            _ => state
                .transaction_version(found.delta.log_store().as_ref(), FINGERPRINT)
                .await
                .map_err(unreadable)?
                .filter(|&fingerprint| fingerprint != 0),
        };
        found.fingerprint = Some((version, fingerprint));
        Ok(Some(Reading { provider, version, fingerprint }))
    }

    /// Version, live files and rows of the table; `None` where it was never written.
    ///
    /// # Errors
    /// Where its log cannot be read.
    pub async fn size(&self, table: &Table) -> Result<Option<Size>> {
        let mut open = self.open.lock().await;
        if !self.refresh(&mut open, table).await? {
            return Ok(None);
        }
        let Some(found) = open.get(&table.name) else { return Ok(None) };
        let state = found.delta.snapshot().map_err(self.fail(&table.name, "its log cannot be read"))?;
        let mut size = Size { version: state.version(), files: 0, rows: 0, bytes: 0 };
        for file in state.log_data().iter() {
            size.files += 1;
            size.rows += file.num_records().unwrap_or(0);
            size.bytes += u64::try_from(file.size()).unwrap_or(0);
        }
        Ok(Some(size))
    }

    /// The values of `column`, which names the table's rows, in all of its rows.
    ///
    /// # Errors
    /// Where its log or a data file cannot be read.
    pub async fn ids(&self, table: &Table, column: &str) -> Result<HashSet<String>> {
        let mut open = self.open.lock().await;
        if !self.refresh(&mut open, table).await? {
            return Ok(HashSet::new());
        }
        let Some(found) = open.get_mut(&table.name) else { return Ok(HashSet::new()) };
        let live = live_files(&found.delta).map_err(self.fail(&table.name, "its log cannot be read"))?;
        found.ids.refresh(&self.location, &table.name, column, &live).await?;
        Ok(found.ids.all().clone())
    }

    /// The columns of `table` as Delta has them.
    fn columns(&self, table: &Table) -> Result<StructType> {
        let columns = table.schema.as_ref().try_into_kernel();
        columns.map_err(self.fail(&table.name, "Delta has no such column types"))
    }

    /// Makes the table where it was never written, and brings it up to its latest version. Where another writer made it
    /// first, that one serves as well; where a store had no time for it, or its answer was lost, it is asked again.
    async fn prepare(&self, table: &Table) -> Result<MutexGuard<'_, BTreeMap<String, Open>>> {
        let mut open = self.open.lock().await;
        let mut failed = None;
        for attempt in 0..=CREATE_ATTEMPTS {
            if self.refresh(&mut open, table).await? {
                return Ok(open);
            }
            if attempt < CREATE_ATTEMPTS {
                self.wait(attempt).await;
                failed = self.create(table).await?.err();
            }
        }
        let unmade = "the table cannot be made; is the lake's root writable? `--lake` names another";
        Err(match failed {
            Some(error) => self.fail(&table.name, unmade)(error),
            None => Error::Data(format!("table `{}` vanished after it was made", table.name)),
        })
    }

    async fn create(&self, table: &Table) -> Result<Result<DeltaTable, DeltaTableError>> {
        let columns = self.columns(table)?;
        let created = CreateBuilder::new()
            .with_log_store(self.handle(table)?.log_store())
            .with_save_mode(SaveMode::Ignore)
            // no retries: the library would write the table's metadata again on top of another writer's commits
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .with_columns(columns.fields().cloned())
            .with_configuration([("delta.checkpointInterval", Some(CHECKPOINT_INTERVAL))])
            .await;
        Ok(created)
    }

    /// Adds the rows of `units` in one commit, but those whose value in `column` the table already has.
    ///
    /// # Errors
    /// Where a file cannot be put, or the commit loses to other writers too often.
    pub async fn append(&self, table: &Table, column: &str, units: &[UnitRows]) -> Result<()> {
        for attempt in 0..COMMIT_ATTEMPTS {
            self.wait(attempt).await;
            let mut open = self.prepare(table).await?;
            let Some(found) = open.get_mut(&table.name) else { continue };
            let unreadable = self.fail(&table.name, "its log cannot be read");
            if *found.delta.snapshot().map_err(&unreadable)?.schema() != self.columns(table)? {
                return Err(Error::Data(format!(
                    "table `{}` has the columns of another version of this program; `--lake` names another location",
                    table.name
                )));
            }
            let live = live_files(&found.delta).map_err(&unreadable)?;
            found.ids.refresh(&self.location, &table.name, column, &live).await?;
            let mut files = Vec::new();
            for unit in units {
                let rows = without(&unit.rows, column, found.ids.all())
                    .map_err(self.fail(&table.name, "the rows cannot be told apart"))?;
                if rows.num_rows() > 0 {
                    let file = DataFile::write(&unit.unit, &table.schema, std::slice::from_ref(&rows))?;
                    self.put(table, &file).await?;
                    files.push((file, rows));
                }
            }
            let actions: Vec<Action> = files.iter().map(|(file, _)| Action::Add(add(file))).collect();
            if actions.is_empty() || self.commit(&found.delta, table, actions, None, SaveMode::Append).await? {
                for (file, rows) in &files {
                    found.ids.note(&file.name, texts(rows, column).iter().map(String::as_str));
                }
                return Ok(());
            }
        }
        Err(self.contended(table))
    }

    /// Replaces the rows of the table by `files` in one commit; files that are there stay there.
    /// `fingerprint` is that of the step; without one the step is not complete yet. False, and nothing
    /// done, where the table has moved on from the version `base` that the rows were chosen by.
    ///
    /// # Errors
    /// Where a file cannot be put or the commit fails.
    pub async fn replace(
        &self,
        table: &Table,
        files: &[DataFile],
        fingerprint: Option<i64>,
        base: Option<u64>,
    ) -> Result<bool> {
        for file in files {
            self.put(table, file).await?;
        }
        let open = self.prepare(table).await?;
        let Some(found) = open.get(&table.name) else { return Ok(false) };
        let unreadable = self.fail(&table.name, "its log cannot be read");
        let state = found.delta.snapshot().map_err(&unreadable)?;
        // making the table is version 0
        if state.version() != base.unwrap_or(0) {
            return Ok(false);
        }
        let mut wanted: BTreeMap<&str, &DataFile> = files.iter().map(|file| (file.name.as_str(), file)).collect();
        let mut actions = Vec::new();
        let columns = self.columns(table)?;
        if *state.schema() != columns {
            // the query of a table of the pipeline's own has other columns than before
            let metadata = MetadataExt::with_schema(state.metadata().clone(), &columns)
                .map_err(self.fail(&table.name, "Delta refuses its columns"))?;
            actions.push(Action::Metadata(metadata));
        }
        for file in state.log_data().iter() {
            if wanted.remove(file.path().as_ref()).is_none() {
                actions.push(Action::Remove(file.remove_action(true)));
            }
        }
        actions.extend(wanted.values().map(|file| Action::Add(add(file))));
        let carried = state.transaction_version(found.delta.log_store().as_ref(), FINGERPRINT).await;
        let carried = carried.map_err(unreadable)?.unwrap_or(0);
        // the same rows as before, and no more to say of them
        if actions.is_empty() && fingerprint.is_none_or(|fingerprint| fingerprint == carried) {
            return Ok(true);
        }
        self.commit(&found.delta, table, actions, Some(fingerprint.unwrap_or(0)), SaveMode::Overwrite).await
    }

    /// Marks the table as completed by the step with `fingerprint`; its rows stay as they are.
    ///
    /// # Errors
    /// As [`Lake::append`].
    pub async fn complete(&self, table: &Table, fingerprint: i64) -> Result<()> {
        for attempt in 0..COMMIT_ATTEMPTS {
            self.wait(attempt).await;
            let open = self.prepare(table).await?;
            let Some(found) = open.get(&table.name) else { continue };
            if self.commit(&found.delta, table, Vec::new(), Some(fingerprint), SaveMode::Append).await? {
                return Ok(());
            }
        }
        Err(self.contended(table))
    }

    /// Lets the writer that won go on.
    async fn wait(&self, attempt: u32) {
        tokio::time::sleep(MAX_WAIT.min(Duration::from_millis(5) * attempt)).await;
    }

    fn contended(&self, table: &Table) -> Error {
        Error::Lake {
            url: format!("{}{}", self.location.url, table.name),
            message: format!("{COMMIT_ATTEMPTS} commits in a row lost to other writers; run again"),
            source: None,
        }
    }

    /// Puts a file. Its name says its content, so one that is there is the same. Not by create-if-absent: a store may
    /// refuse that while another is under way, which looks as if the file were there; and an overwrite is repeated
    /// where its answer is lost.
    async fn put(&self, table: &Table, file: &DataFile) -> Result<()> {
        let path = self.location.path(&format!("{}/{}", table.name, file.name));
        let message = "a data file cannot be written; is the lake's root writable? `--lake` names another";
        let put = self.location.store.put(&path, PutPayload::from(file.bytes.clone())).await;
        put.map(drop).map_err(self.fail(&table.name, message))
    }

    /// One commit on top of the version of `delta`; false where another writer's commit came first, and where it is not
    /// known whether ours is there: a store's answer may be lost. Either way the caller looks again at what the table
    /// holds, and finds its own rows where they are.
    async fn commit(
        &self,
        delta: &DeltaTable,
        table: &Table,
        actions: Vec<Action>,
        fingerprint: Option<i64>,
        mode: SaveMode,
    ) -> Result<bool> {
        let state = delta.snapshot().map_err(self.fail(&table.name, "its log cannot be read"))?;
        let mark = fingerprint.map(|fingerprint| Transaction::new(FINGERPRINT, fingerprint));
        // no retries: the library would rebase appends, and could not see that two hold one id
        let properties =
            CommitProperties::default().with_max_retries(0).with_application_transactions(mark.into_iter().collect());
        let committed = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(state), delta.log_store(), DeltaOperation::Write { mode, partition_by: None, predicate: None })
            .await;
        match committed {
            Ok(_) => {
                self.lost_answers.store(0, Ordering::Relaxed);
                Ok(true)
            }
            Err(
                DeltaTableError::VersionAlreadyExists(_)
                | DeltaTableError::Transaction {
                    source: TransactionError::CommitConflict(_) | TransactionError::MaxCommitAttempts(_),
                },
            ) => Ok(false),
            Err(error) if is_unknown(&error) => {
                let lost = self.lost_answers.fetch_add(1, Ordering::Relaxed) + 1;
                if lost <= LOST_ANSWERS { Ok(false) } else { Err(self.fail(&table.name, "the commit failed")(error)) }
            }
            Err(error) => Err(self.fail(&table.name, "the commit failed")(error)),
        }
    }
}

/// Whether a commit that failed so may be there all the same.
fn is_unknown(error: &DeltaTableError) -> bool {
    let store = match error {
        DeltaTableError::ObjectStore { source } => source,
        DeltaTableError::Transaction { source: TransactionError::ObjectStore { source } } => source,
        _ => return false,
    };
    matches!(store, object_store::Error::Generic { .. })
}

/// Name and size of every live data file.
fn live_files(delta: &DeltaTable) -> Result<BTreeMap<String, i64>, DeltaTableError> {
    Ok(delta.snapshot()?.log_data().iter().map(|file| (file.path().into_owned(), file.size())).collect())
}

/// The rows whose text in `column` is not among `ids`.
fn without(rows: &RecordBatch, column: &str, ids: &HashSet<String>) -> Result<RecordBatch, arrow::error::ArrowError> {
    let new: BooleanArray = texts(rows, column).iter().map(|id| Some(!ids.contains(id))).collect();
    filter_record_batch(rows, &new)
}

fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    let column = rows.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
    column.map_or_else(
        || vec![String::new(); rows.num_rows()],
        |column| (0..column.len()).map(|row| column.value(row).to_owned()).collect(),
    )
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
