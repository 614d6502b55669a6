//! Runs one step, or the steps that are repeated together.

use std::{sync::Arc, time::Instant};

use super::{
    accumulate::{Accumulator, Work},
    job::{Job, Outcome},
    ledger,
    replace::{self, Choice},
};
use crate::{
    error::{Error, Result},
    pipeline::staleness,
    plan::Step,
    session::Snapshot,
};

/// Rounds after which a step whose rows still change is given up; attempts end much earlier.
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
    /// Another run has changed what they read: start again from the step at this index.
    Restart(usize),
}

/// Why a step could not go on: another run has changed the table of the step at this index.
struct StaleInput(usize);

impl<'a> Runner<'a> {
    pub(super) fn new(job: Job<'a>) -> Self {
        Self { job, steps: &job.pipeline.project.plan.steps }
    }

    /// Runs the step at `index`, with all that repeat with it, unless they are complete.
    ///
    /// # Errors
    /// Returns an error if it fails; what was committed stays.
    #[tracing::instrument(name = "step", skip_all, fields(step = %self.steps[index].table.name))]
    pub(super) async fn run(&self, index: usize) -> Result<RunResult> {
        let last = self.steps[index].repeats_to.unwrap_or(index);
        let steps = &self.steps[index..=last];
        let mut outcomes = Vec::new();
        for step in steps {
            let reason = staleness::reason(self.job.session(), step).await?;
            outcomes.push(Outcome::new(&step.table.name, reason));
        }
        if outcomes.iter().any(|outcome| !outcome.skipped)
            && let Err(StaleInput(input)) = self.fill(index, steps, &mut outcomes).await?
        {
            return Ok(RunResult::Restart(input));
        }
        for outcome in &outcomes {
            let Outcome { step, skipped, reason, rows, rejects, seconds } = outcome;
            tracing::info!(table = %step, skipped, %reason, rows, rejects, seconds, "step ended");
            self.job.progress.ended(outcome);
        }
        Ok(RunResult::Complete(outcomes))
    }

    /// The index of the step with which the one at `index` is repeated, or `index` itself.
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
        outcome.added(Accumulator::new(self.job, step, work, snapshot).run().await?, started);
        ledger::complete(self.job.lake(), step, outcome).await?;
        Ok(Ok(()))
    }

    /// Fills a full-refresh table; chooses again if another run has replaced it meanwhile.
    async fn refresh(&self, index: usize, step: &Step, outcome: &mut Outcome) -> Result<Result<(), StaleInput>> {
        for _ in 0..MAX_ROUNDS {
            let started = Instant::now();
            let snapshot = match self.current(index, std::slice::from_ref(step)).await? {
                Ok(snapshot) => snapshot,
                Err(stale) => return Ok(Err(stale)),
            };
            let choice = replace::choose(self.job.session(), step, &snapshot, false).await?;
            if self.replace_and_complete(step, &choice, outcome, started).await? {
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
        let mut previous: Option<Choice> = None;
        for _ in 0..MAX_ROUNDS {
            let started = Instant::now();
            let snapshot = match self.current(index, steps).await? {
                Ok(snapshot) => snapshot,
                Err(stale) => return Ok(Err(stale)),
            };
            let choice = replace::choose(self.job.session(), first, &snapshot, true).await?;
            if previous.as_ref().is_some_and(|previous| previous.has_same_rows(&choice)) {
                if self.replace_and_complete(first, &choice, outcome, started).await? {
                    self.complete_rest(first, &choice, rest, others).await?;
                    return Ok(Ok(()));
                }
                previous = None;
            } else if replace::replace(self.job.lake(), first, &choice, None).await? {
                outcome.replaced(choice.rows(), started);
                self.fill_rest(first, &choice, rest, others).await?;
                previous = Some(choice);
            } else {
                previous = None;
            }
        }
        Err(Error::Query {
            query: first.query.name.clone(),
            message: format!("its rows still change after {MAX_ROUNDS} rounds"),
        })
    }

    /// The tables as they are now, unless an earlier step whose table `steps` read, with the first at `index`, is no longer
    /// complete.
    async fn current(&self, index: usize, steps: &[Step]) -> Result<Result<Snapshot, StaleInput>> {
        let snapshot = self.job.session().snapshot().await?;
        let is_read = |name: &String| steps.iter().any(|step| step.query.tables.contains(name));
        let stale = self.steps[..index].iter().position(|input| {
            is_read(&input.table.name) && snapshot.fingerprint(&input.table.name) != input.fingerprint.value
        });
        Ok(stale.map_or(Ok(snapshot), |index| Err(StaleInput(index))))
    }

    /// Replaces the table by `choice` and marks it as complete; `false` if another run was faster. The ledger is written
    /// first: what a table is made from must be known of every mark.
    async fn replace_and_complete(
        &self,
        step: &Step,
        choice: &Choice,
        outcome: &mut Outcome,
        started: Instant,
    ) -> Result<bool> {
        let mut entry = outcome.clone();
        entry.replaced(choice.rows(), started);
        ledger::record_completion(self.job.lake(), step, &entry).await?;
        let won = replace::replace(self.job.lake(), step, choice, step.fingerprint.value).await?;
        if won {
            outcome.replaced(choice.rows(), started);
        }
        Ok(won)
    }

    /// Adds what is missing of `rest` for exactly the rows of `first` that were chosen: what another run writes into its
    /// table meanwhile is not ours.
    async fn fill_rest(&self, first: &Step, choice: &Choice, rest: &[Step], outcomes: &mut [Outcome]) -> Result<()> {
        for (step, outcome) in rest.iter().zip(outcomes) {
            let started = Instant::now();
            match Work::of(step) {
                Some(work) => {
                    let snapshot = self.snapshot_with(first, choice).await?;
                    outcome.added(Accumulator::new(self.job, step, work, snapshot).run().await?, started);
                }
                None => outcome.replaced(self.refresh_from(first, choice, step, None).await?, started),
            }
        }
        Ok(())
    }

    /// Marks `rest` as complete, once the rows of `first` no longer change.
    async fn complete_rest(&self, first: &Step, choice: &Choice, rest: &[Step], outcomes: &[Outcome]) -> Result<()> {
        for (step, outcome) in rest.iter().zip(outcomes) {
            if Work::of(step).is_some() {
                ledger::complete(self.job.lake(), step, outcome).await?;
            } else {
                ledger::record_completion(self.job.lake(), step, outcome).await?;
                self.refresh_from(first, choice, step, step.fingerprint.value).await?;
            }
        }
        Ok(())
    }

    /// Fills the full-refresh table of `step`, which is repeated with `first`; chooses again if another run was faster.
    /// Returns the number of rows.
    async fn refresh_from(&self, first: &Step, choice: &Choice, step: &Step, mark: Option<i64>) -> Result<usize> {
        for _ in 0..MAX_ROUNDS {
            let snapshot = self.snapshot_with(first, choice).await?;
            let chosen = replace::choose(self.job.session(), step, &snapshot, false).await?;
            if replace::replace(self.job.lake(), step, &chosen, mark).await? {
                return Ok(chosen.rows());
            }
        }
        Err(Error::failed(StepError::Contended { table: step.table.name.clone() }))
    }

    /// The tables as they are now, except for the rows of `first`, which are those that were chosen.
    async fn snapshot_with(&self, first: &Step, choice: &Choice) -> Result<Snapshot> {
        let mut snapshot = self.job.session().snapshot().await?;
        snapshot.set(&first.table.name, Arc::clone(&first.table.schema), choice.batches.clone())?;
        Ok(snapshot)
    }
}
