//! The values of `$name` placeholders.

use std::collections::BTreeMap;

use super::Inputs;
use crate::{
    config::{ComputedParameter, Config, Parameter},
    error::Result,
    identity::Digest,
    plan::catalogue::{Catalogue, Query},
};

/// Raised when the same models, settings and queries give other rows than before: after a fix of a
/// scheduler, a resampling filter or a random draw.
const ALGORITHM: &str = "1";

/// Returns the digest by which images of the source are known to be read already.
///
/// # Errors
/// Returns an error if the catalogue does not have the query that reads them.
pub fn reader(config: &Config, catalogue: &Catalogue) -> Result<String> {
    Ok(recipe(catalogue.get(&config.source.sql)?, &config.sql_parameters()))
}

/// Returns the value of every placeholder: values of keys, the user's `[parameters]`, and the computed ones. Of
/// these, `$generator` and `$clip` identify all that decides an image and a score: the model, and the query that
/// calls it.
///
/// # Errors
/// Returns an error if the catalogue does not have these queries.
pub fn parameters(config: &Config, catalogue: &Catalogue, inputs: &Inputs) -> Result<BTreeMap<String, Parameter>> {
    let mut values = config.sql_parameters();
    let mut set = |parameter: ComputedParameter, value| values.insert(parameter.name().to_owned(), value);
    set(ComputedParameter::Scheduler, Parameter::Text(inputs.scheduler.clone()));
    set(ComputedParameter::UnetEvaluations, Parameter::Integers(inputs.unet_evaluations.clone()));
    let with = |model: &str, query: &str| -> Result<Parameter> {
        let recipe = recipe(catalogue.get(query)?, &values);
        Ok(Parameter::Text(Digest::new("maker").text(model).text(&recipe).id()))
    };
    let generator = with(&inputs.generator, super::GENERATE)?;
    let clip = with(&inputs.clip, super::SCORE)?;
    let mut set = |parameter: ComputedParameter, value| values.insert(parameter.name().to_owned(), value);
    set(ComputedParameter::Generator, generator);
    set(ComputedParameter::Clip, clip);
    Ok(values)
}

/// Returns a digest of the meaning of a query with its parameters in place, except `$generator` and `$clip`, which
/// are computed from it.
fn recipe(query: &Query, values: &BTreeMap<String, Parameter>) -> String {
    let used = query.parameters.iter().filter_map(|name| Some((name, values.get(name)?)));
    let digest = Digest::new("recipe").text(ALGORITHM).text(&query.digest());
    used.fold(digest, |digest, (name, value)| digest.text(name).text(&value.to_string())).id()
}
