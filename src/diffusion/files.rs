//! What a directory of Stable Diffusion 1.x holds, in the layout that `optimum-cli export onnx` writes. No weights
//! are loaded here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DiffusionError;
use super::schedulers::{Scheduler, SchedulerConfig, SchedulerName};
use crate::onnx::{Element, Signature, Want, digest_of_all};
use crate::tokens::Tokenizer;

/// The directories whose files make a picture. The order is part of the digest.
const PARTS: [&str; 6] = ["scheduler", "text_encoder", "tokenizer", "unet", "vae_decoder", "vae_encoder"];

const FLOATS: &[Element] = &[Element::F32, Element::F16];
const INTEGERS: &[Element] = &[Element::I64, Element::I32];

/// A model directory that fits, with what its configurations say.
#[derive(Clone, Debug)]
pub(crate) struct DiffusionFiles {
    dir: PathBuf,
    /// Channels of the latents.
    pub(super) latent_channels: usize,
    /// Pixels of a picture's side for one of the latents' side.
    pub(super) pixels_per_latent: u32,
    /// Latents' sides that are multiples of this go through the UNet without cutting.
    pub(super) unet_multiple: u32,
    /// Token ids of a prompt.
    pub(super) prompt_length: usize,
    /// Values for one token of an encoded prompt.
    pub(super) prompt_width: usize,
    /// Latents are the VAE's, minus `shift`, times `scale`.
    pub(super) scale: f32,
    /// See `scale`.
    pub(super) shift: f32,
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name")]
    class: String,
}

#[derive(Deserialize)]
struct UnetConfig {
    in_channels: usize,
    block_out_channels: Vec<usize>,
}

#[derive(Deserialize)]
struct TextConfig {
    hidden_size: usize,
}

#[derive(Deserialize)]
struct VaeConfig {
    block_out_channels: Vec<usize>,
    #[serde(default = "four")]
    latent_channels: usize,
    /// diffusers' default, which the configuration of SD 1.4 leaves out.
    #[serde(default = "sd_scaling_factor")]
    scaling_factor: f32,
    shift_factor: Option<f32>,
    latents_mean: Option<Value>,
}

fn four() -> usize {
    4
}
fn sd_scaling_factor() -> f32 {
    0.18215
}

impl DiffusionFiles {
    /// Reads a directory: its configurations, its tokenizer and the signatures of its graphs, without weights.
    /// Its scheduler is looked at when it is asked for: the pipeline may name another.
    ///
    /// # Errors
    /// The first file that is missing, broken or does not fit, with what it has and what is expected.
    pub(crate) fn inspect(dir: &Path) -> Result<Self, DiffusionError> {
        check_pipeline(dir)?;
        let unet: UnetConfig = config(&dir.join("unet").join("config.json"))?;
        let text: TextConfig = config(&dir.join("text_encoder").join("config.json"))?;
        let vae_path = dir.join("vae_decoder").join("config.json");
        let vae: VaeConfig = config(&vae_path)?;
        if vae.latents_mean.is_some_and(|mean| !mean.is_null()) {
            return Err(unsupported(
                vae_path,
                "latents_mean",
                "set",
                "only a scaling factor and a shift are supported",
            ));
        }
        if unet.in_channels != vae.latent_channels {
            let allowed = format!("the VAE has {} latent channels, and only those are fed", vae.latent_channels);
            let found = unet.in_channels.to_string();
            return Err(unsupported(dir.join("unet").join("config.json"), "in_channels", &found, &allowed));
        }
        let prompt_length = Tokenizer::from_dir(&dir.join("tokenizer"))?.length();
        let files = Self {
            dir: dir.to_owned(),
            prompt_length,
            prompt_width: text.hidden_size,
            latent_channels: vae.latent_channels,
            pixels_per_latent: halvings(&vae.block_out_channels),
            unet_multiple: halvings(&unet.block_out_channels),
            scale: vae.scaling_factor,
            shift: vae.shift_factor.unwrap_or(0.0),
        };
        files.check_graphs()?;
        Ok(files)
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

    /// SHA-256 in hex over all files that make a picture: graphs, weights, configurations and vocabulary.
    ///
    /// # Errors
    /// [`DiffusionError::Read`] and [`OnnxError::Io`](crate::onnx::OnnxError::Io) name the file.
    pub(crate) fn digest(&self) -> Result<String, DiffusionError> {
        let mut names = Vec::new();
        for part in PARTS {
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

    /// The tokenizer's directory.
    pub(super) fn tokenizer_dir(&self) -> PathBuf {
        self.dir.join("tokenizer")
    }

    fn scheduler_config(&self, instead: Option<SchedulerName>) -> Result<SchedulerConfig, DiffusionError> {
        SchedulerConfig::read(&self.dir.join("scheduler").join("scheduler_config.json"), instead)
    }

    fn check_graphs(&self) -> Result<(), DiffusionError> {
        use Want::{Any, Exactly};
        let (batch, height, width) = (Any("batch"), Any("height"), Any("width"));
        let latents = [batch, Exactly(self.latent_channels), height, width];
        let pixels = [batch, Exactly(3), height, width];
        let prompt = [batch, Exactly(self.prompt_length), Exactly(self.prompt_width)];

        let text = Signature::read(&self.graph("text_encoder"))?;
        text.expect_only(&["input_ids"])?;
        text.expect_input("input_ids", INTEGERS, &[batch, Exactly(self.prompt_length)])?;
        text.expect_output("last_hidden_state", FLOATS, &prompt)?;

        let unet = Signature::read(&self.graph("unet"))?;
        unet.expect_only(&["sample", "timestep", "encoder_hidden_states"])?;
        unet.expect_input("sample", FLOATS, &latents)?;
        unet.expect_input("encoder_hidden_states", FLOATS, &prompt)?;
        // One timestep for the whole batch, as a graph with a scalar has it, would put samples of different
        // strengths into different batches.
        unet.expect_input("timestep", &[Element::F32, Element::F16, Element::I64, Element::I32], &[batch])?;
        unet.expect_output("out_sample", FLOATS, &latents)?;

        let encoder = Signature::read(&self.graph("vae_encoder"))?;
        encoder.expect_input("sample", FLOATS, &pixels)?;
        // Mean and log-variance. A graph that draws from the posterior itself gives `latent_sample` and is never
        // the same twice.
        let moments = [batch, Exactly(2 * self.latent_channels), height, width];
        encoder.expect_output("latent_parameters", FLOATS, &moments)?;

        let decoder = Signature::read(&self.graph("vae_decoder"))?;
        decoder.expect_input("latent_sample", FLOATS, &latents)?;
        decoder.expect_output("sample", FLOATS, &pixels)?;
        Ok(())
    }
}

/// Holds the directory to Stable Diffusion 1.x and 2.x.
fn check_pipeline(dir: &Path) -> Result<(), DiffusionError> {
    let path = dir.join("model_index.json");
    let index: ModelIndex = config(&path)?;
    let plain = index.class.trim_start_matches("ORT");
    if ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"].contains(&plain) {
        return Ok(());
    }
    let found = format!("`{}`", index.class);
    let allowed = "supported are `StableDiffusionPipeline` and `StableDiffusionImg2ImgPipeline`";
    Err(unsupported(path, "_class_name", &found, allowed))
}

/// The factor by which a network shrinks a side: it halves between one block and the next.
fn halvings(blocks: &[usize]) -> u32 {
    let halvings = u32::try_from(blocks.len().saturating_sub(1)).unwrap_or(u32::MAX);
    1_u32.checked_shl(halvings).unwrap_or(1 << 31)
}

fn unsupported(path: PathBuf, key: &'static str, found: &str, allowed: &str) -> DiffusionError {
    DiffusionError::Unsupported { path, key, found: found.to_owned(), allowed: allowed.to_owned() }
}

fn config<T: DeserializeOwned>(path: &Path) -> Result<T, DiffusionError> {
    let text = fs::read(path).map_err(|source| DiffusionError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| DiffusionError::Config { path: path.to_owned(), source })
}
