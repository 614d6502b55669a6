//! The one kind of step: a table and the query that fills it.
//!
//! - A **chosen** table is replaced by what its query gives ([`choose`]).
//! - An **accumulated** table gets a row for each row of another table that has none yet, cut into units
//!   ([`accumulate`]): this is where models work.
//! - A chosen step whose query reads a later table is **repeated** with the steps up to that table until
//!   its rows stay as they are: so low scores ask for further attempts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;

use super::{
    accumulate::{self, Accumulation, Done},
    ledger::{self, Entry},
    replace,
    shard::Shard,
    shutdown::Stop,
};
use crate::{
    error::{Error, Result},
    lake::{DataFile, UnitRows},
    pipeline::staleness::why,
    plan::{Expectation, Plan, Step},
    schema::{Kind, Table},
    session::{self, Session, Snapshot},
};

/// Rounds after which a repeated step that still changes is given up; attempts end much earlier.
const MAX_ROUNDS: usize = 1000;
/// Offending rows that a failed expectation shows.
const SHOWN_ROWS: usize = 10;
/// Rows of a batch where rows carry images.
pub(super) const IMAGES_PER_BATCH: usize = 32;

/// How steps run here; never what they mean.
#[derive(Debug, Clone)]
pub struct Options {
    /// Units that are worked on at once; their rows share the models' batches.
    pub units_in_flight: usize,
    /// Takes units in another order: nothing in the tables may depend on it.
    pub unit_order: Option<u64>,
    /// The share of a step's rows that may fail before the run does.
    pub max_reject_fraction: f64,
    /// Which units are this worker's; all of them where there is none.
    pub shard: Option<Shard>,
    /// How long a worker waits for the units of others.
    pub wait: Duration,
    /// Ends the run early.
    pub stop: Stop,
}

/// Who is told how far a run is.
pub trait Progress: Send + Sync {
    /// What the models will run on, and why.
    fn device(&self, chosen: &str);
    /// A step begins with `rows` to make; 0 where that is not known.
    fn started(&self, step: &str, rows: usize);
    /// The step waits for `rows` that other workers make.
    fn waiting(&self, step: &str, rows: usize);
    /// Of the step, `rows` more are committed.
    fn advanced(&self, step: &str, rows: usize);
    /// A step has ended, or needed nothing.
    fn ended(&self, outcome: &Outcome);
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// Its table.
    pub step: String,
    /// Whether there was nothing to do.
    pub skipped: bool,
    /// Why it ran, or did not.
    pub reason: String,
    /// Rows that were added, or that the new version has.
    pub rows: usize,
    /// Rows that failed.
    pub rejects: usize,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Runs steps.
pub struct Runner {
    /// The tables and functions.
    pub session: Arc<Session>,
    /// What is to be made.
    pub plan: Plan,
    /// The pipeline's own tables, with their columns.
    pub own_tables: Vec<Table>,
    /// How it runs here.
    pub options: Options,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
}

/// What became of a call of [`Runner::run`].
#[derive(Debug)]
pub enum Ran {
    /// The steps are complete.
    Through(Vec<Outcome>),
    /// Another run has changed what they read: the step at this index has to be looked at again.
    Again(usize),
}

/// Rows of a chosen table, in files, and by what version of the table they were chosen.
struct Choice {
    files: Vec<DataFile>,
    rows: Vec<RecordBatch>,
    base: Option<u64>,
}

impl Choice {
    fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }

    fn count(&self) -> usize {
        self.files.iter().map(|file| file.rows).sum()
    }
}

impl Runner {
    /// Runs the step at `index`, with all that repeats with it, unless it is complete.
    ///
    /// # Errors
    /// Where it fails; what was committed stays.
    pub async fn run(&self, index: usize) -> Result<Ran> {
        let last = self.plan.steps[index].repeats_to.unwrap_or(index);
        let steps = &self.plan.steps[index..=last];
        let mut outcomes = Vec::new();
        for step in steps {
            let reason = why(&self.session, &self.own_tables, step).await?;
            outcomes.push(Outcome {
                step: step.table.name.clone(),
                skipped: reason.is_none(),
                reason: reason.unwrap_or_else(|| "it is up to date".into()),
                rows: 0,
                rejects: 0,
                seconds: 0.0,
            });
        }
        if outcomes.iter().any(|outcome| !outcome.skipped)
            && let Some(again) = self.repeat(index, steps, &mut outcomes).await?
        {
            return Ok(Ran::Again(again));
        }
        for outcome in &outcomes {
            self.progress.ended(outcome);
        }
        Ok(Ran::Through(outcomes))
    }

    /// Runs `steps`, which begin at `index`: the first again and again where others repeat with it, until its
    /// rows stay. Gives the index of an earlier step where another run has changed what these read.
    async fn repeat(&self, index: usize, steps: &[Step], outcomes: &mut [Outcome]) -> Result<Option<usize>> {
        let Some((first, rest)) = steps.split_first() else { return Ok(None) };
        let mut previous: Option<Choice> = None;
        for _ in 0..MAX_ROUNDS {
            let started = Instant::now();
            let snapshot = self.session.snapshot(&self.own_tables).await?;
            if let Some(again) = self.moved_input(index, steps, &snapshot) {
                return Ok(Some(again));
            }
            if let Some(how) = Accumulation::of(first) {
                let done = accumulate::run(self, first, how, snapshot).await?;
                note(&mut outcomes[0], done, false, started);
                self.complete(first, &outcomes[0]).await?;
                return Ok(None);
            }
            let choice = self.choose(first, &snapshot, !rest.is_empty()).await?;
            let settled = rest.is_empty() || previous.as_ref().is_some_and(|p| p.names() == choice.names());
            let fingerprint = settled.then_some(first.fingerprint.value);
            if settled {
                // before the table is marked: what it is made from must be known of every mark
                let mut entered = outcomes[0].clone();
                note(&mut entered, Done { rows: choice.count(), rejects: 0 }, true, started);
                self.enter(first, &entered).await?;
            }
            let lake = self.session.lake();
            if !lake.replace(&first.table, &choice.files, fingerprint, choice.base).await? {
                // another run was faster: choose again by what it has left
                previous = None;
                continue;
            }
            note(&mut outcomes[0], Done { rows: choice.count(), rejects: 0 }, true, started);
            if settled {
                for (step, outcome) in rest.iter().zip(&outcomes[1..]) {
                    if matches!(step.table.kind, Kind::Accumulated { .. }) {
                        self.complete(step, outcome).await?;
                    } else {
                        self.enter(step, outcome).await?;
                        self.follow_choosing(first, &choice, step, Some(step.fingerprint.value)).await?;
                    }
                }
                return Ok(None);
            }
            self.follow(first, &choice, rest, &mut outcomes[1..]).await?;
            previous = Some(choice);
        }
        Err(Error::Query {
            query: first.query.name.clone(),
            message: format!("its rows still change after {MAX_ROUNDS} rounds"),
        })
    }

    /// Makes what is missing of `rest`, for just the rows of `first` that were chosen: what another run
    /// writes into its table in the meantime is not ours.
    async fn follow(&self, first: &Step, choice: &Choice, rest: &[Step], outcomes: &mut [Outcome]) -> Result<()> {
        for (step, outcome) in rest.iter().zip(outcomes) {
            let started = Instant::now();
            let (done, replaced) = match Accumulation::of(step) {
                Some(how) => {
                    let snapshot = self.pinned(first, choice).await?;
                    (accumulate::run(self, step, how, snapshot).await?, false)
                }
                None => (self.follow_choosing(first, choice, step, None).await?, true),
            };
            note(outcome, done, replaced, started);
        }
        Ok(())
    }

    /// The tables as they are now, but for the rows of `first`, which are those that were chosen.
    async fn pinned(&self, first: &Step, choice: &Choice) -> Result<Snapshot> {
        let mut snapshot = self.session.snapshot(&self.own_tables).await?;
        snapshot.set(&first.table.name, Arc::clone(&first.table.schema), choice.rows.clone())?;
        Ok(snapshot)
    }

    /// Chooses the rows of `step`, which is repeated with `first`; again where another run was faster.
    async fn follow_choosing(
        &self,
        first: &Step,
        choice: &Choice,
        step: &Step,
        fingerprint: Option<i64>,
    ) -> Result<Done> {
        for _ in 0..MAX_ROUNDS {
            let chosen = self.choose(step, &self.pinned(first, choice).await?, false).await?;
            if self.session.lake().replace(&step.table, &chosen.files, fingerprint, chosen.base).await? {
                return Ok(Done { rows: chosen.count(), rejects: 0 });
            }
        }
        Err(Error::Data(format!("another run keeps changing `{}`; run again when it has ended", step.table.name)))
    }

    /// The first step before `index` whose table `steps` read and which is not complete in `snapshot`.
    fn moved_input(&self, index: usize, steps: &[Step], snapshot: &Snapshot) -> Option<usize> {
        let read = |name: &String| steps.iter().any(|step| step.query.tables.contains(name));
        self.plan.steps[..index].iter().position(|input| {
            read(&input.table.name) && snapshot.fingerprint(&input.table.name) != Some(input.fingerprint.value)
        })
    }

    async fn choose(&self, step: &Step, snapshot: &Snapshot, keep: bool) -> Result<Choice> {
        let context = match step.asks_models() {
            true => self.session.context_with(snapshot, &Arc::default(), IMAGES_PER_BATCH)?,
            false => self.session.context(snapshot, &Arc::default())?,
        };
        let (files, rows) = replace::files(&context, step, keep).await?;
        Ok(Choice { files, rows, base: snapshot.version(&step.table.name) })
    }

    /// Enters the completion of `step` into the ledger.
    async fn enter(&self, step: &Step, outcome: &Outcome) -> Result<()> {
        let fingerprint = &step.fingerprint;
        let unit = format!("{:016x}", fingerprint.value);
        let entry = Entry {
            unit: Some(unit.clone()),
            rows: outcome.rows,
            rejects: outcome.rejects,
            seconds: outcome.seconds,
            ..Entry::default()
        };
        let rows = ledger::ledger_row(&step.table.name, fingerprint.value, Some(&fingerprint.parts), &entry)?;
        self.session.lake().append(ledger::ledger_table()?, ledger::LEDGER_ID, &[UnitRows { unit, rows }]).await
    }

    /// Marks an accumulated step as complete.
    async fn complete(&self, step: &Step, outcome: &Outcome) -> Result<()> {
        self.enter(step, outcome).await?;
        self.session.lake().complete(&step.table, step.fingerprint.value).await
    }

    /// The index of the step with which the one at `index` is repeated; its own where there is none.
    pub fn first_of(&self, index: usize) -> usize {
        let repeats = |step: &Step| step.repeats_to.is_some_and(|last| last >= index);
        self.plan.steps[..index].iter().position(repeats).unwrap_or(index)
    }

    /// Asks the expectations that read no step later than `index` and the one at `index` or in its loop.
    ///
    /// # Errors
    /// Where one returns rows, which the error shows.
    pub async fn expect(&self, steps: std::ops::RangeInclusive<usize>) -> Result<()> {
        for expectation in self.plan.expectations.iter().filter(|e| steps.contains(&e.after)) {
            self.ask(expectation).await?;
        }
        Ok(())
    }

    async fn ask(&self, expectation: &Expectation) -> Result<()> {
        let fail = |error| Error::query(format!("[[expect]] {}", expectation.name), error);
        let snapshot = self.session.snapshot(&self.own_tables).await?;
        let context = self.session.context(&snapshot, &Arc::default())?;
        let rows = session::query(&context, &expectation.name, &expectation.statement).await?;
        let found = rows.collect().await.map_err(fail)?;
        let count: usize = found.iter().map(arrow::array::RecordBatch::num_rows).sum();
        if count == 0 {
            return Ok(());
        }
        let mut left = SHOWN_ROWS;
        let shown: Vec<_> = found
            .iter()
            .map(|batch| {
                let slice = batch.slice(0, batch.num_rows().min(left));
                left -= slice.num_rows();
                slice
            })
            .collect();
        let table = arrow::util::pretty::pretty_format_batches(&shown).map_err(|error| fail(error.into()))?;
        Err(Error::Expectation { name: expectation.name.clone(), rows: count, table: table.to_string() })
    }
}

fn note(outcome: &mut Outcome, done: Done, replaced: bool, started: Instant) {
    outcome.skipped = false;
    outcome.rows = if replaced { done.rows } else { outcome.rows + done.rows };
    outcome.rejects += done.rejects;
    outcome.seconds += started.elapsed().as_secs_f64();
}
