//! Pure: from configuration and queries to the steps, each with its bound query and its fingerprint.
//!
//! A step's inputs are the tables that its query reads, its parameters are the placeholders that it
//! names, its models are the functions that it calls. Its fingerprint covers just these, by meaning:
//! neither white space, nor a parameter that it does not use, nor where a model's folder stands.

pub mod catalogue;
mod parameters;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::Statement;

pub use parameters::{parameters, reader};

use crate::{
    config::Config,
    error::{Error, Result},
    identity::Digest,
    plan::catalogue::{Catalogue, Parameter, Query},
    schema::{self, Kind, Table},
};

/// Functions whose result depends on a model, and which of the pipeline's models that is.
const MODEL_FUNCTIONS: &[(&str, &str)] =
    &[("img2img", "generator"), ("clip_image", "clip"), ("clip_text", "clip"), ("classify", "classifiers")];

/// The query that asks for images.
const ASK: &str = "candidates/spectrum.sql";
/// The query that makes images.
const GENERATE: &str = "spectrum/img2img.sql";
/// The query that scores them.
const SCORE: &str = "scores/clip.sql";

/// Functions whose value depends on the moment: no table may.
const MOMENTARY: &[&str] =
    &["random", "uuid", "now", "current_timestamp", "current_date", "current_time", "today", "localtimestamp"];

/// What a plan depends on beside the pipeline's file: digests of what is outside of it.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Of the listing of the source.
    pub listing: String,
    /// Of the descriptions for the generation prompt.
    pub descriptions: String,
    /// Of the names that prompts have for classes.
    pub common_names: String,
    /// Of how probable the images' classes are to a classifier.
    pub confidences: String,
    /// Of all that makes an image but prompt, guidance and noise: model files and settings.
    pub generator: String,
    /// Of the CLIP model's files.
    pub clip: String,
    /// Of the classifiers' names and files.
    pub classifiers: String,
    /// The scheduler that the generator runs.
    pub scheduler: String,
    /// Of the feedback of trainers.
    pub feedback: String,
    /// Evaluations of the UNet for one image, for each level of image guidance of the pipeline.
    pub unet_evaluations: Vec<i64>,
}

/// What a step was made from, and a number that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Never 0; what the table carries when the step is complete.
    pub value: i64,
    /// Each input, parameter and model by name.
    pub parts: BTreeMap<String, String>,
}

/// A table and the query that fills it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The table. The columns of a `[[step]]` of the pipeline are known once its query is planned.
    pub table: Table,
    /// The query, for messages.
    pub query: Query,
    /// The query with its parameters in place.
    pub statement: Statement,
    /// What the step is made from.
    pub fingerprint: Fingerprint,
    /// Where the query reads a later table: the index of the last step that is repeated with this one
    /// until its rows stay as they are.
    pub repeats_to: Option<usize>,
}

impl Step {
    /// Whether its query calls a model.
    pub fn asks_models(&self) -> bool {
        MODEL_FUNCTIONS.iter().any(|(function, _)| self.query.functions.contains(*function))
    }
}

/// A query that must return no rows, and the step after which it is asked.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Its name in the pipeline.
    pub name: String,
    /// Its query with its parameters in place.
    pub statement: Statement,
    /// The index of the last step that it reads.
    pub after: usize,
}

/// The steps of a pipeline, in order.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// The tests of the data.
    pub expectations: Vec<Expectation>,
    /// The value of every placeholder.
    pub parameters: BTreeMap<String, Parameter>,
}

/// The paths under `sql/` that the pipeline names, which its `sql_dir` may hold beside replacements.
pub fn chosen_queries(config: &Config) -> Vec<String> {
    let steps = config.steps.iter().map(|step| step.sql.clone());
    let compared = config.experiment.strategies.iter().map(|strategy| curriculum_query(strategy));
    built_in_steps(config).into_iter().map(|(_, path)| path).chain(steps).chain(compared).collect()
}

/// The query of a strategy, by its name.
pub fn curriculum_query(strategy: &str) -> String {
    format!("schedule/{strategy}.sql")
}

fn built_in_steps(config: &Config) -> Vec<(&'static str, String)> {
    vec![
        ("pixels", config.source.sql.clone()),
        ("images", "images/all.sql".into()),
        ("hard_samples", config.hard_samples.sql.clone()),
        ("candidates", ASK.into()),
        ("spectrum", GENERATE.into()),
        ("scores", SCORE.into()),
        ("kept", config.filter.sql.clone()),
        ("validation", "validation/spectrum.sql".into()),
        ("probe", "probe/real.sql".into()),
        ("progress", "progress/gain.sql".into()),
        ("schedule", curriculum_query(&config.curriculum.strategy)),
        ("manifest", config.curriculum.manifest.clone()),
    ]
}

/// Compiles the pipeline.
///
/// # Errors
/// Where a query is not there, names an unknown parameter, or reads an unknown table.
pub fn compile(config: &Config, catalogue: &Catalogue, inputs: &Inputs) -> Result<Plan> {
    let parameters = parameters(config, catalogue, inputs)?;
    check_heard(config, catalogue)?;
    for strategy in &config.experiment.strategies {
        catalogue.get(&curriculum_query(strategy))?;
    }
    let mut tables = Vec::new();
    for (name, path) in built_in_steps(config) {
        let table = schema::find(name).ok_or_else(|| Error::Data(format!("no schema of `{name}`")))?;
        tables.push((table.clone(), catalogue.get(&path)?.clone()));
    }
    for step in &config.steps {
        if schema::find(&step.table).is_some() {
            return Err(Error::Data(format!("[[step]] `{}`: a table of that name is built in", step.table)));
        }
        let query = catalogue.get(&step.sql)?.clone();
        if let Some(journal) = query.tables.iter().find(|name| is_journal(name)) {
            return Err(refused(&query, format!("a [[step]] cannot read `{journal}`, which each run adds to")));
        }
        // right after what it reads, so that a built-in query may read it in turn
        let inputs = tables.iter().rposition(|(table, _): &(Table, Query)| query.tables.contains(&table.name));
        let table = schema::user_table(&step.table, Schema::empty().into());
        tables.insert(inputs.map_or(0, |last| last + 1), (table, query));
    }
    let order: Vec<String> = tables.iter().map(|(table, _)| table.name.clone()).collect();
    let mut fingerprints: BTreeMap<String, String> = BTreeMap::from([
        (schema::LISTING.to_owned(), inputs.listing.clone()),
        (schema::DESCRIPTIONS.to_owned(), inputs.descriptions.clone()),
        (schema::COMMON_NAMES.to_owned(), inputs.common_names.clone()),
        (schema::CONFIDENCES.to_owned(), inputs.confidences.clone()),
        (schema::FEEDBACK.to_owned(), inputs.feedback.clone()),
    ]);
    let mut steps = Vec::new();
    for (index, (table, query)) in tables.into_iter().enumerate() {
        check(&query, &table, &order)?;
        let repeats_to = last_of(&query, &order)?.filter(|&last| last > index);
        if let Some(last) = repeats_to {
            let inside = steps.iter().any(|step: &Step| step.repeats_to.is_some_and(|last| last >= index));
            if inside || !matches!(table.kind, Kind::Chosen) {
                let message = format!("it fills `{}` and reads `{}`, which is made later", table.name, order[last]);
                return Err(refused(&query, message));
            }
        }
        let statement = query.bind(&parameters)?;
        let fingerprint = fingerprint(&query, &parameters, inputs, &fingerprints);
        fingerprints.insert(table.name.clone(), format!("{:016x}", fingerprint.value));
        steps.push(Step { table, query, statement, fingerprint, repeats_to });
    }
    let expectations = expectations(config, &parameters, &order)?;
    Ok(Plan { steps, expectations, parameters })
}

/// A replaced query may leave out what a key sets: the key would be without effect, and nobody would say so.
fn check_heard(config: &Config, catalogue: &Catalogue) -> Result<()> {
    let hard = catalogue.get(&config.hard_samples.sql)?;
    if !config.hard_samples.exclude_classes.is_empty() && !hard.parameters.contains("exclude_classes") {
        let message = "it does not use `$exclude_classes`, and `hard_samples.exclude_classes` is set";
        return Err(refused(hard, message.to_owned()));
    }
    let asked = catalogue.get(ASK)?;
    if config.prompts.common_names.is_some() && !asked.tables.contains(schema::COMMON_NAMES) {
        let message = "it does not read the table `common_names`, and `prompts.common_names` is set";
        return Err(refused(asked, message.to_owned()));
    }
    Ok(())
}

/// What no step's query may do, though it is good SQL.
fn check(query: &Query, table: &Table, order: &[String]) -> Result<()> {
    if let Some(function) = MOMENTARY.iter().find(|function| query.functions.contains(**function)) {
        let message = format!("`{function}` gives another value each time; `draw(n, …)` is the same for the same row");
        return Err(refused(query, message));
    }
    if let Some(name) = query.defined.iter().find(|name| schema::find(name).is_some() || order.contains(name)) {
        return Err(refused(query, format!("its WITH defines `{name}`, which is a table; call it something else")));
    }
    if query.tables.contains(&table.name) {
        return Err(refused(query, format!("it fills `{0}` and reads `{0}`", table.name)));
    }
    if let Kind::Accumulated { over, .. } = table.kind {
        let covered = |name: &str| {
            name == over || schema::find(name).is_some_and(|table| matches!(table.kind, Kind::Accumulated { .. }))
        };
        if let Some(other) = query.tables.iter().find(|name| !covered(name)) {
            let message =
                format!("it may not read `{other}`: a change there would not be in the ids of `{}`", table.name);
            return Err(refused(query, message));
        }
    }
    Ok(())
}

fn refused(query: &Query, message: String) -> Error {
    Error::Query { query: query.name.clone(), message }
}

fn is_journal(table: &str) -> bool {
    schema::find(table).is_some_and(|table| table.kind == Kind::Journal)
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
            // a journal is complete when everything is
            let journals = query.tables.iter().any(|name| is_journal(name));
            let last = last_of(&query, order)?.unwrap_or(0);
            let after = if journals { order.len().saturating_sub(1) } else { last };
            Ok(Expectation { name: expect.name.clone(), statement: query.bind(parameters)?, after })
        })
        .collect()
}

/// The index of the last step whose table `query` reads; an unknown table is an error.
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
                    message: format!("no table `{name}`; tables are {}", known.join(", ")),
                });
            }
        }
    }
    Ok(last)
}

fn fingerprint(
    query: &Query,
    parameters: &BTreeMap<String, Parameter>,
    inputs: &Inputs,
    tables: &BTreeMap<String, String>,
) -> Fingerprint {
    let mut parts = BTreeMap::from([("query".to_owned(), query.digest())]);
    for name in &query.parameters {
        if let Some(value) = parameters.get(name) {
            parts.insert(format!("${name}"), value.to_string());
        }
    }
    for (function, model) in MODEL_FUNCTIONS {
        if query.functions.contains(*function) {
            let digest = match *model {
                "clip" => &inputs.clip,
                "classifiers" => &inputs.classifiers,
                _ => &inputs.generator,
            };
            parts.insert(format!("model {model}"), digest.clone());
        }
    }
    // a table that is made later is read by a step that repeats; its rows follow from this fingerprint
    for name in &query.tables {
        if let Some(fingerprint) = tables.get(name) {
            parts.insert(format!("table {name}"), fingerprint.clone());
        }
    }
    let digest = parts.iter().fold(Digest::new("step"), |digest, (name, value)| digest.text(name).text(value));
    let value = i64::try_from(digest.draw(i64::MAX as u64)).unwrap_or(0) + 1;
    Fingerprint { value, parts }
}
