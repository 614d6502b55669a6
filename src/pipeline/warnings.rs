//! What is allowed and probably not intended, found before any work.

use std::collections::BTreeMap;

use crate::{
    config::{Config, timesteps_run},
    error::{Result, Warning, text},
    models::{Models, Tokenizer},
    source::{CommonNames, Descriptions, Sized, Source},
};

/// Images whose size is looked at.
const MAX_IMAGES: usize = 64;
/// Prompts that are split into tokens. Others are too short to have too many.
const MAX_PROMPTS: usize = 20_000;
/// Characters of a prompt that a warning shows.
const MAX_SHOWN: usize = 200;
/// An image whose aspect ratio changes by a larger factor looks distorted.
const MAX_DISTORTION: f64 = 1.1;
/// A model fails on images that are much larger than those that it was trained on. This is a factor of pixels.
const MAX_ENLARGEMENT: u64 = 4;

/// Returns warnings about levels that give the same images, and about sides that the UNet does not take.
pub(super) fn of_settings(config: &Config, models: &Models) -> Vec<Warning> {
    equal_levels(config).into_iter().chain(other_sides(config, models)).collect()
}

fn equal_levels(config: &Config) -> Vec<Warning> {
    let timesteps = u32::try_from(config.spectrum.timesteps).unwrap_or(u32::MAX);
    let mut levels: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for level in &config.spectrum.image_guidance {
        let run = timesteps_run(timesteps, u8::try_from(*level).unwrap_or(100));
        levels.entry(run).or_default().push(level.to_string());
    }
    let equal = levels.into_iter().filter(|(_, levels)| levels.len() > 1);
    let warning = |(run, levels): (u32, Vec<String>)| {
        Warning::new(
            format!(
                "the levels {} of `spectrum.image_guidance` all run {run} of {timesteps} timesteps, so they keep equally \
                 much of an image",
                text::join(&levels, "and")
            ),
            "raise `spectrum.timesteps`, or leave all but one of them out",
        )
    };
    equal.map(warning).collect()
}

fn other_sides(config: &Config, models: &Models) -> Option<Warning> {
    let (width, height) = config.spectrum.size?;
    let sides = models.sides();
    let taken = |side: i64| sides.of(u32::try_from(side).unwrap_or(u32::MAX));
    if i64::from(taken(width)) == width && i64::from(taken(height)) == height {
        return None;
    }
    Some(Warning::new(
        format!(
            "`spectrum.width` and `spectrum.height` are {width} x {height}, but the UNet takes sides that are multiples of \
             {} pixels",
            sides.multiple
        ),
        format!("the nearest that it takes are {} x {}", taken(width), taken(height)),
    ))
}

/// Returns warnings about prompts that are longer than the models read.
///
/// # Errors
/// Returns an error if a tokenizer cannot be read.
pub(super) fn of_prompts(
    config: &Config,
    models: &Models,
    source: &Source,
    descriptions: &Descriptions,
    common_names: &CommonNames,
) -> Result<Vec<Warning>> {
    let excluded = &config.hard_samples.exclude_classes;
    let classes: Vec<&str> =
        source.class_names().into_iter().filter(|class| !excluded.iter().any(|name| name == class)).collect();
    let (mut generation, mut filter) = (Vec::new(), Vec::new());
    for class in classes {
        let name = common_names.of(class);
        let prompt = |text: &str| config.prompts.generation.replace("{description}", text).replace("{class}", name);
        match descriptions.of(class) {
            [] => generation.push(prompt("")),
            texts => generation.extend(texts.iter().map(|text| prompt(text))),
        }
        filter.push(config.prompts.filter.replace("{class}", name));
    }
    let negative: Vec<String> = config.spectrum.negative_prompt.iter().cloned().collect();
    let (diffusion, clip) = (models.diffusion_tokenizers()?, models.clip_tokenizer()?);
    let of_generation = "shorten `prompts.generation`, or the descriptions in `prompts.descriptions`";
    let warnings = [
        too_long("generation prompt", &generation, &diffusion, of_generation),
        too_long("filter prompt", &filter, &[clip], "shorten `prompts.filter`"),
        too_long("negative prompt", &negative, &diffusion, "shorten `spectrum.negative_prompt`"),
    ];
    Ok(warnings.into_iter().flatten().collect())
}

fn too_long(kind: &str, prompts: &[String], tokenizers: &[Tokenizer], hint: &str) -> Option<Warning> {
    let limit = tokenizers.iter().map(Tokenizer::length).min()?;
    // A token has at least one byte, and two of them are the start and the end.
    let suspects = prompts.iter().filter(|prompt| prompt.len() + 2 > limit).take(MAX_PROMPTS);
    let tokens = |prompt: &String| tokenizers.iter().filter_map(|tokenizer| tokenizer.count(prompt).ok()).max();
    let long = suspects.filter_map(|prompt| Some((tokens(prompt)?, prompt))).filter(|(tokens, _)| *tokens > limit);
    let long: Vec<(usize, &String)> = long.collect();
    let (tokens, longest) = long.iter().max_by_key(|(tokens, _)| *tokens)?;
    let what = match (long.len(), prompts.len()) {
        (1, 1) => format!("the {kind} has"),
        (1, all) => format!("1 of {all} {kind}s has"),
        (count, all) => format!("{count} of {all} {kind}s have"),
    };
    let message = format!(
        "{what} more than the {limit} tokens that the model reads, start and end included; what follows them is cut off. \
         The longest has {tokens}: {}",
        text::quote(&text::shorten_to(longest, MAX_SHOWN))
    );
    Some(Warning::new(message, hint))
}

/// Returns warnings about images that would be distorted, or are much larger than those that the model was trained on.
///
/// # Errors
/// Returns an error if the source cannot be read.
pub(super) async fn of_sizes(config: &Config, models: &Models, source: &Source) -> Result<Vec<Warning>> {
    if config.spectrum.size.is_some() && !config.spectrum.keep_aspect {
        return Ok(Vec::new());
    }
    let images = source.sample_sizes(MAX_IMAGES).await?;
    let sides = models.sides().multiple;
    let becomes = |image: &Sized| models.resized(image.width, image.height);
    let distorted: Vec<&Sized> =
        images.iter().filter(|image| distortion(image, becomes(image)) > MAX_DISTORTION).collect();
    let pixels = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let trained = models.trained_side().map(|side| (side, side));
    let has_size = config.spectrum.size.is_some() || config.spectrum.area.is_some();
    let large: Vec<&Sized> = match (has_size, trained) {
        (false, Some(trained)) => {
            images.iter().filter(|image| pixels(becomes(image)) > MAX_ENLARGEMENT * pixels(trained)).collect()
        }
        _ => Vec::new(),
    };
    let mut warnings = Vec::new();
    if !distorted.is_empty() {
        let message = format!(
            "{} of {} images that were looked at are distorted by more than a tenth, because {}: {}",
            distorted.len(),
            images.len(),
            match config.spectrum.area {
                Some(_) => "`spectrum.area` makes sides multiples of 64 pixels".to_owned(),
                None => format!("the UNet takes sides that are multiples of {sides} pixels"),
            },
            examples(&distorted, becomes)
        );
        let hint = match config.spectrum.area {
            Some(_) => "set a larger `spectrum.area`: its buckets differ less".to_owned(),
            None => format!("set `spectrum.width` and `spectrum.height` to larger multiples of {sides}"),
        };
        warnings.push(Warning::new(message, hint));
    }
    if let (false, Some((side, _))) = (large.is_empty(), trained) {
        let message = format!(
            "{} of {} images that were looked at are generated with more than {MAX_ENLARGEMENT} times the pixels that the \
             model was trained on, {side} x {side}: {}",
            large.len(),
            images.len(),
            examples(&large, becomes)
        );
        let hint = format!(
            "set `spectrum.width` and `spectrum.height`, to {side} for example: images are then made to fit inside"
        );
        warnings.push(Warning::new(message, hint));
    }
    Ok(warnings)
}

/// Returns the factor by which the aspect ratio of an image changes, at least 1.
fn distortion(image: &Sized, (width, height): (u32, u32)) -> f64 {
    let before = f64::from(image.width) / f64::from(image.height);
    let after = f64::from(width) / f64::from(height);
    (before / after).max(after / before)
}

fn examples(images: &[&Sized], becomes: impl Fn(&Sized) -> (u32, u32)) -> String {
    let example = |image: &&Sized| {
        let (width, height) = becomes(image);
        format!("`{}` ({} x {}) becomes {width} x {height}", image.path, image.width, image.height)
    };
    let shown: Vec<String> = images.iter().take(text::MAX_LISTED).map(example).collect();
    shown.join(", ")
}
