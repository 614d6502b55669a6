//! Adds the missing rows of an incremental table, unit by unit.

use std::{sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tracing::Instrument;

use super::{
    generate::{Generator, UnitResult},
    job::{Job, RowCounts},
    ledger::{self, Costs, REJECT_ID, Reject},
    shard::Shard,
    units::{self, Unit},
};
use crate::{
    error::{Error, Result, text::quote},
    identity::Digest,
    lake::UnitRows,
    models::Models,
    plan::Step,
    schema::{self, Kind, REJECTS_TABLE, columns::Columns},
    session::Snapshot,
    storage::simulated::{Mutant, has},
};

/// Sources per unit if its rows only refer to their images.
const REFERENCES_PER_UNIT: usize = 1 << 16;
/// The most units that share a commit.
const MAX_UNITS_PER_COMMIT: usize = 16;
/// Units in flight of a step that generates no images.
const USUAL_UNITS_IN_FLIGHT: usize = 6;
/// MiB of finished units that may wait for their commit while others are generated. A single unit may be larger.
const MAX_MIB_WAITING: u32 = 256;
/// Rejects that an error shows.
const MAX_SHOWN: usize = 3;
/// How often a worker checks whether the others are done.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum AccumulateError {
    #[error(
        "step `{step}`: {rejected} of {requested} rows failed, {allowed} are allowed (`rejects.max_fraction`){}\n\
         hint: `SELECT path, reason FROM rejects` in `discl-pipe sql` shows all", latest.concat()
    )]
    TooManyRejects { step: String, rejected: usize, requested: usize, allowed: usize, latest: Vec<String> },
    #[error("a unit of `{step}` was lost")]
    Lost { step: String, source: tokio::task::JoinError },
}

/// The rows that an incremental table gets, and how they are cut into units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    over: &'a str,
    id: &'a str,
    sources_per_unit: usize,
}

impl<'a> Work<'a> {
    /// Returns the work of `step`, or `None` if its table is full-refresh.
    pub(super) fn of(step: &'a Step) -> Option<Self> {
        let Kind::Incremental { over, id, sources_per_unit } = step.table.kind else { return None };
        // Without pixels, a unit costs little more than its commit and its plan.
        let refers = over == schema::LISTING && !step.query.functions.contains("read_image");
        let sources_per_unit = if refers { sources_per_unit.max(REFERENCES_PER_UNIT) } else { sources_per_unit };
        Some(Self { over, id, sources_per_unit })
    }
}

/// Adds the missing rows of one step.
pub(super) struct Accumulator<'a> {
    job: Job<'a>,
    step: &'a Step,
    work: Work<'a>,
    snapshot: Snapshot,
}

/// The units of a step that have missing rows. All requested rows of the step are counted, and those that are already
/// rejected.
struct Missing {
    units: Vec<Unit>,
    requested: usize,
    rejected: usize,
}

impl Missing {
    fn rows(&self) -> usize {
        self.units.iter().map(|unit| unit.missing.num_rows()).sum()
    }
}

/// A unit that waits for its commit, and its permit for the memory that it uses meanwhile.
type PendingCommit = (UnitResult, OwnedSemaphorePermit);

impl<'a> Accumulator<'a> {
    pub(super) fn new(job: Job<'a>, step: &'a Step, work: Work<'a>, snapshot: Snapshot) -> Self {
        Self { job, step, work, snapshot }
    }

    /// Adds the missing rows. One of several workers adds its own units, then waits for those of the others.
    ///
    /// # Errors
    /// Returns an error if a model, the lake or the query fails, or if more rows fail than the pipeline allows;
    /// [`Error::Interrupted`] if the run was stopped; [`Error::Waiting`] if other workers did not finish in time.
    /// Committed units stay.
    pub(super) async fn run(&self) -> Result<RowCounts> {
        let counts = self.add_own_units().await?;
        if self.job.options.stop.is_requested() {
            return Err(Error::Interrupted);
        }
        if self.job.options.shard.is_some() && !has(Mutant::CompleteEarly) {
            self.wait_for_others().await?;
        }
        Ok(counts)
    }

    /// Generates units concurrently, and commits finished ones meanwhile.
    async fn add_own_units(&self) -> Result<RowCounts> {
        if self.snapshot.version(&self.step.table.name).is_some() {
            self.job.lake().expel(&self.step.table).await?;
        }
        let missing = self.missing(self.job.options.shard).await?;
        let rejects = Rejects::new(self.job, self.step, &missing);
        rejects.check(&[])?;
        self.job.progress.started(&self.step.table.name, missing.rows());
        let (sender, receiver) = mpsc::unbounded_channel();
        let generate = self.generate(missing.units, sender);
        let (_, counts) = tokio::try_join!(generate, self.commit(receiver, rejects))?;
        Ok(counts)
    }

    async fn generate(&self, units: Vec<Unit>, sender: mpsc::UnboundedSender<PendingCommit>) -> Result<()> {
        let memory = Arc::new(Semaphore::new(MAX_MIB_WAITING as usize));
        let generator = Generator {
            session: Arc::clone(self.job.session),
            snapshot: self.snapshot.clone(),
            step: Arc::new(self.step.clone()),
            over: self.work.over.to_owned(),
            id: self.work.id.to_owned(),
        };
        let in_flight = self.units_in_flight(&units);
        let results = stream::iter(units)
            .take_until(self.job.options.stop.requested())
            // Each unit is a task, so that it proceeds while others are committed.
            .map(|unit| tokio::spawn(generator.clone().generate(unit).in_current_span()))
            .buffer_unordered(in_flight);
        let mut results = std::pin::pin!(results);
        while let Some(result) = results.next().await {
            let lost = |source| AccumulateError::Lost { step: self.step.table.name.clone(), source };
            let result = result.map_err(|error| Error::failed(lost(error)))??;
            let Ok(permit) = Arc::clone(&memory).acquire_many_owned(mib(&result.rows)).await else { break };
            if sender.send((result, permit)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Returns how many units to work on at once. If their rows are images to generate, as many as the diffusion model takes
    /// at once, and one more, whose query is planned meanwhile.
    fn units_in_flight(&self, units: &[Unit]) -> usize {
        if let Some(requested) = self.job.options.units_in_flight {
            return requested.max(1);
        }
        let generates = self.step.query.functions.contains("img2img");
        match self.job.session.models().and_then(Models::images_in_flight).filter(|_| generates) {
            Some(images) => {
                let rows: usize = units.iter().map(|unit| unit.missing.num_rows()).sum();
                1 + images.div_ceil((rows / units.len().max(1)).max(1))
            }
            None => USUAL_UNITS_IN_FLIGHT,
        }
    }

    /// Commits units as they arrive, and what they cost.
    async fn commit(
        &self,
        receiver: mpsc::UnboundedReceiver<PendingCommit>,
        rejects: Rejects<'_>,
    ) -> Result<RowCounts> {
        let mut costs = Costs::default();
        let counts = self.commit_all(receiver, rejects, &mut costs).await;
        costs.commit(self.job.lake()).await?;
        counts
    }

    /// Commits units as they arrive. Those that are ready at the same time share a commit.
    async fn commit_all(
        &self,
        mut receiver: mpsc::UnboundedReceiver<PendingCommit>,
        mut rejects: Rejects<'_>,
        costs: &mut Costs,
    ) -> Result<RowCounts> {
        let mut counts = RowCounts::default();
        let mut ready = Vec::new();
        while receiver.recv_many(&mut ready, MAX_UNITS_PER_COMMIT).await > 0 {
            self.commit_units(&ready).await?;
            for (result, _) in ready.drain(..) {
                costs.add(ledger::ledger_row(self.step, None, &result.entry)?);
                counts.rows += result.entry.rows;
                counts.rejects += result.entry.rejects;
                rejects.rejected += result.entry.rejects;
                self.job.progress.advanced(&self.step.table.name, result.entry.rows + result.entry.rejects);
                rejects.check(&result.rejects)?;
            }
            if costs.are_due() {
                costs.commit(self.job.lake()).await?;
            }
        }
        Ok(counts)
    }

    /// Commits units: rejects first, because a unit is done once its rows exist.
    async fn commit_units(&self, units: &[PendingCommit]) -> Result<()> {
        let lake = self.job.lake();
        let (mut rejects, mut rows) = (Vec::new(), Vec::new());
        for (result, _) in units {
            let unit = result.unit.clone();
            if !result.rejects.is_empty() {
                let batch = ledger::reject_rows(&self.step.table.name, &unit, &result.rejects)?;
                rejects.push(UnitRows { unit: unit.clone(), rows: batch });
            }
            rows.push(UnitRows { unit, rows: result.rows.clone() });
        }
        if !rejects.is_empty() {
            lake.append(&REJECTS_TABLE, REJECT_ID, &rejects).await?;
        }
        // Another run may have rejected a row that did not fail here, and have completed the step and
        // later ones without it.
        let rejected = (!has(Mutant::AddRejected)).then_some((&*REJECTS_TABLE, REJECT_ID));
        lake.append_unless(&self.step.table, self.work.id, &rows, rejected).await
    }

    /// Waits until every requested row exists or is rejected, whichever worker generates it.
    async fn wait_for_others(&self) -> Result<()> {
        let (options, step) = (self.job.options, &self.step.table.name);
        let started = Instant::now();
        loop {
            let rows = self.missing(None).await?.rows();
            if rows == 0 {
                return Ok(());
            }
            if started.elapsed() >= options.wait {
                return Err(Error::Waiting { step: step.clone(), rows });
            }
            self.job.progress.waiting(step, rows);
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL.min(options.wait)) => {}
                () = options.stop.requested() => return Err(Error::Interrupted),
            }
        }
    }

    /// Finds the units of `shard` that have a row which is neither in the table nor rejected.
    async fn missing(&self, shard: Option<Shard>) -> Result<Missing> {
        let Work { over, id, sources_per_unit } = self.work;
        let name = &self.step.table.name;
        let fail = |error| Error::query(name, error);
        let context = self.job.session.context(&self.snapshot)?;
        let requests = context.table(over).await.map_err(fail)?.collect().await.map_err(fail)?;
        let mut done = self.job.lake().ids(&self.step.table, id).await?;
        let rejects = self.job.lake().ids(&REJECTS_TABLE, REJECT_ID).await?;
        let mut rejected = 0;
        for batch in &requests {
            let ids = Columns::new(name, batch).strings(id)?;
            rejected += ids.iter().flatten().filter(|id| rejects.contains(*id)).count();
        }
        done.extend(rejects);
        let mut units = units::cut(name, &requests, id, sources_per_unit, &done, shard)?;
        if let Some(salt) = self.job.options.unit_order {
            units.sort_by_cached_key(|unit| Digest::new("order").part(&salt.to_le_bytes()).text(&unit.id).id());
        }
        Ok(Missing { units, requested: requests.iter().map(RecordBatch::num_rows).sum(), rejected })
    }
}

/// Returns the size of `rows` in memory, rounded up to whole MiB and at most [`MAX_MIB_WAITING`].
fn mib(rows: &RecordBatch) -> u32 {
    u32::try_from(rows.get_array_memory_size() >> 20).unwrap_or(u32::MAX).saturating_add(1).min(MAX_MIB_WAITING)
}

/// Counts the rows of a step that fail.
struct Rejects<'a> {
    step: &'a str,
    requested: usize,
    allowed: usize,
    rejected: usize,
}

impl<'a> Rejects<'a> {
    fn new(job: Job<'_>, step: &'a Step, missing: &Missing) -> Self {
        let allowed = (job.max_reject_fraction * missing.requested as f64).ceil() as usize;
        Self { step: &step.table.name, requested: missing.requested, allowed, rejected: missing.rejected }
    }

    /// Checks that no more rows have failed than the pipeline allows.
    ///
    /// # Errors
    /// Returns an error, with a reason among `latest`, if more rows failed than are allowed.
    fn check(&self, latest: &[Reject]) -> Result<()> {
        let &Self { step, requested, allowed, rejected } = self;
        if rejected <= allowed {
            return Ok(());
        }
        let mut shown: Vec<String> = latest
            .iter()
            .map(|Reject { path, reason, .. }| format!("\n  {}: {reason}", quote(path.as_deref().unwrap_or_default())))
            .collect();
        shown.sort();
        shown.dedup();
        shown.truncate(MAX_SHOWN);
        let step = step.to_owned();
        Err(Error::failed(AccumulateError::TooManyRejects { step, rejected, requested, allowed, latest: shown }))
    }
}
