//! What a directory of Stable Diffusion is, for people; also one that does not fit.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::DiffusionError;
use super::family::ModelIndex;
use super::files::{DiffusionFiles, PARTS, config, halvings, keep, vae_scale};
use super::schedulers::SchedulerConfig;
use crate::models::onnx::Signature;
use crate::models::tokenizer::Tokenizer;

/// What its files say; none where they do not.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DiffusionFacts {
    /// Which of the known pipelines it is.
    family: Option<String>,
    /// What the UNet predicts, in diffusers' word.
    prediction_type: Option<&'static str>,
    /// The scheduler of its configuration, in our word.
    scheduler: Option<String>,
    /// How timesteps are spread, in diffusers' word.
    timestep_spacing: Option<&'static str>,
    /// Whether the UNet takes a timestep for each sample.
    timestep: Option<&'static str>,
    /// What the VAE's latents are multiplied with.
    vae_scale: Option<f64>,
    /// Pixels of an image's side for one of the latents' side.
    vae_factor: Option<u32>,
    /// Side of the latents that it was trained with.
    sample_size: Option<u64>,
    /// Side of the images that these are, in pixels.
    image_size: Option<u64>,
}

/// A directory as it was found.
#[derive(Debug, Default)]
pub(crate) struct DiffusionDescription {
    /// What its files say.
    pub(crate) facts: DiffusionFacts,
    /// The folders of its tokenizers, and how many ids each makes of a text.
    pub(crate) tokenizers: Vec<(&'static str, usize)>,
    /// Its graphs, by their folders.
    pub(crate) graphs: Vec<(&'static str, Signature)>,
    /// Everything because of which it does not fit.
    pub(crate) problems: Vec<DiffusionError>,
}

/// Looks at all that can be looked at; no weights are loaded.
pub(crate) fn describe(dir: &Path) -> DiffusionDescription {
    let mut problems = DiffusionFiles::inspect(dir).err().unwrap_or_default();
    let graph = |part: &'static str| Some((part, Signature::read(&dir.join(part).join("model.onnx")).ok()?));
    let graphs: Vec<_> = PARTS.into_iter().filter_map(graph).collect();
    let tokenizer = |part: &'static str| Some((part, Tokenizer::from_dir(&dir.join(part)).ok()?.length()));
    let tokenizers = PARTS.into_iter().filter_map(tokenizer).collect();
    let mut facts = DiffusionFacts::default();
    if let Ok(index) = ModelIndex::read(dir) {
        let path = dir.join("scheduler").join("scheduler_config.json");
        let corrections = index.scheduler_corrections();
        if let Some(scheduler) = keep(SchedulerConfig::read(&path, None, &corrections), &mut problems) {
            facts.scheduler = Some(scheduler.name().to_string());
            facts.prediction_type = Some(scheduler.prediction_type());
            facts.timestep_spacing = Some(scheduler.timestep_spacing());
        }
        let unet: Option<Value> = config(&dir.join("unet").join("config.json")).ok();
        let width = unet.as_ref().and_then(|unet| unet["cross_attention_dim"].as_u64());
        facts.family = Some(index.family(dir, width));
        facts.sample_size = unet.as_ref().and_then(|unet| unet["sample_size"].as_u64());
    }
    if let Ok(vae) = config::<Value>(&dir.join("vae_decoder").join("config.json")) {
        let blocks = vae["block_out_channels"].as_array().map(Vec::len);
        facts.vae_factor = blocks.map(halvings);
        facts.vae_scale = vae["scaling_factor"].as_f64().or_else(|| vae_scale().to_string().parse().ok());
    }
    facts.image_size = facts.sample_size.zip(facts.vae_factor).map(|(latents, pixels)| latents * u64::from(pixels));
    let unet = graphs.iter().find(|(part, _)| *part == "unet");
    facts.timestep = unet.and_then(|(_, unet)| unet.is_edited("timestep")).map(|edited| match edited {
        true => "one for the whole batch: edited in memory as it is loaded",
        false => "one for each sample",
    });
    DiffusionDescription { facts, tokenizers, graphs, problems }
}
