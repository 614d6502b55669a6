//! The one kind of step: a table and the query that fills it.
//!
//! - A **chosen** table is replaced by what its query gives ([`choose`]).
//! - An **accumulated** table gets a row for each row of another table that has none yet, cut into units
//!   ([`accumulate`]): this is where models work.
//! - A chosen step whose query reads a later table is **repeated** with the steps up to that table until
//!   its rows stay as they are: so low scores ask for further attempts.

mod accumulate;
mod choose;
mod journal;
mod rows;
mod units;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

pub use accumulate::Done;
pub(crate) use rows::{check_schema, conform_batches};

use self::{accumulate::Accumulation, journal::Entry};
use crate::{
    error::{Error, Result},
    lake::{DataFile, UnitFiles},
    plan::{Expectation, Plan, Step},
    schema::{self, Kind, Table},
    session::{self, Session},
};

/// Rounds after which a repeated step that still changes is given up; attempts end much earlier.
const MAX_ROUNDS: usize = 1000;
/// Offending rows that a failed expectation shows.
const SHOWN_ROWS: usize = 10;

/// How steps run here; never what they mean.
#[derive(Debug, Clone)]
pub struct Options {
    /// Units that are worked on at once; their rows share the models' batches.
    pub units_in_flight: usize,
    /// Takes units in another order: nothing in the tables may depend on it.
    pub unit_order: Option<u64>,
    /// The share of a step's rows that may fail before the run does.
    pub max_reject_fraction: f64,
}

/// Who is told how far a run is.
pub trait Progress: Send + Sync {
    /// A step begins with `rows` to make; 0 where that is not known.
    fn started(&self, step: &str, rows: usize);
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

impl Runner {
    /// Runs the step at `index`, with all that repeats with it, unless it is complete.
    ///
    /// # Errors
    /// Where it fails; what was committed stays.
    pub async fn run(&self, index: usize) -> Result<Vec<Outcome>> {
        let last = self.plan.steps[index].repeats_to.unwrap_or(index);
        let steps = &self.plan.steps[index..=last];
        let mut outcomes = Vec::new();
        let mut stale = false;
        for step in steps {
            let reason = self.why(step).await?;
            stale |= reason.is_some();
            outcomes.push(Outcome {
                step: step.table.name.clone(),
                skipped: reason.is_none(),
                reason: reason.unwrap_or_else(|| "it is up to date".into()),
                rows: 0,
                rejects: 0,
                seconds: 0.0,
            });
        }
        if stale {
            self.repeat(steps, &mut outcomes).await?;
        }
        for outcome in &outcomes {
            self.progress.ended(outcome);
        }
        Ok(outcomes)
    }

    /// Why `step` has to run; `None` where it is complete and nothing that it is made from has changed.
    ///
    /// # Errors
    /// Where the lake cannot be read.
    pub async fn why(&self, step: &Step) -> Result<Option<String>> {
        why(&self.session, &self.own_tables, step).await
    }

    /// Runs `steps`, the first again and again where others repeat with it, until its rows stay.
    async fn repeat(&self, steps: &[Step], outcomes: &mut [Outcome]) -> Result<()> {
        let Some((first, rest)) = steps.split_first() else {
            return Ok(());
        };
        let mut previous = None;
        for _ in 0..MAX_ROUNDS {
            let started = Instant::now();
            match self.make(first, rest.is_empty(), &previous).await? {
                None => return self.complete(steps, outcomes).await,
                Some((done, files)) => {
                    note(&mut outcomes[0], done, matches!(first.table.kind, Kind::Chosen), started);
                    if rest.is_empty() {
                        return self.complete(steps, outcomes).await;
                    }
                    previous = Some(files);
                }
            }
            for (step, outcome) in rest.iter().zip(outcomes.iter_mut().skip(1)) {
                let started = Instant::now();
                if let Some((done, _)) = self.make(step, true, &None).await? {
                    note(outcome, done, matches!(step.table.kind, Kind::Chosen), started);
                }
            }
        }
        Err(Error::Query {
            query: first.query.name.clone(),
            message: format!("its rows still change after {MAX_ROUNDS} rounds"),
        })
    }

    /// Makes the rows of one step. `None` where they are those that the file names `previous` say.
    async fn make(
        &self,
        step: &Step,
        complete: bool,
        previous: &Option<Vec<String>>,
    ) -> Result<Option<(Done, Vec<String>)>> {
        match step.table.kind {
            Kind::Accumulated { over, id, sources_per_unit } => {
                let how = Accumulation { over, id, sources_per_unit };
                Ok(Some((accumulate::run(self, step, how).await?, Vec::new())))
            }
            _ => {
                let snapshot = self.session.snapshot(&self.own_tables).await?;
                let context = self.session.context(&snapshot, &Arc::default())?;
                let files = choose::files(&context, step).await?;
                let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
                if previous.as_ref() == Some(&names) {
                    return Ok(None);
                }
                let rows = files.iter().map(|file| file.rows).sum();
                // a step of a loop is complete when the loop is
                let fingerprint = if complete { step.fingerprint.value } else { 0 };
                self.session.lake().replace(&step.table, &files, fingerprint).await?;
                Ok(Some((Done { rows, rejects: 0 }, names)))
            }
        }
    }

    /// Marks `steps` as complete, in the ledger and in their tables.
    async fn complete(&self, steps: &[Step], outcomes: &[Outcome]) -> Result<()> {
        let lake = self.session.lake();
        let ledger = journal::ledger_table()?;
        for (step, outcome) in steps.iter().zip(outcomes) {
            let fingerprint = &step.fingerprint;
            let entry =
                Entry { rows: outcome.rows, rejects: outcome.rejects, seconds: outcome.seconds, ..Entry::default() };
            let row = journal::ledger_row(&step.table.name, fingerprint.value, Some(&fingerprint.parts), &entry)?;
            let unit = format!("{}/complete/{:016x}", step.table.name, fingerprint.value);
            let file = DataFile::write(&format!("{:016x}", fingerprint.value), &ledger.schema, &[row])?;
            lake.append(ledger, &[UnitFiles { unit, files: vec![file] }]).await?;
            lake.complete(&step.table, fingerprint.value).await?;
        }
        Ok(())
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

/// Why `step` has to run; `None` where it is complete.
///
/// # Errors
/// Where the lake cannot be read.
pub async fn why(session: &Session, own: &[Table], step: &Step) -> Result<Option<String>> {
    let found = match session.lake().fingerprint(&step.table).await? {
        Some(found) if found == step.fingerprint.value => return Ok(None),
        Some(found) => found,
        None if session.lake().load(&step.table).await?.is_some() => {
            return Ok(Some("it is not complete".into()));
        }
        None => return Ok(Some("it was never made".into())),
    };
    let old = recorded_parts(session, own, &step.table.name, found).await?;
    Ok(Some(match old {
        Some(old) => format!("changed: {}", changes(&old, &step.fingerprint.parts)),
        None => "what it is made from has changed".into(),
    }))
}

async fn recorded_parts(
    session: &Session,
    own: &[Table],
    step: &str,
    fingerprint: i64,
) -> Result<Option<BTreeMap<String, String>>> {
    use datafusion::prelude::{col, lit};
    let fail = |error| Error::query(schema::LEDGER, error);
    let context = session.context(&session.snapshot(own).await?, &Arc::default())?;
    let rows = context.table(schema::LEDGER).await.map_err(fail)?;
    let wanted = col("step")
        .eq(lit(step))
        .and(col("fingerprint").eq(lit(format!("{fingerprint:016x}"))))
        .and(col("parts").is_not_null());
    let found = rows.filter(wanted).and_then(|rows| rows.select_columns(&["parts"])).map_err(fail)?;
    let batches = found.collect().await.map_err(fail)?;
    let texts = batches.iter().map(|batch| rows::text_column(batch, "parts"));
    Ok(texts
        .flat_map(|texts| texts.iter().flatten().map(str::to_owned).collect::<Vec<_>>())
        .find_map(|text| serde_json::from_str(&text).ok()))
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let said: Vec<_> = changed
        .map(|name| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if name.starts_with('$') && name != "$generator" && name != "$clip" => {
                format!("`{name}` from {old} to {new}")
            }
            _ => name.trim_start_matches('$').to_owned(),
        })
        .collect();
    said.join(", ")
}
