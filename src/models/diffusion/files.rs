//! What a directory of Stable Diffusion holds, in the layout that `optimum-cli export onnx` writes. No weights
//! are loaded here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DiffusionError;
use super::family::{ModelIndex, TextEncoders, TimeIds};
use super::schedulers::{Scheduler, SchedulerConfig, SchedulerName};
use crate::limited_read;
use crate::models::onnx::{Element, Signature, Want, digest_of_all};

/// The directories whose files make an image, where they are there. The order is part of the digest.
pub(crate) const PARTS: [&str; 8] =
    ["scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae_decoder", "vae_encoder"];

/// The encoder's output with mean and log-variance.
pub(super) const PARAMETERS: &str = "latent_parameters";

/// The encoder's output with the mean alone, as old exports have it.
pub(super) const MEAN: &str = "latent_sample";

/// Rows of a call.
pub(super) const BATCH: Want = Want::Any("batch");

pub(super) const FLOATS: &[Element] = &[Element::F32, Element::F16];

/// A model directory that fits, with what its configurations say.
#[derive(Clone, Debug)]
pub(crate) struct DiffusionFiles {
    dir: PathBuf,
    /// Channels of the latents.
    pub(super) latent_channels: usize,
    /// Pixels of an image's side for one of the latents' side.
    pub(super) pixels_per_latent: u32,
    /// Latents' sides that are multiples of this go through the UNet without cutting.
    pub(super) unet_multiple: u32,
    /// What prompts are encoded with.
    pub(super) text: TextEncoders,
    /// What the UNet is told beside the prompt.
    pub(super) time_ids: TimeIds,
    /// The VAE's latents in the scale of the UNet's.
    pub(super) scaling: Scaling,
    /// Keys of the scheduler's that the pipeline sets.
    scheduler_corrections: Vec<(&'static str, Value)>,
    /// Whether the VAE's encoder gives the posterior's mean alone, and not its variance.
    pub(super) mean_only: bool,
}

#[derive(Deserialize)]
struct UnetConfig {
    in_channels: usize,
    block_out_channels: Vec<usize>,
}

#[derive(Deserialize)]
struct VaeConfig {
    block_out_channels: Vec<usize>,
    #[serde(default = "four")]
    latent_channels: usize,
    /// diffusers' default, which the configuration of SD 1.4 leaves out.
    #[serde(default = "vae_scale")]
    scaling_factor: f32,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
    #[serde(default)]
    force_upcast: bool,
}

fn four() -> usize {
    4
}
pub(super) fn vae_scale() -> f32 {
    0.18215
}

/// How the VAE's latents become the UNet's: minus a mean, times a factor, by channel.
#[derive(Clone, Debug)]
pub(super) struct Scaling(Vec<(f32, f32)>);

impl Scaling {
    /// Latents [channels, ...] of the VAE as the UNet takes them.
    pub(super) fn apply(&self, latents: &mut [f32]) {
        self.by_channel(latents, |latent, mean, factor| (latent - mean) * factor);
    }

    /// The other way.
    pub(super) fn undo(&self, latents: &mut [f32]) {
        self.by_channel(latents, |latent, mean, factor| latent / factor + mean);
    }

    fn by_channel(&self, latents: &mut [f32], change: impl Fn(f32, f32, f32) -> f32) {
        let values = latents.len() / self.0.len().max(1);
        for (channel, &(mean, factor)) in latents.chunks_exact_mut(values.max(1)).zip(&self.0) {
            for latent in channel {
                *latent = change(*latent, mean, factor);
            }
        }
    }
}

impl VaeConfig {
    /// diffusers takes mean and deviation of each channel where both are given, else one factor; the shift is that
    /// of later VAEs.
    fn scaling(&self, path: &Path) -> Result<Scaling, DiffusionError> {
        let shift = self.shift_factor.unwrap_or(0.0);
        let (Some(means), Some(deviations)) = (&self.latents_mean, &self.latents_std) else {
            return Ok(Scaling(vec![(shift, self.scaling_factor); self.latent_channels]));
        };
        if means.len() != self.latent_channels || deviations.len() != self.latent_channels {
            let allowed = format!("the VAE has {} latent channels", self.latent_channels);
            return Err(unsupported(path.to_owned(), "latents_mean", "of another length", &allowed));
        }
        let channels = means.iter().zip(deviations);
        Ok(Scaling(channels.map(|(mean, deviation)| (*mean, self.scaling_factor / deviation)).collect()))
    }
}

impl DiffusionFiles {
    /// Reads a directory: its configurations, its tokenizers and the signatures of its graphs, without weights.
    /// Its scheduler is looked at when it is asked for: the pipeline may name another.
    ///
    /// # Errors
    /// Every file that is missing, broken or does not fit, with what it has and what is expected. Without its
    /// `model_index.json` it is no such directory, and that is said alone.
    pub(crate) fn inspect(dir: &Path) -> Result<Self, Vec<DiffusionError>> {
        let index = ModelIndex::read(dir).map_err(|error| vec![error])?;
        let mut problems = Vec::new();
        let unet: Option<UnetConfig> = keep(config(&dir.join("unet").join("config.json")), &mut problems);
        let vae_path = dir.join("vae_decoder").join("config.json");
        let vae: Option<VaeConfig> = keep(config(&vae_path), &mut problems);
        let channels = vae.as_ref().map(|vae| vae.latent_channels);
        if let (Some(unet), Some(channels)) = (&unet, channels)
            && unet.in_channels != channels
        {
            let allowed = format!("the VAE has {channels} latent channels, and only those are fed");
            let found = unet.in_channels.to_string();
            problems.push(unsupported(dir.join("unet").join("config.json"), "in_channels", &found, &allowed));
        }
        let text = TextEncoders::inspect(dir, &index).map_err(|found| problems.extend(found)).ok();
        let scaling = vae.as_ref().and_then(|vae| keep(vae.scaling(&vae_path), &mut problems));
        let expected = Expected { latents: latents(channels), is_xl: index.is_xl(), text: text.as_ref() };
        problems.extend(check_unet(dir, &expected, index.time_ids()));
        // diffusers' other pipelines do not look at the key, which every VAE has
        let force_upcast = index.is_xl() && vae.as_ref().is_some_and(|vae| vae.force_upcast);
        let mean_only = check_vae(dir, channels, force_upcast, &mut problems);
        match (unet, vae, text, scaling) {
            (Some(unet), Some(vae), Some(text), Some(scaling)) if problems.is_empty() => Ok(Self {
                dir: dir.to_owned(),
                latent_channels: vae.latent_channels,
                pixels_per_latent: halvings(vae.block_out_channels.len()),
                unet_multiple: halvings(unet.block_out_channels.len()),
                text,
                time_ids: index.time_ids(),
                scaling,
                scheduler_corrections: index.scheduler_corrections(),
                mean_only,
            }),
            _ => Err(problems),
        }
    }

    /// The scheduler of the directory, or another by name with the directory's configuration, cut into timesteps.
    ///
    /// # Errors
    /// As [`SchedulerConfig::read`] and [`SchedulerConfig::build`].
    pub(crate) fn scheduler(
        &self,
        instead: Option<SchedulerName>,
        timesteps: u32,
    ) -> Result<Box<dyn Scheduler>, DiffusionError> {
        self.scheduler_config(instead)?.build(timesteps)
    }

    /// Which scheduler the directory asks for.
    ///
    /// # Errors
    /// As [`SchedulerConfig::read`].
    pub(crate) fn scheduler_name(&self) -> Result<SchedulerName, DiffusionError> {
        self.scheduler_config(None).map(|config| config.name())
    }

    /// SHA-256 in hex over all files that make an image: graphs, weights, configurations and vocabulary.
    ///
    /// # Errors
    /// [`DiffusionError::Read`] and [`OnnxError::Io`](crate::models::onnx::OnnxError::Io) name the file.
    pub(crate) fn digest(&self) -> Result<String, DiffusionError> {
        let mut names = vec!["model_index.json".to_owned()];
        for part in PARTS.into_iter().filter(|part| self.dir.join(part).is_dir()) {
            let read = |source| DiffusionError::Read { path: self.dir.join(part), source };
            let mut files = Vec::new();
            for entry in fs::read_dir(self.dir.join(part)).map_err(read)? {
                let entry = entry.map_err(read)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_file() && !name.starts_with('.') {
                    files.push(format!("{part}/{name}"));
                }
            }
            files.sort();
            names.extend(files);
        }
        Ok(digest_of_all(&self.dir, &names)?)
    }

    /// A part's graph.
    pub(super) fn graph(&self, part: &str) -> PathBuf {
        self.dir.join(part).join("model.onnx")
    }

    /// Bytes of the UNet with its weights.
    ///
    /// # Errors
    /// [`DiffusionError::Read`] names the directory.
    pub(super) fn unet_bytes(&self) -> Result<u64, DiffusionError> {
        let path = self.dir.join("unet");
        let sizes = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| entry?.metadata().map(|data| data.len())).sum::<io::Result<u64>>());
        sizes.map_err(|source| DiffusionError::Read { path, source })
    }

    fn scheduler_config(&self, instead: Option<SchedulerName>) -> Result<SchedulerConfig, DiffusionError> {
        let path = self.dir.join("scheduler").join("scheduler_config.json");
        SchedulerConfig::read(&path, instead, &self.scheduler_corrections)
    }
}

/// What the UNet has to take, as far as the other parts say.
struct Expected<'a> {
    latents: [Want; 4],
    is_xl: bool,
    text: Option<&'a TextEncoders>,
}

/// Where the UNet does not fit.
fn check_unet(dir: &Path, expected: &Expected<'_>, time_ids: TimeIds) -> Vec<DiffusionError> {
    let mut problems = Vec::new();
    let Some(unet) = keep(Signature::read(&dir.join("unet").join("model.onnx")), &mut problems) else {
        return problems;
    };
    let hidden = [BATCH, Want::Any("tokens"), Want::Any("width")];
    let hidden = expected.text.map_or(hidden, TextEncoders::hidden_shape);
    let mut known = vec!["sample", "timestep", "encoder_hidden_states"];
    let mut found = vec![
        unet.expect_input("sample", FLOATS, &expected.latents).err(),
        unet.expect_input("encoder_hidden_states", FLOATS, &hidden).err(),
    ];
    if expected.is_xl {
        known.extend(["text_embeds", "time_ids"]);
        let width = expected.text.and_then(|text| text.pooled).map_or(Want::Any("width"), Want::Exactly);
        found.push(unet.expect_input("text_embeds", FLOATS, &[BATCH, width]).err());
        found.push(unet.expect_input("time_ids", FLOATS, &[BATCH, Want::Exactly(time_ids.count())]).err());
    }
    found.push(unet.expect_only(&known).err());
    found.push(unet.expect_per_sample("timestep").err());
    found.push(unet.expect_output("out_sample", FLOATS, &expected.latents).err());
    found.into_iter().flatten().map(Into::into).collect()
}

/// Looks at both halves of the VAE; whether the encoder gives no variance.
fn check_vae(dir: &Path, channels: Option<usize>, force_upcast: bool, problems: &mut Vec<DiffusionError>) -> bool {
    let latents = latents(channels);
    let pixels = [BATCH, Want::Exactly(3), Want::Any("height"), Want::Any("width")];
    // in half precision the values of such a VAE overflow; diffusers runs it in single precision
    let floats = if force_upcast { &[Element::F32] } else { FLOATS };

    let mut mean_only = false;
    if let Some(encoder) = keep(Signature::read(&dir.join("vae_encoder").join("model.onnx")), problems) {
        keep(encoder.expect_input("sample", floats, &pixels), problems);
        if let Some(operator) = encoder.random_operator() {
            let allowed = "an image would never be the same twice: export the encoder with `latent_parameters`";
            problems.push(unsupported(encoder.path.clone(), "operators", &format!("`{operator}`"), allowed));
        }
        mean_only = encoder.output(PARAMETERS).is_none() && encoder.output(MEAN).is_some();
        if mean_only {
            keep(encoder.expect_output(MEAN, floats, &latents), problems);
        } else {
            let moments = channels.map_or(Want::Any("moments"), |channels| Want::Exactly(2 * channels));
            let moments = [BATCH, moments, Want::Any("height"), Want::Any("width")];
            keep(encoder.expect_output(PARAMETERS, floats, &moments), problems);
        }
    }

    if let Some(decoder) = keep(Signature::read(&dir.join("vae_decoder").join("model.onnx")), problems) {
        keep(decoder.expect_input("latent_sample", floats, &latents), problems);
        keep(decoder.expect_output("sample", floats, &pixels), problems);
    }
    mean_only
}

/// The shape of latents, whose channels may not be known.
fn latents(channels: Option<usize>) -> [Want; 4] {
    [BATCH, channels.map_or(Want::Any("channels"), Want::Exactly), Want::Any("height"), Want::Any("width")]
}

/// What there is, or one problem more.
pub(super) fn keep<T, E>(result: Result<T, E>, problems: &mut Vec<DiffusionError>) -> Option<T>
where
    E: Into<DiffusionError>,
{
    result.map_err(|error| problems.push(error.into())).ok()
}

/// The factor by which a network shrinks a side: it halves between one block and the next.
pub(super) fn halvings(blocks: usize) -> u32 {
    let halvings = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    1_u32.checked_shl(halvings).unwrap_or(1 << 31)
}

pub(super) fn unsupported(path: PathBuf, key: &'static str, found: &str, allowed: &str) -> DiffusionError {
    DiffusionError::Unsupported { path, key, found: found.to_owned(), allowed: allowed.to_owned() }
}

pub(super) fn config<T: DeserializeOwned>(path: &Path) -> Result<T, DiffusionError> {
    let text = limited_read::read(path, limited_read::CONFIGURATION)
        .map_err(|source| DiffusionError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| DiffusionError::Config { path: path.to_owned(), source })
}
