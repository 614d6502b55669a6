//! The rows of every epoch for any strategy, chosen by the pipeline's own queries.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::RecordBatch;

use super::{dataset::Task, error::ExperimentError};
use crate::{
    error::Result,
    pipeline::Project,
    plan::{self, catalogue::Parameter},
    schema::{self, columns::Answer},
    session::Snapshot,
};

/// Rows of a task, epoch by epoch.
pub(super) type Epochs = Vec<Vec<usize>>;

/// Runs the queries of a pipeline with other parameters, and with tables in memory in place of its own.
///
/// Each learner is a separate trial, named by its seed.
pub(super) struct Queries<'a> {
    project: &'a Project,
    snapshot: Snapshot,
}

impl<'a> Queries<'a> {
    /// Takes a snapshot of the pipeline's tables.
    ///
    /// # Errors
    /// Returns an error if the lake cannot be read.
    pub(super) async fn new(project: &'a Project) -> Result<Self> {
        Ok(Self { project, snapshot: project.session.snapshot().await? })
    }

    /// Runs the query at `path` for the learners of a strategy, with `changes` in place of the pipeline's parameters.
    ///
    /// # Errors
    /// Returns an error if it fails.
    pub(super) async fn query(&self, path: &str, strategy: &str, changes: &[(&str, Parameter)]) -> Result<Answer> {
        let seeds = 0..self.project.config.experiment.learner_seeds;
        let trials = Parameter::Texts(seeds.map(|seed| seed.to_string()).collect());
        let mut all = vec![("strategy", Parameter::Text(strategy.to_owned())), ("trials", trials)];
        all.extend_from_slice(changes);
        self.project.query_on(&self.snapshot, path, &all).await
    }

    /// Replaces the built-in table `name`.
    ///
    /// # Errors
    /// Returns an error if the rows have other columns.
    pub(super) fn put(&mut self, name: &str, rows: &[RecordBatch]) -> Result<()> {
        let Some(table) = schema::find(name) else { return Ok(()) };
        let rows = schema::conform::conform_batches(name, rows, &table.schema)?;
        self.snapshot.set(name, Arc::clone(&table.schema), rows)
    }

    /// Computes the schedule of a strategy. `level` is for `fixed`.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    pub(super) async fn schedule(&self, strategy: &str, level: Option<i64>) -> Result<Answer> {
        let level = level.map_or(Parameter::Null, Parameter::Integer);
        self.query(&plan::schedule_query(strategy), strategy, &[("level", level)]).await
    }

    /// Computes the manifests of a strategy with this schedule, one for each learner. An epoch that the schedule does not
    /// have is empty.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    pub(super) async fn manifests(&mut self, task: &Task, strategy: &str, schedule: &Answer) -> Result<Vec<Epochs>> {
        self.put(schema::SCHEDULE, &schedule.batches)?;
        let rows = self.query(&self.project.config.curriculum.manifest, strategy, &[]).await?;
        self.by_learner(&rows, task)
    }

    /// Draws `curriculum.probe_size` real images for each learner and each epoch of the curriculum, or all if there are
    /// fewer.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    pub(super) async fn probes(&self, task: &Task, strategy: &str) -> Result<Vec<Epochs>> {
        self.by_learner(&self.query("probe/real.sql", strategy, &[]).await?, task)
    }

    /// Returns the rows of a manifest as rows of the task, by learner and epoch, in the order of their positions. If
    /// there is one trial alone, it is that of every learner.
    fn by_learner(&self, answer: &Answer, task: &Task) -> Result<Vec<Epochs>> {
        let count = |value: i64| usize::try_from(value).unwrap_or_default();
        let epochs = count(self.project.config.curriculum.epochs);
        let mut trials: BTreeMap<String, Vec<Vec<(i64, usize)>>> = BTreeMap::new();
        for columns in answer.columns() {
            let (names, samples) = (columns.strings("trial")?, columns.strings("sample_id")?);
            let (numbers, positions) = (columns.integers("epoch")?, columns.integers("position")?);
            for row in 0..columns.rows() {
                let sample = samples.value(row);
                let Some(&task_row) = task.rows.get(sample) else {
                    return Err(ExperimentError::NoImage { sample: sample.to_owned() }.into());
                };
                if !trials.contains_key(names.value(row)) {
                    trials.insert(names.value(row).to_owned(), vec![Vec::new(); epochs]);
                }
                let epoch = usize::try_from(numbers.value(row)).unwrap_or(usize::MAX);
                if let Some(rows) = trials.get_mut(names.value(row)).and_then(|all| all.get_mut(epoch)) {
                    rows.push((positions.value(row), task_row));
                }
            }
        }
        let mut trials: BTreeMap<String, Epochs> = trials.into_iter().map(|(name, all)| (name, sorted(all))).collect();
        let only = if trials.len() == 1 { trials.pop_first().map(|(_, epochs)| epochs) } else { None };
        let learners = 0..self.project.config.experiment.learner_seeds;
        let of = |seed: i64| trials.remove(&seed.to_string()).or_else(|| only.clone());
        Ok(learners.map(of).map(|found| found.unwrap_or_else(|| vec![Vec::new(); epochs])).collect())
    }
}

/// Orders the rows of each epoch by their positions.
fn sorted(epochs: Vec<Vec<(i64, usize)>>) -> Epochs {
    let sorted = epochs.into_iter().map(|mut rows| {
        rows.sort_unstable();
        rows.into_iter().map(|(_, row)| row).collect()
    });
    sorted.collect()
}

/// Returns the levels of a schedule by trial and epoch.
pub(super) fn levels(schedule: &Answer) -> Result<BTreeMap<(String, i64), BTreeSet<i64>>> {
    let mut found: BTreeMap<(String, i64), BTreeSet<i64>> = BTreeMap::new();
    for columns in schedule.columns() {
        let (trials, epochs) = (columns.strings("trial")?, columns.integers("epoch")?);
        let levels = columns.integers("image_guidance")?;
        for row in 0..columns.rows() {
            found.entry((trials.value(row).to_owned(), epochs.value(row))).or_default().insert(levels.value(row));
        }
    }
    Ok(found)
}
