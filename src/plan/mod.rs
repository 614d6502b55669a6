//! Compiles configuration and queries into steps, each with its bound query and its fingerprint. Reads nothing but the
//! files of `sql_dir`.
//!
//! A step's inputs are the tables that its query reads, its parameters are the placeholders that it names, its models are
//! the functions that it calls. Its fingerprint covers exactly these, by meaning: neither white space, nor a parameter
//! that it does not use, nor the folder of a model changes it.

pub(crate) mod catalogue;
mod parameters;
pub(crate) mod views;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::Statement;

pub(crate) use parameters::reader;

use self::{
    catalogue::{Catalogue, Parameter, Query},
    parameters::parameters,
};
use crate::{
    config::Config,
    error::{Error, Result, text},
    identity::Digest,
    schema::{self, Kind, Table},
};

/// Functions whose result depends on a model, each with the model that it calls.
const MODEL_FUNCTIONS: &[(&str, &str)] =
    &[("img2img", "generator"), ("clip_image", "clip"), ("clip_text", "clip"), ("classify", "classifiers")];

/// Functions that read the source.
const SOURCE_FUNCTIONS: &[&str] = &["read_image", "load_image"];

/// Parameters whose values come from the models.
const MODEL_PARAMETERS: &[&str] = &["generator", "clip", "scheduler", "unet_evaluations"];

/// The query that requests images.
const REQUEST: &str = "candidates/spectrum.sql";
/// The query that generates images.
const GENERATE: &str = "spectrum/img2img.sql";
/// The query that scores them.
const SCORE: &str = "scores/clip.sql";

/// Functions whose value depends on when they are called. No table may depend on that.
const MOMENTARY: &[&str] =
    &["random", "uuid", "now", "current_timestamp", "current_date", "current_time", "today", "localtimestamp"];

/// What a plan depends on besides the pipeline's file.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    /// Digests of everything outside of the file. `None` if neither source nor models were opened.
    pub(crate) outside: Option<Outside>,
    /// The state of the table `feedback` in the lake. Empty if it does not exist.
    pub(crate) feedback: String,
}

/// Digests of the source and the models.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outside {
    pub(crate) listing: String,
    pub(crate) descriptions: String,
    pub(crate) common_names: String,
    pub(crate) confidences: String,
    /// Of everything that determines an image except prompt, guidance and noise: model files and settings.
    pub(crate) generator: String,
    pub(crate) clip: String,
    /// Of the classifiers' names and files.
    pub(crate) classifiers: String,
    /// The name of the scheduler that the generator runs.
    pub(crate) scheduler: String,
    /// Evaluations of the UNet per image, for each level of image guidance of the pipeline.
    pub(crate) unet_evaluations: Vec<i64>,
}

impl Inputs {
    /// Returns the digests, or empty ones with which queries can still be planned.
    fn outside(&self) -> std::borrow::Cow<'_, Outside> {
        self.outside.as_ref().map_or_else(Default::default, std::borrow::Cow::Borrowed)
    }
}

/// Everything that a step depends on, and the number that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// The number that the table carries when the step is complete, never 0. `None` if only the parts that follow from
    /// the pipeline's file are known.
    pub(crate) value: Option<i64>,
    /// Each input, parameter and model by name.
    pub(crate) parts: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Returns the mark of a table that this step completed: 0, which means incomplete, if the fingerprint is not known.
    pub(crate) fn mark(&self) -> i64 {
        self.value.unwrap_or(0)
    }
}

/// A table and the query that fills it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The table. The columns of a user-defined `[[step]]` are known once its query is planned.
    pub(crate) table: Table,
    pub(crate) query: Query,
    /// The query with its parameters bound.
    pub(crate) statement: Statement,
    pub(crate) fingerprint: Fingerprint,
    /// If the query reads a later table: the index of the last step that is repeated with this one until its rows no
    /// longer change.
    pub(crate) repeats_to: Option<usize>,
}

impl Step {
    /// Whether its query calls a model.
    pub(crate) fn calls_models(&self) -> bool {
        calls_models(&self.query)
    }
}

fn calls_models(query: &Query) -> bool {
    MODEL_FUNCTIONS.iter().any(|(function, _)| query.functions.contains(*function))
}

/// Whether `query` can be answered from configuration and lake alone: it calls no model, reads neither the source nor an
/// input table, and no value of its parameters comes from a model.
pub(crate) fn needs_lake_alone(query: &Query) -> bool {
    let reads_inputs = query.tables.iter().any(|name| schema::find(name).is_some_and(|table| !table.is_stored()));
    let reads_source = SOURCE_FUNCTIONS.iter().any(|function| query.functions.contains(*function));
    let needs_models = MODEL_PARAMETERS.iter().any(|name| query.parameters.contains(*name));
    !calls_models(query) && !reads_inputs && !reads_source && !needs_models
}

/// A query that must return no rows, and the step after which it runs.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    pub(crate) name: String,
    /// What to do if it returns rows, for an expectation that comes with the program.
    pub(crate) hint: Option<&'static str>,
    pub(crate) statement: Statement,
    /// The index of the last step that it reads.
    pub(crate) after: usize,
}

/// The steps of a pipeline, in order.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) expectations: Vec<Expectation>,
    /// The values of all placeholders.
    pub(crate) parameters: BTreeMap<String, Parameter>,
}

impl Plan {
    /// Returns the step that fills the table `name`.
    pub(crate) fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.table.name == name)
    }
}

/// Returns the paths under `sql/` that the pipeline names: `sql_dir` may hold these in addition to replacements.
pub(crate) fn named_queries(config: &Config) -> Vec<String> {
    let built_in = schema::step_tables().map(|table| query_of(config, &table.name));
    let steps = config.steps.iter().map(|step| step.sql.clone());
    let compared = config.experiment.strategies.iter().map(|strategy| schedule_query(strategy));
    built_in.chain(steps).chain(compared).collect()
}

/// Returns the path of the query of a strategy.
pub(crate) fn schedule_query(strategy: &str) -> String {
    format!("schedule/{strategy}.sql")
}

/// Returns the path of the query that fills the built-in table `table`.
fn query_of(config: &Config, table: &str) -> String {
    match table {
        schema::PIXELS => config.source.sql.clone(),
        "images" => "images/all.sql".into(),
        schema::CLASSES => "classes/all.sql".into(),
        "hard_samples" => config.hard_samples.sql.clone(),
        "candidates" => REQUEST.into(),
        schema::SPECTRUM => GENERATE.into(),
        "scores" => SCORE.into(),
        schema::KEPT => config.filter.sql.clone(),
        "probe" => "probe/real.sql".into(),
        schema::PROGRESS => "progress/gain.sql".into(),
        schema::SCHEDULE => schedule_query(&config.curriculum.strategy),
        schema::MANIFEST => config.curriculum.manifest.clone(),
        _ => "validation/spectrum.sql".into(),
    }
}

/// Compiles the pipeline.
///
/// # Errors
/// Returns an error if a query does not exist, names an unknown parameter, or reads an unknown table.
pub(crate) fn compile(config: &Config, catalogue: &Catalogue, inputs: &Inputs) -> Result<Plan> {
    let outside = inputs.outside();
    let parameters = parameters(config, catalogue, &outside)?;
    check_settings_are_used(config, catalogue)?;
    for strategy in &config.experiment.strategies {
        catalogue.get(&schedule_query(strategy))?;
    }
    let tables = tables(config, catalogue)?;
    let order: Vec<String> = tables.iter().map(|(table, _)| table.name.clone()).collect();
    let mut fingerprints = Fingerprints::new(inputs);
    let mut steps = Vec::new();
    for (index, (table, query)) in tables.into_iter().enumerate() {
        check(&query, &table, &order)?;
        let repeats_to = last_of(&query, &order)?.filter(|&last| last > index);
        if let Some(last) = repeats_to {
            let inside = steps.iter().any(|step: &Step| step.repeats_to.is_some_and(|last| last >= index));
            if inside || table.kind != Kind::FullRefresh {
                let message = format!("fills `{}` but reads `{}`, which is filled later", table.name, order[last]);
                return Err(invalid(&query, message));
            }
        }
        let statement = query.bind(&parameters)?;
        let fingerprint = fingerprints.next(&table.name, &query, &parameters);
        steps.push(Step { table, query, statement, fingerprint, repeats_to });
    }
    let mut expectations = expectations(config, &parameters, &order)?;
    expectations.extend(built_in_expectations(config, catalogue, &parameters, &order)?);
    Ok(Plan { steps, expectations, parameters })
}

/// Returns the tables of all steps in order, each with its query.
fn tables(config: &Config, catalogue: &Catalogue) -> Result<Vec<(Table, Query)>> {
    let mut tables = Vec::new();
    for table in schema::step_tables() {
        tables.push((table.clone(), catalogue.get(&query_of(config, &table.name))?.clone()));
    }
    for step in &config.steps {
        if schema::find(&step.table).is_some() {
            return Err(Error::input(PlanError::BuiltInTable { table: step.table.clone() }));
        }
        let query = catalogue.get(&step.sql)?.clone();
        if let Some(log) = query.tables.iter().find(|name| is_log(name)) {
            return Err(invalid(&query, format!("a [[step]] cannot read `{log}`, to which every run adds rows")));
        }
        // It runs directly after its inputs, so that a built-in query may read its table in turn.
        let inputs = tables.iter().rposition(|(table, _): &(Table, Query)| query.tables.contains(&table.name));
        let table = schema::user_table(&step.table, Schema::empty().into());
        tables.insert(inputs.map_or(0, |last| last + 1), (table, query));
    }
    Ok(tables)
}

#[derive(Debug, thiserror::Error)]
enum PlanError {
    #[error("[[step]] `{table}` has the name of a built-in table\nhint: choose another `table`")]
    BuiltInTable { table: String },
}

/// Rejects a replaced query that ignores a setting, which would otherwise have no effect.
fn check_settings_are_used(config: &Config, catalogue: &Catalogue) -> Result<()> {
    let hard = catalogue.get(&config.hard_samples.sql)?;
    if !config.hard_samples.exclude_classes.is_empty() && !hard.parameters.contains("exclude_classes") {
        let message = "does not use `$exclude_classes`, although `hard_samples.exclude_classes` is set";
        return Err(invalid(hard, message.to_owned()));
    }
    let classes = catalogue.get("classes/all.sql")?;
    if config.prompts.common_names.is_some() && !classes.tables.contains(schema::COMMON_NAMES) {
        let message = "does not read the table `common_names`, although `prompts.common_names` is set";
        return Err(invalid(classes, message.to_owned()));
    }
    Ok(())
}

/// Rejects what a step's query must not do although it is valid SQL.
fn check(query: &Query, table: &Table, order: &[String]) -> Result<()> {
    if let Some(function) = MOMENTARY.iter().find(|function| query.functions.contains(**function)) {
        let message = format!(
            "`{function}` changes between calls\nhint: use `draw(n, ...)`, which depends on its arguments alone"
        );
        return Err(invalid(query, message));
    }
    if let Some(name) = query.defined.iter().find(|name| schema::find(name).is_some() || order.contains(name)) {
        return Err(invalid(query, format!("its WITH clause defines `{name}`, which is a table\nhint: rename it")));
    }
    if query.tables.contains(&table.name) {
        return Err(invalid(query, format!("fills `{0}` and also reads `{0}`", table.name)));
    }
    if let Kind::Incremental { over, .. } = table.kind {
        let covered = |name: &str| {
            name == over || schema::find(name).is_some_and(|table| matches!(table.kind, Kind::Incremental { .. }))
        };
        if let Some(other) = query.tables.iter().find(|name| !covered(name)) {
            let message = format!("cannot read `{other}`, since the ids of `{}` would not change with it", table.name);
            return Err(invalid(query, message));
        }
    }
    Ok(())
}

fn invalid(query: &Query, message: String) -> Error {
    Error::Query { query: query.name.clone(), message }
}

fn is_log(table: &str) -> bool {
    schema::find(table).is_some_and(|table| table.kind == Kind::Log)
}

fn expectations(
    config: &Config,
    parameters: &BTreeMap<String, Parameter>,
    order: &[String],
) -> Result<Vec<Expectation>> {
    config
        .expect
        .iter()
        .map(|expect| {
            let query = Query::parse(&format!("[[expect]] {}", expect.name), &expect.sql)?;
            // A log is complete when every step is.
            let logs = query.tables.iter().any(|name| is_log(name));
            let last = last_of(&query, order)?.unwrap_or(0);
            let after = if logs { order.len().saturating_sub(1) } else { last };
            Ok(Expectation { name: expect.name.clone(), hint: None, statement: query.bind(parameters)?, after })
        })
        .collect()
}

/// Returns what every pipeline expects: epochs with the images that they are for and, if the curriculum is adaptive,
/// images to measure on.
fn built_in_expectations(
    config: &Config,
    catalogue: &Catalogue,
    parameters: &BTreeMap<String, Parameter>,
    order: &[String],
) -> Result<Vec<Expectation>> {
    let epochs = (
        "expect/epochs.sql",
        "every epoch below level 100 trains on synthetic images",
        "was none kept of that level (`filter.min_text_similarity`), or are hard images alone their share of an epoch \
         (`curriculum.hard_share`)? `curriculum.levels` may leave a level out",
    );
    let validation = (
        "expect/validation.sql",
        "the spectrum validation set has images to measure on",
        "it takes hard images that kept an image at every level: lower `filter.min_text_similarity`, raise \
         `filter.max_attempts`, or generate fewer levels",
    );
    let is_adaptive = catalogue.get(&schedule_query(&config.curriculum.strategy))?.tables.contains(schema::PROGRESS);
    let expected = [Some(epochs), is_adaptive.then_some(validation)];
    let expectation = |(query, name, hint): (&str, &str, &'static str)| {
        let query = catalogue.get(query)?;
        let after = last_of(query, order)?.unwrap_or(0);
        Ok(Expectation { name: name.to_owned(), hint: Some(hint), statement: query.bind(parameters)?, after })
    };
    expected.into_iter().flatten().map(expectation).collect()
}

/// Returns the index of the last step whose table `query` reads.
///
/// # Errors
/// Returns an error if the query reads an unknown table.
fn last_of(query: &Query, order: &[String]) -> Result<Option<usize>> {
    let mut last = None;
    for name in &query.tables {
        match order.iter().position(|table| table == name) {
            Some(index) => last = last.max(Some(index)),
            None if schema::find(name).is_some() => {}
            None => {
                let known: BTreeSet<_> =
                    schema::TABLES.iter().map(|table| &table.name).chain(order).map(|n| format!("`{n}`")).collect();
                let known: Vec<_> = known.into_iter().collect();
                return Err(Error::Query {
                    query: query.name.clone(),
                    message: format!("unknown table `{name}`; the tables are {}", text::join(&known, "and")),
                });
            }
        }
    }
    Ok(last)
}

/// The fingerprints of the steps, computed in order, since each covers those of its inputs.
struct Fingerprints<'a> {
    inputs: &'a Inputs,
    /// By table.
    known: BTreeMap<String, String>,
}

impl<'a> Fingerprints<'a> {
    fn new(inputs: &'a Inputs) -> Self {
        let outside = inputs.outside();
        let known = BTreeMap::from([
            (schema::LISTING.to_owned(), outside.listing.clone()),
            (schema::DESCRIPTIONS.to_owned(), outside.descriptions.clone()),
            (schema::COMMON_NAMES.to_owned(), outside.common_names.clone()),
            (schema::CONFIDENCES.to_owned(), outside.confidences.clone()),
            (schema::FEEDBACK.to_owned(), inputs.feedback.clone()),
        ]);
        Self { inputs, known }
    }

    fn next(&mut self, table: &str, query: &Query, parameters: &BTreeMap<String, Parameter>) -> Fingerprint {
        let mut parts = BTreeMap::from([("query".to_owned(), query.digest())]);
        for name in &query.parameters {
            if let Some(value) = parameters.get(name) {
                parts.insert(format!("${name}"), value.to_string());
            }
        }
        let Some(outside) = &self.inputs.outside else {
            parts.retain(|name, _| !name.strip_prefix('$').is_some_and(|name| MODEL_PARAMETERS.contains(&name)));
            return Fingerprint { value: None, parts };
        };
        for (function, model) in MODEL_FUNCTIONS {
            if query.functions.contains(*function) {
                let digest = match *model {
                    "clip" => &outside.clip,
                    "classifiers" => &outside.classifiers,
                    _ => &outside.generator,
                };
                parts.insert(format!("model {model}"), digest.clone());
            }
        }
        // A table that is filled later is read by a step that repeats; its rows follow from this fingerprint.
        for name in &query.tables {
            if let Some(fingerprint) = self.known.get(name) {
                parts.insert(format!("table {name}"), fingerprint.clone());
            }
        }
        let digest = parts.iter().fold(Digest::new("step"), |digest, (name, value)| digest.text(name).text(value));
        let value = i64::try_from(digest.draw(i64::MAX as u64)).unwrap_or(0) + 1;
        self.known.insert(table.to_owned(), format!("{value:016x}"));
        Fingerprint { value: Some(value), parts }
    }
}
