//! The rows of every epoch, as the pipeline's own queries choose them, for any strategy.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};

use super::dataset::Task;
use crate::{
    error::{Error, Result},
    pipeline::Pipeline,
    plan,
    plan::catalogue::Parameter,
    schema,
    session::{self, Snapshot},
};

/// The rows of a task, epoch by epoch.
pub(super) type Epochs = Vec<Vec<usize>>;

/// Asks the queries of a pipeline with other parameters, and with tables in memory in the place of its own.
pub(super) struct Questions<'a> {
    pipeline: &'a Pipeline,
    pub(super) snapshot: Snapshot,
}

impl<'a> Questions<'a> {
    /// On the tables as they are now.
    ///
    /// # Errors
    /// Where the lake cannot be read.
    pub(super) async fn new(pipeline: &'a Pipeline) -> Result<Self> {
        Ok(Self { pipeline, snapshot: pipeline.session.snapshot(&pipeline.own_tables).await? })
    }

    /// The rows of the query at `path`, with these parameters in place of the pipeline's.
    ///
    /// # Errors
    /// Where it fails.
    pub(super) async fn ask(&self, path: &str, changes: &[(&str, Parameter)]) -> Result<Vec<RecordBatch>> {
        let mut parameters = self.pipeline.plan.parameters.clone();
        parameters.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let context = self.pipeline.session.context(&self.snapshot, &Arc::default())?;
        let statement = self.pipeline.catalogue.get(path)?.bind(&parameters)?;
        let rows = session::query(&context, path, &statement).await?;
        rows.collect().await.map_err(|error| Error::query(path, error))
    }

    /// Puts rows in the place of a built-in table.
    ///
    /// # Errors
    /// Where they have other columns.
    pub(super) fn put(&mut self, table: &str, rows: &[RecordBatch]) -> Result<()> {
        let found = schema::find(table).ok_or_else(|| Error::Data(format!("no schema of `{table}`")))?;
        let rows = schema::conform::conform_batches(table, rows, &found.schema)?;
        self.snapshot.set(table, Arc::clone(&found.schema), rows)
    }

    /// The epochs of each strategy by its name; of `fixed`, of each level as `fixed_<level>`, the real images (100)
    /// among them.
    ///
    /// # Errors
    /// Where a query fails, or an epoch has no rows.
    pub(super) async fn manifests(&mut self, task: &Task, strategies: &[String]) -> Result<BTreeMap<String, Epochs>> {
        let mut schedules = Vec::new();
        for strategy in strategies.iter().filter(|strategy| *strategy != "adaptive") {
            let path = plan::curriculum_query(strategy);
            let levels = &self.pipeline.config.spectrum.image_guidance;
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
                schedules.extend(self.ask(&path, &changes).await?);
            }
        }
        self.put("schedule", &schedules)?;
        let rows = self.ask(&self.pipeline.config.curriculum.manifest, &[]).await?;
        let epochs = usize::try_from(self.pipeline.config.curriculum.epochs).unwrap_or_default();
        by_epoch(&rows, task, epochs)
    }

    /// Real images for the epochs of the curriculum, `size` of them or all, drawn anew for each.
    ///
    /// # Errors
    /// Where the query fails.
    pub(super) async fn real_images(&self, task: &Task, size: i64) -> Result<Epochs> {
        let trials = Parameter::Texts(vec!["0".into()]);
        let changes =
            [("probe_size", Parameter::Integer(size)), ("trials", trials), ("strategy", Parameter::Text("0".into()))];
        let rows = self.ask("probe/real.sql", &changes).await?;
        let epochs = usize::try_from(self.pipeline.config.curriculum.curriculum_epochs).unwrap_or_default();
        Ok(by_epoch(&rows, task, epochs)?.remove("0").unwrap_or_default())
    }
}

/// The level of the real images.
pub(super) const REAL: i64 = 100;

/// What the strategy `fixed` is called at a level.
pub(super) fn fixed(level: i64) -> String {
    format!("fixed_{level}")
}

/// Rows of a manifest as rows of the task: by curriculum, epoch and position.
fn by_epoch(batches: &[RecordBatch], task: &Task, epochs: usize) -> Result<BTreeMap<String, Epochs>> {
    let mut placed: BTreeMap<String, Vec<Vec<(i64, usize)>>> = BTreeMap::new();
    for batch in batches {
        let column = |name: &str, to: DataType| {
            let found = batch.column_by_name(name).and_then(|column| cast(column, &to).ok());
            found.ok_or_else(|| Error::Data(format!("a manifest has no column `{name}` of {to}s")))
        };
        let curricula = column("curriculum", DataType::Utf8)?;
        let samples = column("sample_id", DataType::Utf8)?;
        let (at, positions) = (column("epoch", DataType::Int64)?, column("position", DataType::Int64)?);
        for row in 0..batch.num_rows() {
            let sample = samples.as_string::<i32>().value(row);
            let Some(&place) = task.rows.get(sample) else {
                return Err(Error::Data(format!("a manifest has the row `{sample}`, whose image is not there")));
            };
            let curriculum = curricula.as_string::<i32>().value(row);
            if !placed.contains_key(curriculum) {
                placed.insert(curriculum.to_owned(), vec![Vec::new(); epochs]);
            }
            let epoch = usize::try_from(at.as_primitive::<Int64Type>().value(row)).unwrap_or(usize::MAX);
            if let Some(rows) = placed.get_mut(curriculum).and_then(|all| all.get_mut(epoch)) {
                rows.push((positions.as_primitive::<Int64Type>().value(row), place));
            }
        }
    }
    placed
        .into_iter()
        .map(|(curriculum, epochs)| {
            if let Some(empty) = epochs.iter().position(Vec::is_empty) {
                return Err(Error::Data(format!("epoch {empty} of `{curriculum}` has no rows to train on")));
            }
            let sorted = epochs.into_iter().map(|mut rows| {
                rows.sort_unstable();
                rows.into_iter().map(|(_, row)| row).collect()
            });
            Ok((curriculum, sorted.collect()))
        })
        .collect()
}
