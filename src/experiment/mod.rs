//! What a curriculum is worth: the built-in learner, trained along strategies and baselines with one budget.
//!
//! For each split of the data the pipeline is run under a name of its own; then every method trains as many learners
//! as there are seeds. All of them see as many batches of as many images, and the same real images in the epochs
//! after the curriculum. What has to be chosen (the level of `fixed`) is chosen on the validation images of the split.

mod adaptive;
mod confidences;
mod dataset;
mod learner;
mod manifests;
mod methods;
mod summary;
mod train;

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    error::ArrowError,
};

pub use adaptive::Stage;
pub use confidences::confidences;
pub use summary::Summary;

use crate::{
    config::{Config, DataSplit, Split},
    error::{Diagnostic, Diagnostics, Error, Result},
    experiment::learner::Architecture,
    lake::{DataFile, Lake},
    pipeline::{self, Pipeline},
    run::{self, Progress},
    schema,
};

/// A measure of one learner.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The network.
    pub architecture: String,
    /// A strategy's name, or a baseline's.
    pub method: String,
    /// What was minimised.
    pub loss: String,
    /// How rows were drawn.
    pub sampling: String,
    /// The seed of the split.
    pub split_seed: i64,
    /// The seed of the first weights and of what the learner draws.
    pub learner_seed: i64,
    /// `many`, `medium`, `few`, `overall`, `worst_k` or `macro_f1` on the test images, or one of them after
    /// `shifted_` on the shifted ones.
    pub metric: String,
    /// Its value in percent.
    pub value: f64,
}

/// A level that was chosen for `fixed` on validation images.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChosenLevel {
    /// The network.
    pub architecture: String,
    /// The seed of the split.
    pub split_seed: i64,
    /// Percent of the real image kept.
    pub image_guidance: i64,
}

/// What came of an experiment.
#[derive(Debug, Default)]
pub struct Findings {
    /// Every measure of every learner.
    pub measured: Vec<Measured>,
    /// The levels of `fixed`.
    pub fixed_levels: Vec<ChosenLevel>,
    /// What adaptive curricula chose.
    pub stages: Vec<Stage>,
}

/// Runs the experiment of the pipeline file at `path`, and replaces the table `experiments` by what came of it. `note`
/// is told how far it is.
///
/// # Errors
/// Where the pipeline cannot be run for a split, or a learner cannot be trained.
pub async fn run(
    path: &Path,
    options: &pipeline::Options,
    progress: &dyn Progress,
    note: impl Fn(&str),
) -> Result<(Findings, Summary)> {
    let config = Config::load(path, &options.set)?;
    check(path, &config)?;
    let mut findings = Findings::default();
    let own = [DataSplit { seed: 0, set: Vec::new() }];
    let splits = if config.experiment.splits.is_empty() { &own[..] } else { &config.experiment.splits };
    for split in splits {
        let pipeline = open(path, &config, options, split).await?;
        note(&format!("split {}: `{}`", split.seed, pipeline.project.config.name));
        run::run(&pipeline, &run::Options::default(), progress).await?;
        let task = dataset::Task::load(&pipeline.project).await?;
        let found = train::split(&pipeline.project, &task, split.seed, &note).await?;
        findings.measured.extend(found.measured);
        findings.fixed_levels.extend(found.fixed_levels);
        findings.stages.extend(found.stages);
    }
    keep(&config, options, &findings.measured).await?;
    let summary = Summary::new(&findings.measured, &config.curriculum.strategy)?;
    Ok((findings, summary))
}

/// What some strategies need, which a pipeline that only runs does not.
fn check(path: &Path, config: &Config) -> Result<()> {
    let mut problems = Vec::new();
    let mut refuse = |key: &str, message: &str| {
        let (file, key, message) = (path.display().to_string(), key.to_owned(), message.to_owned());
        problems.push(Diagnostic { file, line: None, key, message, help: None });
    };
    let has = |name: &str| config.experiment.strategies.iter().any(|strategy| strategy == name);
    if has("text_only") && !config.spectrum.image_guidance.contains(&0) {
        refuse("experiment.strategies", "found `text_only`, which needs 0 in `spectrum.image_guidance`");
    }
    if has(adaptive::NAME) && (config.curriculum.probe_size == 0 || config.validation.sources == 0) {
        let message = "found `adaptive`, which needs `curriculum.probe_size` and `validation.sources` above 0";
        refuse("experiment.strategies", message);
    }
    if has("fixed") && !config.source.splits.iter().any(|(split, _)| *split == Split::Validation) {
        refuse("source.splits.validation", "missing, and the strategy `fixed` needs it: its level is chosen there");
    }
    if !config.source.splits.iter().any(|(split, _)| *split == Split::Test) {
        refuse("source.splits.test", "missing, and an experiment needs it: methods are judged there");
    }
    if problems.is_empty() { Ok(()) } else { Err(Diagnostics::from(problems).into()) }
}

/// The pipeline of a split. Where it is edited its name is too, so that the tables of splits stand side by side.
async fn open(path: &Path, config: &Config, options: &pipeline::Options, split: &DataSplit) -> Result<Pipeline> {
    let mut options = options.clone();
    if !split.set.is_empty() {
        options.set.push(format!("name={}_split_{}", config.name, split.seed));
        options.set.extend(split.set.iter().cloned());
    }
    Pipeline::open(path, &options).await
}

/// Replaces the table `experiments`.
async fn keep(config: &Config, options: &pipeline::Options, measured: &[Measured]) -> Result<()> {
    let table = schema::find(schema::EXPERIMENTS).ok_or_else(|| Error::Data("no schema of `experiments`".into()))?;
    let rows = batch(measured, Arc::clone(&table.schema)).map_err(|error| Error::query(&table.name, error.into()))?;
    let file = DataFile::write("rows", &table.schema, &[rows])?;
    let lake = Lake::open(options.lake.as_deref().unwrap_or(&config.lake_root), &config.name)?;
    loop {
        let base = lake.read(table).await?.map(|reading| reading.version);
        if lake.replace(table, std::slice::from_ref(&file), None, base).await? {
            return Ok(());
        }
    }
}

fn batch(measured: &[Measured], schema: arrow::datatypes::SchemaRef) -> Result<RecordBatch, ArrowError> {
    let text = |of: fn(&Measured) -> &str| -> ArrayRef {
        Arc::new(measured.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let integer = |of: fn(&Measured) -> i64| -> ArrayRef { Arc::new(measured.iter().map(of).collect::<Int64Array>()) };
    let columns = vec![
        text(|row| &row.architecture),
        text(|row| &row.method),
        text(|row| &row.loss),
        text(|row| &row.sampling),
        integer(|row| row.split_seed),
        integer(|row| row.learner_seed),
        text(|row| &row.metric),
        Arc::new(measured.iter().map(|row| row.value).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema, columns)
}

/// The networks that a pipeline compares.
fn architectures(config: &Config) -> Result<Vec<Architecture>> {
    config.learner.architectures.iter().map(|name| Ok(name.parse::<Architecture>()?)).collect()
}
