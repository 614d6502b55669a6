//! The values of `$name` placeholders.

use std::collections::BTreeMap;

use super::Outside;
use crate::{
    config::{ComputedParameter, Config, Parameter},
    error::Result,
    identity::Digest,
    plan::catalogue::{Catalogue, Query},
};

/// Increased when the same models, settings and queries give other rows than before: after a fix of a
/// scheduler, a resampling filter or a random draw.
const ALGORITHM: &str = "1";

/// Returns a digest of the query that reads the source. It is part of `pixel_id`, so a changed query reads images
/// again.
///
/// # Errors
/// Returns an error if the catalogue does not have the query that reads them.
pub(crate) fn reader(config: &Config, catalogue: &Catalogue) -> Result<String> {
    Ok(recipe(catalogue.get(&config.source.sql)?, &config.sql_parameters()))
}

/// Returns the value of every placeholder: values of keys, the user's `[parameters]`, and the computed ones. Of
/// these, `$generator` and `$clip` identify all that decides an image and a score: the model, and the query that
/// calls it.
///
/// # Errors
/// Returns an error if the catalogue does not have these queries.
pub(super) fn parameters(
    config: &Config,
    catalogue: &Catalogue,
    outside: &Outside,
) -> Result<BTreeMap<String, Parameter>> {
    let mut values = config.sql_parameters();
    let mut set = |parameter: ComputedParameter, value| values.insert(parameter.name().to_owned(), value);
    set(ComputedParameter::Scheduler, Parameter::Text(outside.scheduler.clone()));
    set(ComputedParameter::UnetEvaluations, Parameter::Integers(outside.unet_evaluations.clone()));
    let with = |model: &str, query: &str| -> Result<Parameter> {
        let recipe = recipe(catalogue.get(query)?, &values);
        Ok(Parameter::Text(Digest::new("maker").text(model).text(&recipe).id()))
    };
    let generator = with(&outside.generator, super::GENERATE)?;
    let clip = with(&outside.clip, super::SCORE)?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write};

    use insta::assert_snapshot;

    use super::*;
    use crate::config;

    fn inputs() -> Outside {
        Outside {
            listing: "l".into(),
            descriptions: "d".into(),
            common_names: "n".into(),
            confidences: "p".into(),
            generator: "g".into(),
            clip: "c".into(),
            classifiers: "k".into(),
            scheduler: "ddim".into(),
            unet_evaluations: vec![25, 23, 18, 13, 8, 3],
        }
    }

    fn config() -> Config {
        let set = ["parameters.best=3", "parameters.look=dark", "spectrum.negative_prompt=blur"].map(str::to_owned);
        Config::parse(include_str!("../../pipelines/digits_lt.toml"), "digits_lt.toml", &set).unwrap()
    }

    /// Fingerprints digest these strings: a change here makes the steps of every lake stale.
    #[test]
    fn the_values_of_parameters_stay_the_same() {
        let (config, catalogue) = (config(), Catalogue::load(None, &[]).unwrap());
        let values = parameters(&config, &catalogue, &inputs()).unwrap();
        let mut shown = format!("reader {}\n", reader(&config, &catalogue).unwrap());
        for (name, value) in values {
            writeln!(shown, "${name} {value}").unwrap();
        }
        assert_snapshot!(shown, @r#"
        reader 3769c2fcaa87aefadbd3004cb7f71015
        $best 3
        $captions ["a photo of {class}."]
        $class_balanced false
        $classifier NULL
        $clip "7e264cfb1f6a352924183c4c40ec64fb"
        $curriculum_epochs 24
        $curriculum_seed 0
        $epochs 26
        $exclude_classes []
        $exploration 0.0
        $filter_prompt "a photo of {class}"
        $generation_prompt "a photo of {class}"
        $generator "b077795b5fd5239ddc6e7e4492d2334d"
        $guidance_scale 4.0
        $hard_fraction 1.0
        $hard_share 0.4
        $image_guidance [0, 10, 30, 50, 70, 90]
        $level NULL
        $levels [0, 10, 30, 50, 70, 90]
        $look "dark"
        $max_attempts 3
        $max_class_count 20
        $max_probability 1.0
        $max_repeats 10
        $min_text_similarity 0.58
        $name "digits_lt"
        $negative_prompt "blur"
        $non_hard_fraction 1.0
        $probe_size 0
        $scheduler "ddim"
        $seed 0
        $seeds [10, 20, 30, 40]
        $strategy "diverse_to_specific"
        $synthetic_per_hard NULL
        $timesteps 25
        $trials ["0"]
        $unet_evaluations [25, 23, 18, 13, 8, 3]
        $validation_sources 0
        "#);
    }

    #[test]
    fn every_declared_parameter_has_a_value_and_no_other() {
        let config = config();
        let values = parameters(&config, &Catalogue::load(None, &[]).unwrap(), &inputs()).unwrap();
        let declared = config::keys().iter().filter_map(|key| key.parameter);
        let computed = ComputedParameter::ALL.map(ComputedParameter::name);
        let user_defined = config.parameters.keys().map(String::as_str);
        let expected: BTreeSet<&str> = declared.chain(computed).chain(user_defined).collect();
        assert_eq!(values.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    }
}
