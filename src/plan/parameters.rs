//! What queries may name as `$name`.

use std::collections::BTreeMap;

use super::Outside;
use crate::{
    config::{self, Config},
    error::Result,
    identity::Digest,
    plan::catalogue::{Catalogue, Parameter, Query},
};

/// Raised when the same models, settings and queries make other rows than before: after a correction of
/// a scheduler, a resampling filter or a random draw.
const ALGORITHM: &str = "1";

/// The digest by which images of the source are known to be read already.
///
/// # Errors
/// Where the catalogue has not the query that reads them.
pub fn reader(config: &Config, catalogue: &Catalogue) -> Result<String> {
    Ok(recipe(catalogue.get(&config.source.sql)?, &settings(config)))
}

/// The value of every placeholder: the pipeline's settings, its own `[parameters]`, and `$generator` and
/// `$clip`, which name all that makes an image and a score: the model, and the query that asks it.
///
/// # Errors
/// Where the catalogue has not these queries.
pub fn parameters(config: &Config, catalogue: &Catalogue, outside: &Outside) -> Result<BTreeMap<String, Parameter>> {
    let mut values = settings(config);
    values.insert("scheduler".into(), Parameter::Text(outside.scheduler.clone()));
    values.insert("unet_evaluations".into(), Parameter::Integers(outside.unet_evaluations.clone()));
    let with = |model: &str, query: &str| -> Result<Parameter> {
        let recipe = recipe(catalogue.get(query)?, &values);
        Ok(Parameter::Text(Digest::new("maker").text(model).text(&recipe).id()))
    };
    let generator = with(&outside.generator, super::GENERATE)?;
    let clip = with(&outside.clip, super::SCORE)?;
    values.insert("generator".into(), generator);
    values.insert("clip".into(), clip);
    Ok(values)
}

/// A digest of what a query means with its parameters in place; `$generator` and `$clip` apart, which are
/// made from it.
fn recipe(query: &Query, values: &BTreeMap<String, Parameter>) -> String {
    let used = query.parameters.iter().filter_map(|name| Some((name, values.get(name)?)));
    let digest = Digest::new("recipe").text(ALGORITHM).text(&query.digest());
    used.fold(digest, |digest, (name, value)| digest.text(name).text(&value.to_string())).id()
}

fn settings(config: &Config) -> BTreeMap<String, Parameter> {
    use Parameter::{Boolean, Float, Integer, Integers, Null, Text, Texts};
    let built_in = [
        ("name", Text(config.name.clone())),
        ("seed", Integer(config.seed)),
        ("max_class_count", Integer(config.hard_samples.max_class_count)),
        ("classifier", config.hard_samples.classifier.clone().map_or(Null, Text)),
        ("max_probability", Float(config.hard_samples.max_probability)),
        ("hard_fraction", Float(config.hard_samples.hard_fraction)),
        ("exclude_classes", Texts(config.hard_samples.exclude_classes.clone())),
        ("generation_prompt", Text(config.prompts.generation.clone())),
        ("filter_prompt", Text(config.prompts.filter.clone())),
        ("image_guidance", Integers(config.spectrum.image_guidance.clone())),
        ("seeds", Integers(config.spectrum.seeds.clone())),
        ("timesteps", Integer(config.spectrum.timesteps)),
        ("guidance_scale", Float(config.spectrum.guidance_scale)),
        ("negative_prompt", config.spectrum.negative_prompt.clone().map_or(Null, Text)),
        ("min_text_similarity", Float(config.filter.min_text_similarity)),
        ("max_attempts", Integer(config.filter.max_attempts)),
        ("strategy", Text(config.curriculum.strategy.clone())),
        ("epochs", Integer(config.curriculum.epochs)),
        ("curriculum_epochs", Integer(config.curriculum.curriculum_epochs)),
        ("non_hard_fraction", Float(config.curriculum.non_hard_fraction)),
        ("hard_share", Float(config.curriculum.hard_share)),
        ("level", config.curriculum.level.map_or(Null, Integer)),
        ("trials", Texts(config.curriculum.trials.clone())),
        ("probe_size", Integer(config.curriculum.probe_size)),
        ("class_balanced", Boolean(config.curriculum.class_balanced)),
        ("validation_sources", Integer(config.validation.sources)),
    ];
    let own = config.parameters.iter().map(|(name, value)| {
        let value = match value {
            config::Parameter::Integer(value) => Integer(*value),
            config::Parameter::Float(value) => Float(*value),
            config::Parameter::String(value) => Text(value.clone()),
            config::Parameter::Boolean(value) => Boolean(*value),
        };
        (name.clone(), value)
    });
    built_in.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(own).collect()
}
