//! Runs one step, or the steps that are repeated together.

use std::{sync::Arc, time::Instant};

use super::{
    accumulate::{Accumulator, Work},
    job::{Job, Outcome},
    ledger,
    rejects::reset,
    replace::{self, Computed},
};
use crate::{
    error::{Error, Result},
    pipeline::staleness,
    plan::Step,
    session::Snapshot,
    storage::simulated::{Mutant, has},
};

/// Rounds after which a run gives up a step whose rows still change. Attempts end much earlier.
const MAX_ROUNDS: usize = 1000;

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("another run keeps changing `{table}`\nhint: run again when it has ended")]
    Contended { table: String },
}

/// Runs steps.
pub(super) struct Runner<'a> {
    job: Job<'a>,
    steps: &'a [Step],
}

/// The result of [`Runner::run`].
#[derive(Debug)]
pub(super) enum RunResult {
    /// The steps are complete.
    Complete(Vec<Outcome>),
    /// Another run has changed a table that they read: start again from the step at this index.
    Restart(usize),
}

/// The rows of a first step that no longer change.
struct Settled<'a> {
    first: &'a Step,
    computed: &'a Computed,
    /// The tables before the other steps were filled for these rows.
    filled: &'a Snapshot,
    /// The tables from which the rows were computed, after that.
    seen: &'a Snapshot,
}

/// Why a step could not go on: another run has changed the table of the step at this index.
struct StaleInput(usize);

impl<'a> Runner<'a> {
    pub(super) fn new(job: Job<'a>) -> Self {
        Self { job, steps: &job.plan.steps }
    }

    /// Runs the step at `index` and those that repeat with it, unless they are complete.
    ///
    /// # Errors
    /// Returns an error if a step fails; [`Error::Interrupted`] if the run was stopped; [`Error::Waiting`] if other
    /// workers did not finish in time. Committed rows stay.
    #[tracing::instrument(name = "step", skip_all, fields(step = %self.steps[index].table.name))]
    pub(super) async fn run(&self, index: usize) -> Result<RunResult> {
        let last = self.steps[index].repeats_to.unwrap_or(index);
        let steps = &self.steps[index..=last];
        let mut outcomes = Vec::new();
        for step in steps {
            let reason = staleness::reason(self.job.session, step).await?;
            outcomes.push(Outcome::new(&step.table.name, reason));
        }
        self.expel(steps).await?;
        if outcomes.iter().any(|outcome| !outcome.skipped)
            && let Err(StaleInput(input)) = self.fill(index, steps, &mut outcomes).await?
        {
            return Ok(RunResult::Restart(input));
        }
        for outcome in &outcomes {
            let Outcome { step, skipped, reason, rows, rejects, seconds, .. } = outcome;
            tracing::info!(table = %step, skipped, %reason, rows, rejects, seconds, "step ended");
            self.job.progress.ended(outcome);
        }
        Ok(RunResult::Complete(outcomes))
    }

    /// Removes what another program wrote into incremental tables of `steps`, before a query of `steps` reads it.
    async fn expel(&self, steps: &[Step]) -> Result<()> {
        let snapshot = self.job.session.snapshot().await?;
        let is_incremental = |step: &&Step| Work::of(step).is_some() && snapshot.version(&step.table.name).is_some();
        for step in steps.iter().filter(is_incremental) {
            self.job.lake().expel(&step.table).await?;
        }
        Ok(())
    }

    /// Returns the index of the step with which the one at `index` is repeated, or `index` itself.
    pub(super) fn loop_start(&self, index: usize) -> usize {
        let repeats = |step: &Step| step.repeats_to.is_some_and(|last| last >= index);
        self.steps[..index].iter().position(repeats).unwrap_or(index)
    }

    async fn fill(&self, index: usize, steps: &[Step], outcomes: &mut [Outcome]) -> Result<Result<(), StaleInput>> {
        match (steps, outcomes) {
            ([step], [outcome]) => match Work::of(step) {
                Some(work) => self.add_missing(index, step, work, outcome).await,
                None => self.refresh(index, step, outcome).await,
            },
            (steps, outcomes) => self.repeat(index, steps, outcomes).await,
        }
    }

    /// Fills an incremental table.
    async fn add_missing(
        &self,
        index: usize,
        step: &Step,
        work: Work<'_>,
        outcome: &mut Outcome,
    ) -> Result<Result<(), StaleInput>> {
        let started = Instant::now();
        let snapshot = match self.current(index, std::slice::from_ref(step)).await? {
            Ok(snapshot) => snapshot,
            Err(stale) => return Ok(Err(stale)),
        };
        self.add(step, work, snapshot.clone(), outcome, started).await?;
        self.doubt_later(index, step, &snapshot).await?;
        ledger::record_completion(self.job.lake(), step, outcome).await?;
        let since = snapshot.version(&step.table.name).unwrap_or(0);
        self.job.lake().complete(&step.table, step.fingerprint.mark(), since).await?;
        Ok(Ok(()))
    }

    async fn add(
        &self,
        step: &Step,
        work: Work<'_>,
        snapshot: Snapshot,
        outcome: &mut Outcome,
        started: Instant,
    ) -> Result<()> {
        let before = self.job.generated();
        let counts = Accumulator::new(self.job, step, work, snapshot).run().await?;
        let rates = self.job.session.models().and_then(|models| models.rates(&before));
        outcome.added(counts, started, rates);
        Ok(())
    }

    /// Fills a full-refresh table. Computes its rows again if another run has replaced it meanwhile.
    async fn refresh(&self, index: usize, step: &Step, outcome: &mut Outcome) -> Result<Result<(), StaleInput>> {
        for _ in 0..MAX_ROUNDS {
            let started = Instant::now();
            let snapshot = match self.current(index, std::slice::from_ref(step)).await? {
                Ok(snapshot) => snapshot,
                Err(stale) => return Ok(Err(stale)),
            };
            let computed = replace::compute(self.job.session, step, &snapshot, false).await?;
            if self.replace_and_complete(step, &computed, outcome, started).await? {
                return Ok(Ok(()));
            }
        }
        Err(Error::failed(StepError::Contended { table: step.table.name.clone() }))
    }

    /// Fills the first of `steps` and those that it reads until its rows no longer change.
    async fn repeat(&self, index: usize, steps: &[Step], outcomes: &mut [Outcome]) -> Result<Result<(), StaleInput>> {
        let (Some((first, rest)), Some((outcome, others))) = (steps.split_first(), outcomes.split_first_mut()) else {
            return Ok(Ok(()));
        };
        // The rows that the other steps were filled for, and the tables before that.
        let mut previous: Option<(Computed, Snapshot)> = None;
        for _ in 0..MAX_ROUNDS {
            let started = Instant::now();
            let snapshot = match self.current(index, steps).await? {
                Ok(snapshot) => snapshot,
                Err(stale) => return Ok(Err(stale)),
            };
            let computed = replace::compute(self.job.session, first, &snapshot, true).await?;
            let settled = previous.take_if(|(previous, _)| previous.has_same_rows(&computed));
            if let Some((_, filled)) = settled {
                if self.replace_and_complete(first, &computed, outcome, started).await? {
                    let settled = Settled { first, computed: &computed, filled: &filled, seen: &snapshot };
                    if self.complete_rest(index, &settled, rest, others).await? {
                        return Ok(Ok(()));
                    }
                }
            } else if replace::replace(self.job.lake(), first, &computed, None).await? {
                outcome.replaced(computed.rows(), started);
                self.fill_rest(first, &computed, rest, others).await?;
                previous = Some((computed, snapshot));
            } else {
                previous = None;
            }
        }
        Err(Error::Query {
            query: first.query.name.clone(),
            message: format!("its rows still change after {MAX_ROUNDS} rounds"),
        })
    }

    /// Returns the tables as they are now for `steps`, of which the first is at `index`; [`StaleInput`] if an earlier
    /// step whose table they read is no longer complete.
    async fn current(&self, index: usize, steps: &[Step]) -> Result<Result<Snapshot, StaleInput>> {
        let snapshot = self.job.session.snapshot().await?;
        let is_read = |name: &String| steps.iter().any(|step| step.query.tables.contains(name));
        let stale = self.steps[..index].iter().position(|input| {
            let is_stale = snapshot.fingerprint(&input.table.name) != input.fingerprint.value;
            is_read(&input.table.name) && is_stale && !has(Mutant::RunOnStaleInputs)
        });
        Ok(stale.map_or(Ok(snapshot), |index| Err(StaleInput(index))))
    }

    /// Replaces the table by `computed` and marks it as complete. Returns `false` if another run was faster. The ledger
    /// is written first, so that it has the parts of every fingerprint that marks a table.
    async fn replace_and_complete(
        &self,
        step: &Step,
        computed: &Computed,
        outcome: &mut Outcome,
        started: Instant,
    ) -> Result<bool> {
        let mut entry = outcome.clone();
        entry.replaced(computed.rows(), started);
        ledger::record_completion(self.job.lake(), step, &entry).await?;
        let won = replace::replace(self.job.lake(), step, computed, step.fingerprint.value).await?;
        if won {
            outcome.replaced(computed.rows(), started);
        }
        Ok(won)
    }

    /// Adds the missing rows of `rest` for exactly the computed rows of `first`, whatever another run writes into that
    /// table meanwhile.
    async fn fill_rest(
        &self,
        first: &Step,
        computed: &Computed,
        rest: &[Step],
        outcomes: &mut [Outcome],
    ) -> Result<()> {
        for (step, outcome) in rest.iter().zip(outcomes) {
            let started = Instant::now();
            match Work::of(step) {
                Some(work) => {
                    let snapshot = self.snapshot_with(first, computed).await?;
                    self.add(step, work, snapshot, outcome, started).await?;
                }
                None => outcome.replaced(self.refresh_from(first, computed, step, None).await?, started),
            }
        }
        Ok(())
    }

    /// Marks `rest` as complete, once the rows of the first step no longer change. Returns false if another run has added
    /// rows since these were computed: with them the first step may request others.
    async fn complete_rest(
        &self,
        index: usize,
        settled: &Settled<'_>,
        rest: &[Step],
        outcomes: &[Outcome],
    ) -> Result<bool> {
        let Settled { first, computed, filled, seen } = settled;
        for (step, outcome) in rest.iter().zip(outcomes) {
            if Work::of(step).is_some() {
                self.doubt_later(index + rest.len(), step, filled).await?;
                ledger::record_completion(self.job.lake(), step, outcome).await?;
                let version = |snapshot: &Snapshot| snapshot.version(&step.table.name).unwrap_or(0);
                let (since, seen) = (version(filled), version(seen));
                if !self.job.lake().complete_as_seen(&step.table, step.fingerprint.mark(), since, seen).await? {
                    return Ok(false);
                }
            } else {
                ledger::record_completion(self.job.lake(), step, outcome).await?;
                self.refresh_from(first, computed, step, step.fingerprint.value).await?;
            }
        }
        Ok(true)
    }

    /// If another program has changed the incremental table of `step`, marks the steps after the one at `last` as
    /// incomplete. A row may be rejected now that was there before, or the other way round, and another run may have
    /// completed them with the rows of before.
    async fn doubt_later(&self, last: usize, step: &Step, filled: &Snapshot) -> Result<()> {
        match filled.changed(&step.table.name) {
            Some(_) if !has(Mutant::CompleteAlone) => reset(self.job.lake(), &self.steps[last + 1..]).await,
            _ => Ok(()),
        }
    }

    /// Fills the full-refresh table of `step`, which is repeated with `first`. Computes its rows again if another run
    /// was faster. Returns their number.
    async fn refresh_from(&self, first: &Step, computed: &Computed, step: &Step, mark: Option<i64>) -> Result<usize> {
        for _ in 0..MAX_ROUNDS {
            let snapshot = self.snapshot_with(first, computed).await?;
            let rows = replace::compute(self.job.session, step, &snapshot, false).await?;
            if replace::replace(self.job.lake(), step, &rows, mark).await? {
                return Ok(rows.rows());
            }
        }
        Err(Error::failed(StepError::Contended { table: step.table.name.clone() }))
    }

    /// Returns the tables as they are now, but with the computed rows of `first`.
    async fn snapshot_with(&self, first: &Step, computed: &Computed) -> Result<Snapshot> {
        let mut snapshot = self.job.session.snapshot().await?;
        snapshot.set(&first.table.name, Arc::clone(&first.table.schema), computed.batches.clone())?;
        Ok(snapshot)
    }
}
