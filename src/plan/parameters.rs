//! What queries may name as `$name`.

use std::collections::BTreeMap;

use super::Inputs;
use crate::{
    config::{self, Config},
    queries::Parameter,
};

/// The value of every placeholder: the pipeline's settings, and its own `[parameters]`.
pub fn parameters(config: &Config, inputs: &Inputs) -> BTreeMap<String, Parameter> {
    use Parameter::{Float, Integer, Integers, Text};
    let built_in = [
        ("name", Text(config.name.clone())),
        ("seed", Integer(config.seed)),
        ("max_class_count", Integer(config.hard_samples.max_class_count)),
        ("generation_prompt", Text(config.prompts.generation.clone())),
        ("filter_prompt", Text(config.prompts.filter.clone())),
        ("image_guidance", Integers(config.spectrum.image_guidance.clone())),
        ("seeds", Integers(config.spectrum.seeds.clone())),
        ("timesteps", Integer(config.spectrum.timesteps)),
        ("guidance_scale", Float(config.spectrum.guidance_scale)),
        ("negative_prompt", Text(config.spectrum.negative_prompt.clone())),
        ("scheduler", Text(inputs.scheduler.clone())),
        ("generator", Text(inputs.generator.clone())),
        ("clip", Text(inputs.clip.clone())),
        ("min_text_similarity", Float(config.filter.min_text_similarity)),
        ("max_attempts", Integer(config.filter.max_attempts)),
        ("strategy", Text(config.curriculum.strategy.clone())),
        ("epochs", Integer(config.curriculum.epochs)),
        ("curriculum_epochs", Integer(config.curriculum.curriculum_epochs)),
        ("non_hard_fraction", Float(config.curriculum.non_hard_fraction)),
        ("hard_share", Float(config.curriculum.hard_share)),
    ];
    let own = config.parameters.iter().map(|(name, value)| {
        let value = match value {
            config::Parameter::Integer(value) => Integer(*value),
            config::Parameter::Float(value) => Float(*value),
            config::Parameter::String(value) => Text(value.clone()),
            config::Parameter::Boolean(value) => Parameter::Boolean(*value),
        };
        (name.clone(), value)
    });
    built_in.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(own).collect()
}
