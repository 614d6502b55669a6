//! The rows of every epoch for any strategy, chosen by the pipeline's own queries.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;

use super::{dataset::Task, error::ExperimentError};
use crate::{
    error::Result,
    pipeline::Project,
    plan::{self, catalogue::Parameter},
    schema::{self, Table, columns::Answer},
    session::Snapshot,
};

/// Rows of a task, epoch by epoch.
pub(super) type Epochs = Vec<Vec<usize>>;

/// Runs the queries of a pipeline with other parameters, and with tables in memory in place of its own.
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

    /// Runs the query at `path`, with `changes` in place of the pipeline's parameters.
    ///
    /// # Errors
    /// Returns an error if it fails.
    pub(super) async fn query(&self, path: &str, changes: &[(&str, Parameter)]) -> Result<Answer> {
        self.project.query_on(&self.snapshot, path, changes).await
    }

    /// Replaces a built-in table.
    ///
    /// # Errors
    /// Returns an error if the rows have other columns.
    pub(super) fn put(&mut self, table: &Table, rows: &[RecordBatch]) -> Result<()> {
        let rows = schema::conform::conform_batches(&table.name, rows, &table.schema)?;
        self.snapshot.set(&table.name, Arc::clone(&table.schema), rows)
    }

    /// Returns the epochs of each strategy by its name. `fixed` has an entry `fixed_<level>` for each level and for the
    /// real images (100).
    ///
    /// # Errors
    /// Returns an error if a query fails, or if an epoch has no rows.
    pub(super) async fn manifests(&mut self, task: &Task, strategies: &[String]) -> Result<BTreeMap<String, Epochs>> {
        let mut schedules = Vec::new();
        for strategy in strategies.iter().filter(|strategy| *strategy != "adaptive") {
            let path = plan::schedule_query(strategy);
            let levels = &self.project.config.spectrum.image_guidance;
            let named: Vec<(String, Parameter)> = match strategy.as_str() {
                "fixed" => {
                    let levels = levels.iter().copied().chain([REAL]);
                    levels.map(|level| (fixed(level), Parameter::Integer(level))).collect()
                }
                _ => vec![(strategy.clone(), Parameter::Null)],
            };
            for (name, level) in named {
                let trials = Parameter::Texts(vec!["0".into()]);
                let changes = [("strategy", Parameter::Text(name)), ("level", level), ("trials", trials)];
                schedules.extend(self.query(&path, &changes).await?.batches);
            }
        }
        if let Some(schedule) = schema::find(schema::SCHEDULE) {
            self.put(schedule, &schedules)?;
        }
        let rows = self.query(&self.project.config.curriculum.manifest, &[]).await?;
        let epochs = usize::try_from(self.project.config.curriculum.epochs).unwrap_or_default();
        by_epoch(&rows, task, epochs)
    }

    /// Draws real images for each epoch of the curriculum: `size` of them, or all if there are fewer.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    pub(super) async fn real_images(&self, task: &Task, size: i64) -> Result<Epochs> {
        let trials = Parameter::Texts(vec!["0".into()]);
        let changes =
            [("probe_size", Parameter::Integer(size)), ("trials", trials), ("strategy", Parameter::Text("0".into()))];
        let rows = self.query("probe/real.sql", &changes).await?;
        let epochs = usize::try_from(self.project.config.curriculum.curriculum_epochs).unwrap_or_default();
        Ok(by_epoch(&rows, task, epochs)?.remove("0").unwrap_or_default())
    }
}

/// The level of the real images.
pub(super) const REAL: i64 = 100;

/// Returns the name of the strategy `fixed` at a level.
pub(super) fn fixed(level: i64) -> String {
    format!("fixed_{level}")
}

/// Returns the rows of a manifest as rows of the task, by curriculum and epoch, in the order of their positions.
fn by_epoch(answer: &Answer, task: &Task, epochs: usize) -> Result<BTreeMap<String, Epochs>> {
    let mut curricula_rows: BTreeMap<String, Vec<Vec<(i64, usize)>>> = BTreeMap::new();
    for columns in answer.columns() {
        let (curricula, samples) = (columns.strings("curriculum")?, columns.strings("sample_id")?);
        let (numbers, positions) = (columns.integers("epoch")?, columns.integers("position")?);
        for row in 0..columns.rows() {
            let sample = samples.value(row);
            let Some(&task_row) = task.rows.get(sample) else {
                return Err(ExperimentError::NoImage { sample: sample.to_owned() }.into());
            };
            let curriculum = curricula.value(row);
            if !curricula_rows.contains_key(curriculum) {
                curricula_rows.insert(curriculum.to_owned(), vec![Vec::new(); epochs]);
            }
            let epoch = usize::try_from(numbers.value(row)).unwrap_or(usize::MAX);
            if let Some(rows) = curricula_rows.get_mut(curriculum).and_then(|all| all.get_mut(epoch)) {
                rows.push((positions.value(row), task_row));
            }
        }
    }
    curricula_rows
        .into_iter()
        .map(|(curriculum, epochs)| {
            if let Some(empty) = epochs.iter().position(Vec::is_empty) {
                return Err(ExperimentError::NoRows { epoch: empty, curriculum }.into());
            }
            let sorted = epochs.into_iter().map(|mut rows| {
                rows.sort_unstable();
                rows.into_iter().map(|(_, row)| row).collect()
            });
            Ok((curriculum, sorted.collect()))
        })
        .collect()
}
