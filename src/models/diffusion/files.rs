//! The contents of a Stable Diffusion directory, in the layout that `optimum-cli export onnx` writes. Weights are not
//! loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    DiffusionError,
    checks::{BATCH, FLOATS, GRAPH, Problems},
    family::{ModelIndex, TextEncoders, TimeIds},
    latents::{Scaling, Size},
    schedulers::{Scheduler, SchedulerConfig, SchedulerName},
    sides::Sides,
};
use crate::models::{
    model_dir::{FileError, digest_of_files, file_names, read_config},
    onnx::{Element, OnnxError, Share, Signature, Want, graph_file},
    tokenizer::Tokenizer,
};

/// The folders that a model may have. Their order is part of the digest.
pub(crate) const PARTS: [&str; 8] =
    ["scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae_decoder", "vae_encoder"];

/// The files of a part that affect an image, besides its graph and weights. A part has only some of them.
const CONFIGURATIONS: [&str; 8] = [
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "scheduler_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// The encoder's output with mean and log-variance.
pub(super) const PARAMETERS: &str = "latent_parameters";

/// The encoder's output with the mean alone, in old exports.
pub(super) const MEAN: &str = "latent_sample";

/// The UNet's graph for speed on a GPU. Its weights are those of the other one.
pub(crate) const FAST_UNET: &str = "model.cuda.onnx";

/// A model directory that fits, with the contents of its configurations.
#[derive(Debug, Clone)]
pub(crate) struct DiffusionFiles {
    dir: PathBuf,
    /// The graph of each part that has one.
    graphs: BTreeMap<&'static str, Graph>,
    /// Channels of the latents.
    pub(super) latent_channels: usize,
    pub(super) sides: Sides,
    trained_side: Option<u32>,
    /// Latents whose sides are multiples of this halve evenly in the UNet.
    pub(super) unet_multiple: u32,
    pub(super) unet: UnetShape,
    pub(super) text: TextEncoders,
    /// Which time ids the UNet expects.
    pub(super) time_ids: TimeIds,
    pub(super) scaling: Scaling,
    /// Keys of the scheduler that the pipeline overrides.
    scheduler_corrections: Vec<(&'static str, Value)>,
    /// Whether the VAE's encoder returns only the posterior's mean and not its variance.
    pub(super) mean_only: bool,
}

/// What the memory and the speed of the UNet follow from.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnetShape {
    /// The size of the graph with its weights.
    pub(super) bytes: u64,
    /// The size of a value of most tensors.
    pub(super) bytes_per_value: u64,
    /// Channels of the first level.
    pub(super) width: usize,
    /// The first level with attention; each has half the sides of the one before.
    pub(super) attends_from: usize,
    /// Whether the graph has attention as one operator, which does not need a matrix of all pairs of pixels.
    pub(super) is_attention_fused: bool,
    /// Floating-point operations of one row with n latent pixels: the factors of 1, n and n². `None` if the configuration
    /// does not say.
    pub(super) flop: Option<[f64; 3]>,
}

impl UnetShape {
    /// Whether it takes latents in half precision, and so computes in it.
    pub(super) fn is_half(&self) -> bool {
        self.bytes_per_value == 2
    }

    /// Returns the floating-point operations of one row; `None` if the configuration does not say.
    pub(super) fn flop(&self, size: Size) -> Option<f64> {
        let ([constant, linear, square], pixels) = (self.flop?, size.area() as f64);
        Some(constant + pixels * (linear + pixels * square))
    }
}

/// Where the graph of a part is.
#[derive(Debug, Clone)]
struct Graph {
    path: PathBuf,
    /// Its file and those of its weights, relative to the folder of the part.
    files: Vec<String>,
    /// The size of these files.
    bytes: u64,
}

impl Graph {
    fn new(graph: &Signature, folder: &Path) -> Self {
        Self { path: graph.path.clone(), files: graph.files(folder), bytes: graph.weights.size_with(&graph.path) }
    }
}

#[derive(Deserialize)]
struct UnetConfig {
    in_channels: usize,
    block_out_channels: Vec<usize>,
    #[serde(default)]
    down_block_types: Vec<String>,
    /// What `tools/export_models.py` adds to diffusers' configuration.
    flops_per_evaluation: Option<FlopsConfig>,
    /// The side of the latents that it was trained with; a list of both for some models.
    sample_size: Option<Value>,
}

#[derive(Deserialize)]
struct FlopsConfig {
    polynomial: [f64; 3],
}

#[derive(Deserialize)]
struct VaeConfig {
    block_out_channels: Vec<usize>,
    #[serde(default = "four")]
    latent_channels: usize,
    /// The default is diffusers'; the configuration of SD 1.4 omits the key.
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

impl VaeConfig {
    /// Returns the scaling as diffusers computes it: by the mean and deviation of each channel if the file has both,
    /// otherwise by one factor. Later VAEs also have a shift.
    fn scaling(&self, path: &Path) -> Result<Scaling, FileError> {
        let shift = self.shift_factor.unwrap_or(0.0);
        let (Some(means), Some(deviations)) = (&self.latents_mean, &self.latents_std) else {
            return Ok(Scaling::new(vec![(shift, self.scaling_factor); self.latent_channels]));
        };
        if means.len() != self.latent_channels || deviations.len() != self.latent_channels {
            let allowed = format!("the VAE has {} latent channels", self.latent_channels);
            return Err(FileError::unsupported(path, "latents_mean", "of another length", allowed));
        }
        let channels = means.iter().zip(deviations);
        Ok(Scaling::new(channels.map(|(mean, deviation)| (*mean, self.scaling_factor / deviation)).collect()))
    }
}

impl DiffusionFiles {
    /// Reads a directory: its configurations, its tokenizers and the signatures of its graphs, but no weights. The
    /// scheduler is read when it is needed, since the pipeline may name another.
    ///
    /// # Errors
    /// Returns every file that is missing, broken or does not fit. Without `model_index.json` the directory is not a
    /// model, and that is the only error.
    pub(crate) fn inspect(dir: &Path) -> Result<Self, Vec<DiffusionError>> {
        let index = ModelIndex::read(dir).map_err(|error| vec![error])?;
        if let Some(error) = not_exported(dir) {
            return Err(vec![error.into()]);
        }
        let mut problems = Problems::default();
        let unet: Option<UnetConfig> = problems.keep(read_config(&dir.join("unet").join("config.json")));
        let vae_path = dir.join("vae_decoder").join("config.json");
        let vae: Option<VaeConfig> = problems.keep(read_config(&vae_path));
        let channels = vae.as_ref().map(|vae| vae.latent_channels);
        if let (Some(unet), Some(channels)) = (&unet, channels)
            && unet.in_channels != channels
        {
            let allowed = format!("the VAE has {channels} latent channels, and the UNet must take the same number");
            let (path, found) = (dir.join("unet").join("config.json"), unet.in_channels.to_string());
            problems.add(FileError::unsupported(path, "in_channels", found, allowed));
        }
        let text = problems.keep_all(TextEncoders::inspect(dir, &index));
        let scaling = vae.as_ref().and_then(|vae| problems.keep(vae.scaling(&vae_path)));
        let expected = Expected { latents: latents(channels), is_xl: index.is_xl(), text: text.as_ref() };
        let graph = check_unet(dir, &expected, index.time_ids(), &mut problems);
        let measures_sizes = graph.as_ref().is_some_and(Signature::measures_sizes);
        // Every VAE has this key, but diffusers reads it only in its SDXL pipelines.
        let force_upcast = index.is_xl() && vae.as_ref().is_some_and(|vae| vae.force_upcast);
        let mean_only = check_vae(dir, channels, force_upcast, &mut problems);
        match (unet, graph, vae, text, scaling) {
            (Some(unet), Some(graph), Some(vae), Some(text), Some(scaling)) if problems.is_empty() => Ok(Self {
                dir: dir.to_owned(),
                graphs: graphs(dir).map(|(part, graph)| (part, Graph::new(&graph, &dir.join(part)))).collect(),
                latent_channels: vae.latent_channels,
                sides: sides(&unet, &vae, measures_sizes),
                trained_side: unet.trained_side(&vae),
                unet_multiple: halvings(unet.block_out_channels.len()),
                unet: unet.shape(&graph),
                text,
                time_ids: index.time_ids(),
                scaling,
                scheduler_corrections: index.scheduler_corrections(),
                mean_only,
            }),
            _ => Err(problems.into_vec()),
        }
    }

    /// Returns the directory's scheduler with this many timesteps, or another scheduler with the directory's
    /// configuration.
    ///
    /// # Errors
    /// Returns the errors of [`SchedulerConfig::read`] and [`SchedulerConfig::build`].
    pub(crate) fn scheduler(
        &self,
        instead: Option<SchedulerName>,
        timesteps: u32,
    ) -> Result<Box<dyn Scheduler>, DiffusionError> {
        self.scheduler_config(instead)?.build(timesteps)
    }

    /// Returns the name of the directory's scheduler.
    ///
    /// # Errors
    /// Returns the errors of [`SchedulerConfig::read`].
    pub(crate) fn scheduler_name(&self) -> Result<SchedulerName, DiffusionError> {
        self.scheduler_config(None).map(|config| config.name())
    }

    /// Returns a SHA-256 in hex over all files that affect an image: graphs, weights, configurations and vocabularies.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(crate) fn digest(&self) -> Result<String, DiffusionError> {
        let mut names = vec!["model_index.json".to_owned()];
        for part in PARTS.into_iter().filter(|part| self.dir.join(part).is_dir()) {
            let own = file_names(&self.dir.join(part))?.into_iter();
            let mut affecting: BTreeSet<String> = own.filter(|name| CONFIGURATIONS.contains(&name.as_str())).collect();
            affecting.extend(self.graphs.get(part).into_iter().flat_map(|graph| graph.files.iter().cloned()));
            names.extend(affecting.into_iter().map(|name| format!("{part}/{name}")));
        }
        Ok(digest_of_files(&self.dir, &names)?)
    }

    /// Reads the tokenizers of the text encoders.
    ///
    /// # Errors
    /// Returns the errors of [`Tokenizer::from_dir`].
    pub(crate) fn tokenizers(&self) -> Result<Vec<Tokenizer>, DiffusionError> {
        self.text.encoders.iter().map(|encoder| Ok(Tokenizer::from_dir(&encoder.tokenizer, &encoder.config)?)).collect()
    }

    /// Returns the sides of images that the models take.
    pub(crate) fn sides(&self) -> Sides {
        self.sides
    }

    /// Returns the side of the images that the model was trained with, in pixels, if its configuration says so.
    pub(crate) fn trained_side(&self) -> Option<u32> {
        self.trained_side
    }

    /// Returns the path of the UNet's graph for speed.
    ///
    /// # Errors
    /// Returns [`DiffusionError::NoFastUnet`] if the directory has none.
    pub(crate) fn fast_unet(&self) -> Result<PathBuf, DiffusionError> {
        let path = self.graph("unet").with_file_name(FAST_UNET);
        if path.is_file() { Ok(path) } else { Err(DiffusionError::NoFastUnet { path }) }
    }

    /// Returns the size of the latents of images with these sides, or with the nearest that the models take.
    pub(super) fn latents_of(&self, width: u32, height: u32) -> Size {
        let [width, height] = [width, height].map(|side| self.sides.of(side) / self.sides.pixels_per_latent);
        Size { width, height }
    }

    /// Returns the path of a part's graph.
    pub(super) fn graph(&self, part: &str) -> PathBuf {
        self.graphs.get(part).map_or_else(|| self.dir.join(part), |graph| graph.path.clone())
    }

    /// Whether the UNet computes in half precision.
    pub(crate) fn has_half_unet(&self) -> bool {
        self.unet.is_half()
    }

    /// Returns which part of a GPU's memory each graph may take, and its size with its weights in bytes.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (Share, u64)> {
        self.graphs.iter().map(|(part, graph)| {
            let share = match *part {
                "unet" => Share::Unet,
                "vae_decoder" => Share::Decoder,
                "vae_encoder" => Share::Encoder,
                _ => Share::Other,
            };
            (share, graph.bytes)
        })
    }

    fn scheduler_config(&self, instead: Option<SchedulerName>) -> Result<SchedulerConfig, DiffusionError> {
        let path = self.dir.join("scheduler").join("scheduler_config.json");
        SchedulerConfig::read(&path, instead, &self.scheduler_corrections)
    }
}

/// Returns the graphs of a directory by their part, as far as they can be read.
pub(super) fn graphs(dir: &Path) -> impl Iterator<Item = (&'static str, Signature)> {
    PARTS.into_iter().filter_map(|part| Some((part, Signature::find(&dir.join(part), GRAPH).ok()?)))
}

/// Returns the paths of the graphs in a directory, as far as they exist.
pub(crate) fn graph_paths(dir: &Path) -> Vec<PathBuf> {
    PARTS.into_iter().filter_map(|part| graph_file::find(&dir.join(part), GRAPH).ok()).collect()
}

/// Returns [`OnnxError::NotExported`] if a part has weights of another framework in place of its graph.
fn not_exported(dir: &Path) -> Option<OnnxError> {
    let weights = |part: &str| match graph_file::find(&dir.join(part), GRAPH) {
        Err(OnnxError::NotExported { weights, .. }) => Some(format!("{part}/{weights}")),
        _ => None,
    };
    let weights = ["unet", "vae", "vae_encoder", "vae_decoder", "text_encoder", "text_encoder_2"]
        .into_iter()
        .find_map(weights)?;
    let location = dir.display().to_string();
    Some(graph_file::not_exported(&location, &location, &weights))
}

/// What the UNet must take, as far as the other parts determine it.
struct Expected<'a> {
    latents: [Want; 4],
    is_xl: bool,
    text: Option<&'a TextEncoders>,
}

/// Checks the inputs and outputs of the UNet. Returns its graph, if there is one.
fn check_unet(dir: &Path, expected: &Expected<'_>, time_ids: TimeIds, problems: &mut Problems) -> Option<Signature> {
    let unet = problems.keep(Signature::find(&dir.join("unet"), GRAPH))?;
    let hidden = [BATCH, Want::Any("tokens"), Want::Any("width")];
    let hidden = expected.text.map_or(hidden, TextEncoders::hidden_shape);
    let mut known = vec!["sample", "timestep", "encoder_hidden_states"];
    problems.keep(unet.expect_input("sample", FLOATS, &expected.latents));
    problems.keep(unet.expect_input("encoder_hidden_states", FLOATS, &hidden));
    if expected.is_xl {
        known.extend(["text_embeds", "time_ids"]);
        let width = expected.text.and_then(|text| text.pooled).map_or(Want::Any("width"), Want::Exactly);
        problems.keep(unet.expect_input("text_embeds", FLOATS, &[BATCH, width]));
        problems.keep(unet.expect_input("time_ids", FLOATS, &[BATCH, Want::Exactly(time_ids.count())]));
    }
    problems.keep(unet.expect_only(&known));
    problems.keep(unet.expect_batched("timestep"));
    problems.keep(unet.expect_output("out_sample", FLOATS, &expected.latents));
    Some(unet)
}

/// Checks both halves of the VAE. Returns whether the encoder returns only the mean.
fn check_vae(dir: &Path, channels: Option<usize>, force_upcast: bool, problems: &mut Problems) -> bool {
    let latents = latents(channels);
    let pixels = [BATCH, Want::Exactly(3), Want::Any("height"), Want::Any("width")];
    // The values of such a VAE overflow in half precision; diffusers runs it in single precision.
    let floats = if force_upcast { &[Element::F32] } else { FLOATS };

    let mut mean_only = false;
    if let Some(encoder) = problems.keep(Signature::find(&dir.join("vae_encoder"), GRAPH)) {
        problems.keep(encoder.expect_input("sample", floats, &pixels));
        if let Some(operator) = encoder.random_operator() {
            let allowed = "the same request would give another image each time; export the encoder with the output \
                           `latent_parameters`";
            let found = format!("`{operator}`");
            problems.add(FileError::unsupported(encoder.path.clone(), "operators", found, allowed));
        }
        mean_only = encoder.output(PARAMETERS).is_none() && encoder.output(MEAN).is_some();
        if mean_only {
            problems.keep(encoder.expect_output(MEAN, floats, &latents));
        } else {
            let moments = channels.map_or(Want::Any("moments"), |channels| Want::Exactly(2 * channels));
            let moments = [BATCH, moments, Want::Any("height"), Want::Any("width")];
            problems.keep(encoder.expect_output(PARAMETERS, floats, &moments));
        }
    }

    if let Some(decoder) = problems.keep(Signature::find(&dir.join("vae_decoder"), GRAPH)) {
        problems.keep(decoder.expect_input("latent_sample", floats, &latents));
        problems.keep(decoder.expect_output("sample", floats, &pixels));
    }
    mean_only
}

impl UnetConfig {
    fn shape(&self, graph: &Signature) -> UnetShape {
        let attends = |block: &String| block.contains("Attn");
        UnetShape {
            bytes: graph.weights.size_with(&graph.path),
            // Weights do not tell: those of a graph in single precision may be stored in half.
            bytes_per_value: if graph.input("sample").is_some_and(|input| input.element == Element::F16) {
                2
            } else {
                4
            },
            width: self.block_out_channels.first().copied().unwrap_or(1),
            attends_from: self.down_block_types.iter().position(attends).unwrap_or(0),
            is_attention_fused: graph.has_operator(&["Attention", "MultiHeadAttention"]),
            flop: self.flops_per_evaluation.as_ref().map(|flops| flops.polynomial),
        }
    }

    fn trained_side(&self, vae: &VaeConfig) -> Option<u32> {
        let latents = u32::try_from(self.sample_size.as_ref()?.as_u64()?).ok()?;
        latents.checked_mul(halvings(vae.block_out_channels.len()))
    }
}

/// Returns the sides that the models take. On the way up a UNet doubles its latents. Unless it measures them on the way
/// down, they must have halved evenly.
fn sides(unet: &UnetConfig, vae: &VaeConfig, measures_sizes: bool) -> Sides {
    let pixels_per_latent = halvings(vae.block_out_channels.len());
    let even = if measures_sizes { 1 } else { halvings(unet.block_out_channels.len()) };
    Sides { pixels_per_latent, multiple: pixels_per_latent.saturating_mul(even) }
}

/// Returns the shape of latents, whose number of channels may be unknown.
fn latents(channels: Option<usize>) -> [Want; 4] {
    [BATCH, channels.map_or(Want::Any("channels"), Want::Exactly), Want::Any("height"), Want::Any("width")]
}

/// Returns the factor by which a network shrinks a side: it halves between one block and the next.
pub(super) fn halvings(blocks: usize) -> u32 {
    let halvings = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    1_u32.checked_shl(halvings).unwrap_or(1 << 31)
}
