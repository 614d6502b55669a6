//! Describes a Stable Diffusion directory for people, even one that does not fit.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{
    DiffusionError,
    checks::Problems,
    family::ModelIndex,
    files::{self, DiffusionFiles, PARTS, halvings, vae_scale},
    schedulers::SchedulerConfig,
};
use crate::models::{model_dir::read_config, onnx::Signature, tokenizer::Tokenizer};

/// Facts from the files of a model. A fact is `None` if they do not have it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DiffusionFacts {
    /// The name of the pipeline, if it is a known one.
    family: Option<String>,
    /// What the UNet predicts, as diffusers calls it.
    prediction_type: Option<&'static str>,
    /// The configured scheduler, as pipelines name it.
    scheduler: Option<String>,
    /// How timesteps are spaced, as diffusers calls it.
    timestep_spacing: Option<&'static str>,
    /// Whether the graph of the UNet takes one timestep per sample or one for the batch.
    timestep: Option<&'static str>,
    /// The factor by which the VAE's latents are multiplied.
    vae_scale: Option<f64>,
    /// Image pixels per latent pixel, along one side.
    vae_factor: Option<u32>,
    /// The side of the latents that the model was trained with.
    sample_size: Option<u64>,
    /// The side of the images that the model was trained with, in pixels.
    image_size: Option<u64>,
    /// The number of pixels that both sides of an image are multiples of, if the model fits.
    side_multiple: Option<u32>,
}

/// A description of a directory.
#[derive(Debug, Default)]
pub(crate) struct DiffusionDescription {
    pub(crate) facts: DiffusionFacts,
    /// The folders of its tokenizers, each with the number of token ids per prompt.
    pub(crate) tokenizers: Vec<(&'static str, usize)>,
    /// Its graphs, by folder.
    pub(crate) graphs: Vec<(&'static str, Signature)>,
    /// Why it does not fit.
    pub(crate) problems: Vec<DiffusionError>,
}

/// Reads everything that can be read, without loading weights.
pub(crate) fn describe(dir: &Path) -> DiffusionDescription {
    let mut problems = Problems::default();
    let files = problems.keep_all(DiffusionFiles::inspect(dir));
    let graphs: Vec<_> = files::graphs(dir).collect();
    let tokenizer = |part: &'static str| {
        let config = dir.join(part.replace("tokenizer", "text_encoder")).join("config.json");
        Some((part, Tokenizer::from_dir(&dir.join(part), &config).ok()?.length()))
    };
    let tokenizers = PARTS.into_iter().filter(|part| part.starts_with("tokenizer")).filter_map(tokenizer).collect();
    let mut facts = DiffusionFacts::default();
    if let Ok(index) = ModelIndex::read(dir) {
        let path = dir.join("scheduler").join("scheduler_config.json");
        let corrections = index.scheduler_corrections();
        if let Some(scheduler) = problems.keep(SchedulerConfig::read(&path, None, &corrections)) {
            facts.scheduler = Some(scheduler.name().to_string());
            facts.prediction_type = Some(scheduler.prediction_type());
            facts.timestep_spacing = Some(scheduler.timestep_spacing());
        }
        let unet: Option<Value> = read_config(&dir.join("unet").join("config.json")).ok();
        let width = unet.as_ref().and_then(|unet| unet["cross_attention_dim"].as_u64());
        facts.family = Some(index.family(dir, width));
        facts.sample_size = unet.as_ref().and_then(|unet| unet["sample_size"].as_u64());
    }
    if let Ok(vae) = read_config::<Value>(&dir.join("vae_decoder").join("config.json")) {
        let blocks = vae["block_out_channels"].as_array().map(Vec::len);
        facts.vae_factor = blocks.map(halvings);
        facts.vae_scale = vae["scaling_factor"].as_f64().or_else(|| vae_scale().to_string().parse().ok());
    }
    facts.image_size = facts.sample_size.zip(facts.vae_factor).map(|(latents, pixels)| latents * u64::from(pixels));
    facts.side_multiple = files.map(|files| files.sides().multiple);
    let unet = graphs.iter().find(|(part, _)| *part == "unet");
    facts.timestep = unet.and_then(|(_, unet)| unet.is_edited("timestep")).map(|edited| match edited {
        true => "one for the whole batch: edited in memory when the graph is loaded",
        false => "one for each sample",
    });
    DiffusionDescription { facts, tokenizers, graphs, problems: problems.into_vec() }
}
