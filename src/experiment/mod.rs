//! Measures what a curriculum is worth: trains the built-in learner with strategies and baselines on one budget.
//!
//! For each split of the data the pipeline is run under its own name. Then every method trains one learner for each
//! seed, which is a separate trial. All learners see equally many batches of equal size, and real images only in the
//! epochs after the curriculum. The level of `fixed` is chosen on the validation images of the split.

mod adaptive;
mod budget;
mod confidences;
mod dataset;
mod error;
mod learner;
mod manifests;
mod methods;
mod rows;
mod summary;
mod train;

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::SchemaRef,
    error::ArrowError,
};

pub(crate) use self::{adaptive::LevelGain, confidences::confidences, summary::Summary};

use self::{
    error::ExperimentError,
    learner::Architecture,
    methods::{BASELINES, Compared, FIXED},
    train::Training,
};
use crate::{
    config::{Config, DataSplit, Split},
    error::{Diagnostic, Diagnostics, Result},
    lake::{DataFile, Lake},
    pipeline::{self, Pipeline, Project},
    run::{self, Progress},
    schema,
};

/// What one learner reached in one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measurement {
    architecture: String,
    /// The name of a baseline, or of a strategy and, if it is not cross-entropy, the loss: `random+balanced_softmax`.
    method: String,
    loss: String,
    sampling: String,
    split_seed: i64,
    /// The seed of the initial weights and of the learner's random draws.
    learner_seed: i64,
    /// `many`, `medium`, `few`, `overall`, `worst_k`, `macro_f1` or `macro_f1_all` on the test images. With the prefix
    /// `shifted_`, the same on the shifted test images.
    metric: String,
    /// In percent.
    value: f64,
}

/// The level that was chosen for `fixed` on the validation images of a split.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ChosenLevel {
    pub(crate) architecture: String,
    /// `fixed`, and the loss if it is not cross-entropy.
    pub(crate) method: String,
    pub(crate) split_seed: i64,
    /// The level: the percentage of the real image that is kept.
    pub(crate) image_guidance: i64,
}

/// The results of an experiment.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) measurements: Vec<Measurement>,
    /// The levels of `fixed`.
    pub(crate) fixed_levels: Vec<ChosenLevel>,
    /// What adaptive curricula chose from.
    pub(crate) gains: Vec<LevelGain>,
}

/// Runs the experiment of the pipeline file at `path`, replaces the table `experiments` with its results, and writes them
/// to the CSV file `rows`. `note` receives messages about the progress.
///
/// # Errors
/// Returns an error if the pipeline cannot be run for a split, if a strategy lacks what it needs, if a learner cannot be
/// trained, or if the file cannot be written. What can be known before any work is reported before it.
pub(crate) async fn run(
    path: &Path,
    options: &pipeline::Options,
    rows: Option<&Path>,
    progress: &dyn Progress,
    note: impl Fn(&str),
) -> Result<(Findings, Summary)> {
    let config = Config::load(path, &options.set)?;
    let unedited = [DataSplit { seed: 0, set: Vec::new() }];
    let splits = if config.experiment.splits.is_empty() { &unedited[..] } else { &config.experiment.splits };
    for split in splits {
        check(path, &Project::open(path, &edited(&config, options, split)).await?)?;
    }
    rows.map_or(Ok(()), rows::check)?;
    let mut tasks = Vec::new();
    for split in splits {
        let pipeline = Pipeline::open(path, &edited(&config, options, split)).await?;
        note(&format!("split {}: `{}`", split.seed, pipeline.project.config.name));
        run::run(&pipeline, &run::Options::default(), progress).await?;
        let task = dataset::Task::load(&pipeline.project).await?;
        train::check(&pipeline.project, &task, split.seed).await?;
        tasks.push(task);
    }
    let mut findings = Findings::default();
    for (split, task) in splits.iter().zip(&tasks) {
        // It is opened again, so that models that have generated images for other splits are not in memory any more.
        let pipeline = Pipeline::open(path, &edited(&config, options, split)).await?;
        let found = Training::new(&pipeline.project, task, split.seed, &note)?.run().await?;
        findings.measurements.extend(found.measurements);
        findings.fixed_levels.extend(found.fixed_levels);
        findings.gains.extend(found.gains);
    }
    save(&config, options, &findings.measurements).await?;
    rows.map_or(Ok(()), |file| rows::write(file, &findings))?;
    let summary = Summary::new(&findings.measurements, &config.curriculum.strategy)?;
    Ok((findings, summary))
}

/// Checks what an experiment needs and `run` does not.
fn check(path: &Path, project: &Project) -> Result<()> {
    let (config, compared) = (&project.config, Compared::new(project)?);
    let mut problems = Vec::new();
    let mut reject = |key: &str, message: &str| {
        let (file, key, message) = (path.display().to_string(), key.to_owned(), message.to_owned());
        problems.push(Diagnostic { file, line: None, key, message, help: None });
    };
    if let Some(name) = compared.strategies.iter().find(|name| BASELINES.contains(&name.as_str())) {
        let message = format!("found `{name}`, which is the name of a baseline that is always trained");
        reject("experiment.strategies", &message);
    }
    if compared.has("text_only") && !config.curriculum.levels.contains(&0) {
        reject("experiment.strategies", "found `text_only`, which needs 0 in `curriculum.levels`");
    }
    if let Some(name) = compared.first_adaptive()
        && (config.curriculum.probe_size == 0 || config.validation.sources == 0)
    {
        let message = format!("found `{name}`, which needs `curriculum.probe_size` and `validation.sources` above 0");
        reject("experiment.strategies", &message);
    }
    if compared.has(FIXED) && !config.source.splits.has(Split::Validation) {
        reject("source.splits.validation", "missing, and the strategy `fixed` needs it: its level is chosen there");
    }
    if !config.source.splits.has(Split::Test) {
        reject("source.splits.test", "missing, and an experiment needs it: methods are judged there");
    }
    if problems.is_empty() { Ok(()) } else { Err(Diagnostics::from(problems).into()) }
}

/// Returns the options that open the pipeline of a split. If the split edits the pipeline, its name gets a suffix, so that
/// each split has its own tables.
fn edited(config: &Config, options: &pipeline::Options, split: &DataSplit) -> pipeline::Options {
    let mut options = options.clone();
    if !split.set.is_empty() {
        options.set.push(format!("name={}_split_{}", config.name, split.seed));
        options.set.extend(split.set.iter().cloned());
    }
    options
}

/// Replaces the table `experiments`.
async fn save(config: &Config, options: &pipeline::Options, measurements: &[Measurement]) -> Result<()> {
    let table = &*schema::EXPERIMENTS_TABLE;
    let rows = batch(measurements, Arc::clone(&table.schema))
        .map_err(|source| ExperimentError::Columns { table: schema::EXPERIMENTS, source })?;
    let file = DataFile::write("rows", &table.schema, &[rows])?;
    let lake = Lake::open(options.lake.as_deref().unwrap_or(&config.lake_root), &config.name)?;
    loop {
        let base = lake.read(table).await?.map(|reading| reading.version);
        if lake.replace(table, std::slice::from_ref(&file), None, base).await? {
            return Ok(());
        }
    }
}

fn batch(measurements: &[Measurement], schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
    let text = |of: fn(&Measurement) -> &str| -> ArrayRef {
        Arc::new(measurements.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let integer =
        |of: fn(&Measurement) -> i64| -> ArrayRef { Arc::new(measurements.iter().map(of).collect::<Int64Array>()) };
    let columns = vec![
        text(|row| &row.architecture),
        text(|row| &row.method),
        text(|row| &row.loss),
        text(|row| &row.sampling),
        integer(|row| row.split_seed),
        integer(|row| row.learner_seed),
        text(|row| &row.metric),
        Arc::new(measurements.iter().map(|row| row.value).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema, columns)
}

/// Returns the networks that a pipeline compares.
fn architectures(config: &Config) -> Result<Vec<Architecture>> {
    config.learner.architectures.iter().map(|name| Ok(name.parse::<Architecture>()?)).collect()
}
