//! Commits: rows that are appended, rows that replace others, and marks of complete steps.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use deltalake_core::{
    DeltaTable, DeltaTableError,
    kernel::{
        Action, Add, MetadataExt,
        engine::arrow_conversion::TryIntoKernel,
        schema::{StructField, StructType},
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use futures::future::try_join_all;
use serde_json::Value;
use tokio::{
    sync::{MappedMutexGuard, Mutex, MutexGuard},
    time::Instant,
};

use super::{
    DataFile, Lake, OpenTable,
    checkpoints::CHECKPOINT_INTERVAL,
    error::LakeError,
    ids::strings,
    log_entry::{ANNOUNCED_IDS, LogEntry},
    marks::{Mark, Marks},
};
use crate::{
    clock,
    error::Result,
    schema::{self, Table},
    storage::simulated::{Mutant, chance, has},
};

/// How long a commit is tried against other writers. An attempt takes a few requests.
const MAX_CONTENTION: Duration = Duration::from_secs(600);
/// Attempts to create a table.
const MAX_CREATE_ATTEMPTS: u32 = 5;
/// Commits in a row whose response can be lost before an error is returned.
const MAX_LOST_RESPONSES: u32 = 20;
/// The longest wait of a writer that lost.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Ids that an entry of a log announces, so that other writers need not read them from the data files.
const MAX_IDS_ANNOUNCED: usize = 1000;

/// An open table, while no other task of the process uses the lake.
pub(super) type OpenGuard<'a> = MappedMutexGuard<'a, OpenTable>;

/// Rows that are committed together.
#[derive(Debug, Clone)]
pub(crate) struct UnitRows {
    /// The name of the unit, and of its data file.
    pub(crate) unit: String,
    /// Its rows. There are none if every row of the unit was rejected.
    pub(crate) rows: RecordBatch,
}

impl Lake {
    /// Appends the rows of `units` in one commit, without those whose value in `column` the table already has.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or the commit loses to other writers too often.
    pub(crate) async fn append(&self, table: &Table, column: &str, units: &[UnitRows]) -> Result<()> {
        self.append_unless(table, column, units, None).await
    }

    /// Appends the rows of `units` like [`Lake::append`], without those whose value in `column` is in a column of another
    /// table, `except`, at the moment of the commit.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or the commit loses to other writers too often.
    pub(crate) async fn append_unless(
        &self,
        table: &Table,
        column: &str,
        units: &[UnitRows],
        except: Option<(&Table, &str)>,
    ) -> Result<()> {
        let written = Mutex::new(HashSet::new());
        self.until_committed(table, async |open| {
            let (mut open, excepted) = match except {
                None => (open, HashSet::new()),
                Some((other, column)) => {
                    let version = open.delta.version();
                    drop(open);
                    // Read after the version of `table` on which the commit will be. So whoever completes the table at this
                    // version or before has put there what the completion leaves out.
                    let excepted = self.ids(other, column).await?;
                    let Some(open) = self.reopen(table, version).await else { return Ok(false) };
                    (open, excepted)
                }
            };
            self.refresh_ids(&mut open, table, column).await?;
            let mut files = Vec::new();
            for unit in units {
                let is_known = |id: &str| open.ids.all().contains(id) || excepted.contains(id);
                let (rows, ids) = self.without(table, &unit.rows, column, is_known)?;
                if rows.num_rows() > 0 {
                    let file = DataFile::write(&unit.unit, &table.schema, &[rows])?;
                    // An attempt that lost has written it already.
                    if written.lock().await.insert(file.name.clone()) {
                        self.put(table, &file).await?;
                    }
                    files.push((file, ids));
                }
            }
            let mut actions: Vec<Action> = files.iter().map(|(file, _)| Action::Add(add(file))).collect();
            if !actions.is_empty() {
                actions.extend(self.new_columns(&open, table)?);
            }
            let change = Change { ids: announcement(&files), ..Change::of(actions, Mark::Keep, SaveMode::Append) };
            let committed = files.is_empty() || self.commit(&mut open, table, change).await?;
            if committed {
                self.keep(table, files.iter().map(|(file, _)| file)).await?;
                for (file, ids) in files {
                    open.ids.add(file.name, ids);
                }
            }
            Ok(committed)
        })
        .await
    }

    /// Returns the change of the table's columns, if an earlier version of this program wrote it without some of them.
    fn new_columns(&self, open: &OpenTable, table: &Table) -> Result<Option<Action>> {
        let state = open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?;
        let (found, columns) = (state.schema(), self.columns(table)?);
        let new: Vec<StructField> =
            columns.fields().filter(|column| found.field(&column.name).is_none()).cloned().collect();
        if new.is_empty() {
            return Ok(None);
        }
        let rejected = "Delta rejects its columns";
        let all = StructType::try_new(found.fields().cloned().chain(new)).map_err(self.fail(table, rejected))?;
        let metadata = MetadataExt::with_schema(state.metadata().clone(), &all).map_err(self.fail(table, rejected))?;
        Ok(Some(Action::Metadata(metadata)))
    }

    /// Replaces the rows of the table by `files` in one commit. Files that the table already has stay in it, unless another
    /// program has deleted rows of them.
    /// `fingerprint` is that of the step; without one the step is not complete yet. Returns false, and does nothing, if
    /// the table is no longer at the version `base` from which the rows were computed.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or the commit fails.
    pub(crate) async fn replace(
        &self,
        table: &Table,
        files: &[DataFile],
        fingerprint: Option<i64>,
        base: Option<u64>,
    ) -> Result<bool> {
        let mut open = self.prepare(table).await?;
        let unreadable = self.fail(table, "its log cannot be read");
        let marks = open.marks().await.map_err(&unreadable)?;
        let state = open.delta.snapshot().map_err(&unreadable)?;
        // The commit that creates a table is version 0.
        if state.version() != base.unwrap_or(0) && !has(Mutant::SkipBaseCheck) {
            return Ok(false);
        }
        for file in files {
            self.put(table, file).await?;
        }
        let mut wanted: BTreeMap<&str, &DataFile> = files.iter().map(|file| (file.name.as_str(), file)).collect();
        let mut actions = Vec::new();
        let columns = self.columns(table)?;
        if !has_columns(&state.schema(), &columns, table) {
            // The query of a custom table has other columns than before, or another program has changed them.
            let metadata = MetadataExt::with_schema(state.metadata().clone(), &columns)
                .map_err(self.fail(table, "Delta rejects its columns"))?;
            actions.push(Action::Metadata(metadata));
        }
        for file in state.log_data().iter() {
            let is_whole = file.deletion_vector_descriptor().is_none();
            if !is_whole || wanted.remove(file.path().as_ref()).is_none() {
                actions.push(Action::Remove(file.remove_action(true)));
            }
        }
        actions.extend(wanted.values().map(|file| Action::Add(add(file))));
        // The rows are the same as before, and so is the fingerprint.
        if actions.is_empty() && marks.agree(fingerprint) {
            return Ok(true);
        }
        let mark = Mark::Set { fingerprint: fingerprint.unwrap_or(0), since: state.version() };
        let committed = self.commit(&mut open, table, Change::of(actions, mark, SaveMode::Overwrite)).await?;
        if committed {
            self.keep(table, files).await?;
        }
        Ok(committed)
    }

    /// Marks the table as completed by the step with `fingerprint`, which has accounted for every row of the version
    /// `since`, and leaves its rows unchanged. If another program, or [`Lake::reset`], has changed the table after that
    /// version, it stays incomplete.
    ///
    /// # Errors
    /// Returns an error if the commit fails, or loses to other writers too often.
    pub(crate) async fn complete(&self, table: &Table, fingerprint: i64, since: u64) -> Result<()> {
        self.mark(table, Mark::Set { fingerprint, since }).await
    }

    /// Marks the table like [`Lake::complete`]. Returns false, and does nothing, if rows were added or removed after the
    /// version `seen`.
    ///
    /// # Errors
    /// Returns an error if the commit fails, or loses to other writers too often.
    pub(crate) async fn complete_as_seen(
        &self,
        table: &Table,
        fingerprint: i64,
        since: u64,
        seen: u64,
    ) -> Result<bool> {
        let has_changed = AtomicBool::new(false);
        self.until_committed(table, async |mut open| {
            let changes = open.changes_after(seen).await.map_err(self.fail(table, "its log cannot be read"))?;
            if changes && !has(Mutant::CompleteUnseen) {
                has_changed.store(true, Ordering::Relaxed);
                return Ok(true);
            }
            let mark = Mark::Set { fingerprint, since };
            self.commit(&mut open, table, Change::of(Vec::new(), mark, SaveMode::Append)).await
        })
        .await?;
        Ok(!has_changed.into_inner())
    }

    /// Marks the table as incomplete, so that what it lacks is looked for again, also by a run in progress.
    ///
    /// # Errors
    /// Returns an error if the commit fails, or loses to other writers too often.
    pub(crate) async fn reset(&self, table: &Table) -> Result<()> {
        self.mark(table, Mark::Reset).await
    }

    async fn mark(&self, table: &Table, mark: Mark) -> Result<()> {
        let change = || Change::of(Vec::new(), mark, SaveMode::Append);
        self.until_committed(table, async |mut open: OpenGuard<'_>| self.commit(&mut open, table, change()).await).await
    }

    /// Calls `commit` with the latest version of the table until it returns true: it had nothing to do, or its commit exists.
    pub(super) async fn until_committed(
        &self,
        table: &Table,
        commit: impl AsyncFn(OpenGuard<'_>) -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        for attempt in 0.. {
            if attempt > 0 && started.elapsed() > MAX_CONTENTION {
                break;
            }
            wait(attempt).await;
            if commit(self.prepare(table).await?).await? {
                return Ok(());
            }
        }
        Err(LakeError::Contended { url: self.url(table), minutes: MAX_CONTENTION.as_secs() / 60 }.into())
    }

    /// Creates the table if it was never written, and brings it up to its latest version. If another writer created it
    /// first, that table serves as well. If the store was too busy or its response was lost, it is tried again. A table
    /// that this program cannot write is an error.
    async fn prepare(&self, table: &Table) -> Result<OpenGuard<'_>> {
        let mut tables = self.tables.lock().await;
        let mut failed = None;
        for attempt in 0..=MAX_CREATE_ATTEMPTS {
            if self.refresh(&mut tables, table).await?.is_some() {
                break;
            }
            if attempt < MAX_CREATE_ATTEMPTS {
                wait(attempt).await;
                self.probe().await?;
                failed = self.create(table).await?.err();
            }
        }
        let open = MutexGuard::try_map(tables, |tables| tables.get_mut(&table.name)).map_err(|_| {
            let problem = "the table cannot be created; is the lake's root writable? `--lake` sets another";
            match failed {
                Some(error) => self.fail(table, problem)(error).into(),
                None => crate::error::Error::from(LakeError::Vanished { url: self.url(table) }),
            }
        })?;
        self.check_state(open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?, table)?;
        Ok(open)
    }

    /// Returns the table as it was opened last, if that is still `version`.
    async fn reopen(&self, table: &Table, version: Option<u64>) -> Option<OpenGuard<'_>> {
        let tables = self.tables.lock().await;
        let open = MutexGuard::try_map(tables, |tables| tables.get_mut(&table.name)).ok()?;
        (open.delta.version() == version).then_some(open)
    }

    async fn create(&self, table: &Table) -> Result<Result<DeltaTable, DeltaTableError>> {
        let columns = self.columns(table)?;
        let created = CreateBuilder::new()
            .with_log_store(self.delta_table(table, Arc::clone(&self.location.store))?.log_store())
            .with_save_mode(SaveMode::Ignore)
            // No retries: the library would write the table's metadata again on top of another writer's commits.
            .with_commit_properties(
                CommitProperties::default()
                    .with_max_retries(0)
                    .with_application_transactions(Marks::default().transactions()),
            )
            .with_columns(columns.fields().cloned())
            .with_configuration([("delta.checkpointInterval", Some(CHECKPOINT_INTERVAL.to_string()))])
            .await;
        Ok(created)
    }

    /// Returns the columns of `table` in Delta's types.
    pub(super) fn columns(&self, table: &Table) -> Result<StructType> {
        let columns = table.schema.as_ref().try_into_kernel();
        Ok(columns.map_err(|source| LakeError::Columns { url: self.url(table), source })?)
    }

    /// Writes a data file. Its name contains the digest of its content, so an existing one is the same. It is not written
    /// by create-if-absent: a store can reject that while another one is in flight, as if the file existed. An overwrite
    /// can be repeated if its response is lost.
    async fn put(&self, table: &Table, file: &DataFile) -> Result<()> {
        let name = format!("{}/{}", table.name, file.name);
        let put = self.location.put(&name, file.bytes.clone()).await;
        Ok(put.map_err(|source| LakeError::WriteFile { url: self.url(table), source })?)
    }

    /// Looks at the files of a commit, and writes those again that are gone: another process may have found one of the same
    /// name unneeded before it was written here, and deleted it since. From the commit on nobody deletes it.
    async fn keep(&self, table: &Table, files: impl IntoIterator<Item = &DataFile>) -> Result<()> {
        let kept = files.into_iter().map(async |file| {
            match self.location.exists(&format!("{}/{}", table.name, file.name)).await? {
                true => Ok(()),
                false => self.put(table, file).await,
            }
        });
        try_join_all(kept).await.map(drop)
    }

    /// Commits once on top of the version of `open`. Returns false if another writer's commit came first, and if it is
    /// unknown whether ours exists because the response was lost. Either way the caller looks at the table again, and
    /// finds its own rows if they are there.
    pub(super) async fn commit(&self, open: &mut OpenTable, table: &Table, change: Change) -> Result<bool> {
        let Change { actions, mark, mode, ids } = change;
        let unreadable = self.fail(table, "its log cannot be read");
        let failed = self.fail(table, "the commit failed");
        let marks = open.marks().await.map_err(&unreadable)?.after(mark);
        let (state, log) = (open.delta.snapshot().map_err(unreadable)?, open.delta.log_store());
        let version = state.version() + 1;
        let operation = DeltaOperation::Write { mode, partition_by: None, predicate: None };
        let properties =
            CommitProperties::default().with_application_transactions(marks.transactions()).with_metadata(ids);
        let entry =
            CommitBuilder::from(properties).with_actions(actions).build(Some(state), Arc::clone(&log), operation);
        let entry = entry.into_prepared_commit_future().await.map_err(&failed)?.commit_or_bytes().clone();
        // The library would list the log again, rebase appends without noticing that two have the same id, and fail a
        // commit that exists if its checkpoint cannot be written.
        match log.write_commit_entry(version, entry, Default::default()).await {
            Ok(()) => {
                open.marks = Some(marks);
                self.lost_responses.store(0, Ordering::Relaxed);
                self.checkpoint(open, table, version).await;
                Ok(true)
            }
            Err(TransactionError::VersionAlreadyExists(_)) => Ok(false),
            Err(error) if has_unknown_outcome(&error) && has(Mutant::BelieveLostResponses) => Ok(true),
            Err(error) if has_unknown_outcome(&error) => {
                let lost = self.lost_responses.fetch_add(1, Ordering::Relaxed) + 1;
                if lost <= MAX_LOST_RESPONSES { Ok(false) } else { Err(failed(error.into()).into()) }
            }
            Err(error) => Err(failed(error.into()).into()),
        }
    }

    /// Returns the rows whose value in `column` is not known yet, and these values.
    fn without(
        &self,
        table: &Table,
        rows: &RecordBatch,
        column: &str,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(RecordBatch, Vec<String>)> {
        let invalid = || LakeError::IdColumn { url: self.url(table), column: column.to_owned() };
        let ids = strings(rows, column).ok_or_else(invalid)?;
        let is_new = |id: &str| !is_known(id) || has(Mutant::KeepDuplicates);
        let new = ids.iter().filter(|id| is_new(id)).map(|id| (*id).to_owned()).collect();
        let is_new: BooleanArray = ids.iter().map(|id| Some(is_new(id))).collect();
        let rows = filter_record_batch(rows, &is_new);
        Ok((rows.map_err(|source| LakeError::Filter { url: self.url(table), source })?, new))
    }
}

impl OpenTable {
    /// Returns whether a later commit than `version` has added or removed rows.
    async fn changes_after(&self, version: u64) -> Result<bool, DeltaTableError> {
        let log = self.delta.log_store();
        for version in version + 1..=self.delta.snapshot()?.version() {
            let entry = LogEntry::read(log.as_ref(), version).await?;
            if entry.is_none_or(|entry| entry.changes_data) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What a commit does.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) actions: Vec<Action>,
    pub(super) mark: Mark,
    pub(super) mode: SaveMode,
    /// What the entry announces of its files; see [`announcement`].
    pub(super) ids: Option<(String, Value)>,
}

impl Change {
    pub(super) fn of(actions: Vec<Action>, mark: Mark, mode: SaveMode) -> Self {
        Self { actions, mark, mode, ids: None }
    }
}

/// Returns the ids of each new file, for the information that an entry has of its commit. Files with very many ids are read
/// instead.
fn announcement(files: &[(DataFile, Vec<String>)]) -> Option<(String, Value)> {
    let ids: usize = files.iter().map(|(_, ids)| ids.len()).sum();
    let by_file = || files.iter().map(|(file, ids)| (file.name.clone(), Value::from(ids.clone()))).collect();
    (ids <= MAX_IDS_ANNOUNCED).then(|| (ANNOUNCED_IDS.to_owned(), Value::Object(by_file())))
}

/// Waits so that the writer that won can continue. Of many that lost, each waits for another time.
async fn wait(attempt: u32) {
    let longest = MAX_WAIT.min(Duration::from_millis(10) * 2_u32.saturating_pow(attempt.min(10)));
    let share = chance(attempt) as f64 / u64::MAX as f64;
    tokio::time::sleep(if attempt == 0 { Duration::ZERO } else { longest.mul_f64(share) }).await;
}

/// Returns whether a commit that failed like this can exist all the same.
fn has_unknown_outcome(error: &TransactionError) -> bool {
    matches!(error, TransactionError::ObjectStore { source: object_store::Error::Generic { .. } })
}

/// Returns whether a table has the columns of its query. A table of the program's own may have further ones, which other
/// writers added and which are null in our rows.
fn has_columns(found: &StructType, columns: &StructType, table: &Table) -> bool {
    let may_have_more = schema::find(&table.name).is_some();
    let has = |column: &StructField| found.field(&column.name).is_some_and(|found| found == column);
    columns.fields().all(has) && (may_have_more || found.num_fields() == columns.num_fields())
}

fn add(file: &DataFile) -> Add {
    Add {
        path: file.name.clone(),
        size: i64::try_from(file.bytes.len()).unwrap_or(i64::MAX),
        // Delta requires a time in milliseconds. No content depends on it.
        modification_time: clock::now_ms(),
        data_change: true,
        stats: Some(file.stats.clone()),
        ..Add::default()
    }
}
