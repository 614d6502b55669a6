//! What distinguishes diffusers' pipelines: Stable Diffusion 1.x and 2.x, SDXL base, and the SDXL refiner. All of it is
//! read from the model directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{
    DiffusionError,
    checks::{BATCH, FLOATS, GRAPH, Problems},
    latents::Size,
};
use crate::models::{
    model_dir::{FileError, read_config},
    onnx::{Element, Signature, Want},
    tokenizer::Tokenizer,
};

const INTEGERS: &[Element] = &[Element::I64, Element::I32];

/// Classes of `model_index.json`, without the prefix `ORT` of optimum and `Onnx` of old versions of diffusers, each with whether it is SDXL.
const CLASSES: [(&str, bool); 4] = [
    ("StableDiffusionPipeline", false),
    ("StableDiffusionImg2ImgPipeline", false),
    ("StableDiffusionXLPipeline", true),
    ("StableDiffusionXLImg2ImgPipeline", true),
];

/// The contents of `model_index.json`.
#[derive(Debug)]
pub(super) struct ModelIndex {
    xl: bool,
    zeros_if_absent: bool,
    aesthetic_score: bool,
}

#[derive(Deserialize)]
struct IndexKeys {
    #[serde(rename = "_class_name")]
    class: String,
    force_zeros_for_empty_prompt: Option<bool>,
    requires_aesthetics_score: Option<bool>,
}

impl ModelIndex {
    /// Reads the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or names a pipeline that is not in [`CLASSES`].
    pub(super) fn read(dir: &Path) -> Result<Self, DiffusionError> {
        let path = dir.join("model_index.json");
        let keys: IndexKeys = read_config(&path)?;
        let plain = keys.class.trim_start_matches("ORT").trim_start_matches("Onnx");
        let Some((_, xl)) = CLASSES.iter().find(|(class, _)| *class == plain) else {
            let known = CLASSES.map(|(class, _)| format!("`{class}`")).join(", ");
            let found = format!("`{}`", keys.class);
            return Err(FileError::unsupported(path, "_class_name", found, format!("supported are {known}")).into());
        };
        Ok(Self {
            xl: *xl,
            // The default of diffusers' SDXL pipelines. The others have no such argument.
            zeros_if_absent: *xl && keys.force_zeros_for_empty_prompt.unwrap_or(true),
            aesthetic_score: keys.requires_aesthetics_score.unwrap_or(false),
        })
    }

    /// Whether the pipeline is SDXL.
    pub(super) fn is_xl(&self) -> bool {
        self.xl
    }

    /// Returns the name of the model for people; `width` is the size of the UNet's cross-attention input.
    pub(super) fn family(&self, dir: &Path, width: Option<u64>) -> String {
        let refiner = self.aesthetic_score || !dir.join("text_encoder").is_dir();
        match (self.xl, width) {
            (true, _) if refiner => "SDXL refiner".to_owned(),
            (true, _) => "SDXL base".to_owned(),
            (false, Some(768)) => "Stable Diffusion 1.x".to_owned(),
            (false, Some(1024)) => "Stable Diffusion 2.x".to_owned(),
            (false, Some(width)) => format!("Stable Diffusion, with {width} values per token"),
            (false, None) => "Stable Diffusion".to_owned(),
        }
    }

    /// Returns the keys of the scheduler that the pipeline overrides, as `StableDiffusionImg2ImgPipeline` does in its
    /// constructor.
    pub(super) fn scheduler_corrections(&self) -> Vec<(&'static str, Value)> {
        if self.xl { Vec::new() } else { vec![("steps_offset", 1.into()), ("clip_sample", false.into())] }
    }

    /// Returns which time ids the UNet expects.
    pub(super) fn time_ids(&self) -> TimeIds {
        match (self.xl, self.aesthetic_score) {
            (false, _) => TimeIds::None,
            (true, false) => TimeIds::Target,
            (true, true) => TimeIds::AestheticScore,
        }
    }
}

/// SDXL's micro-conditioning, as `StableDiffusionXLImg2ImgPipeline` fills it by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeIds {
    /// The UNet has no such input.
    None,
    /// Height and width of the original, the crop's top left corner, the target's height and width.
    Target,
    /// Height and width of the original, the crop's top left corner, the aesthetic score.
    AestheticScore,
}

/// diffusers' defaults of `aesthetic_score` and `negative_aesthetic_score`.
const AESTHETIC_SCORES: (f32, f32) = (6.0, 2.5);

impl TimeIds {
    /// Returns the number of values.
    pub(super) fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Target => 6,
            Self::AestheticScore => 5,
        }
    }

    /// Returns the values for an image with latents of `size`; `conditional` is false for the negative prompt's row.
    #[expect(clippy::cast_precision_loss, reason = "sides of images are far below 2^24")]
    pub(super) fn of(self, size: Size, pixels_per_latent: u32, conditional: bool) -> Vec<f32> {
        let [height, width] = [size.height, size.width].map(|side| (side * pixels_per_latent) as f32);
        let score = if conditional { AESTHETIC_SCORES.0 } else { AESTHETIC_SCORES.1 };
        match self {
            Self::None => Vec::new(),
            Self::Target => vec![height, width, 0.0, 0.0, height, width],
            Self::AestheticScore => vec![height, width, 0.0, 0.0, score],
        }
    }
}

/// The text encoders of a pipeline.
#[derive(Debug, Clone)]
pub(super) struct TextEncoders {
    /// One encoder, or both of SDXL base, whose hidden states are concatenated.
    pub(super) encoders: Vec<TextEncoder>,
    /// Token ids per prompt.
    pub(super) length: usize,
    /// Size of the last encoder's pooled output, which SDXL's UNet also takes.
    pub(super) pooled: Option<usize>,
    /// Whether an absent negative prompt is encoded as zeros instead of the empty prompt.
    pub(super) zeros_if_absent: bool,
}

/// One text encoder.
#[derive(Debug, Clone)]
pub(super) struct TextEncoder {
    /// The folder of the graph.
    pub(super) part: &'static str,
    /// The folder of the tokenizer.
    pub(super) tokenizer: PathBuf,
    /// The configuration of the encoder.
    pub(super) config: PathBuf,
    /// The output that conditions the UNet.
    pub(super) hidden: String,
    /// Values per token.
    pub(super) width: usize,
}

#[derive(Deserialize)]
struct TextConfig {
    hidden_size: usize,
    projection_dim: Option<usize>,
}

impl TextEncoders {
    /// Reads the text encoders of a directory.
    ///
    /// # Errors
    /// Returns every file that is missing or does not fit.
    pub(super) fn inspect(dir: &Path, index: &ModelIndex) -> Result<Self, Vec<DiffusionError>> {
        // The refiner has only the second encoder.
        let both = !index.xl || dir.join("text_encoder").is_dir();
        let parts = [("text_encoder", "tokenizer", both), ("text_encoder_2", "tokenizer_2", index.xl)];
        let mut all = Self { encoders: Vec::new(), length: 0, pooled: None, zeros_if_absent: index.zeros_if_absent };
        let mut problems = Problems::default();
        for (part, tokenizer, _) in parts.into_iter().filter(|(_, _, present)| *present) {
            let tokenizer = dir.join(tokenizer);
            let config = dir.join(part).join("config.json");
            let length = problems.keep(Tokenizer::from_dir(&tokenizer, &config)).map(|tokenizer| tokenizer.length());
            if let Some(length) = length.filter(|length| all.length > 0 && *length != all.length) {
                let path = tokenizer.join("tokenizer_config.json");
                let allowed = format!("both tokenizers must have the same length, and the other's is {}", all.length);
                problems.add(FileError::unsupported(path, "model_max_length", length.to_string(), allowed));
            }
            all.length = length.unwrap_or(all.length);
            let keys: Option<TextConfig> = problems.keep(read_config(&config));
            let graph = problems.keep(Signature::find(&dir.join(part), GRAPH));
            let (Some(keys), Some(graph)) = (keys, graph) else { continue };
            let hidden = if index.xl { penultimate(&graph) } else { "last_hidden_state".to_owned() };
            check(&graph, length, &hidden, keys.hidden_size, &mut problems);
            if part == "text_encoder_2" {
                let width = keys.projection_dim.unwrap_or(keys.hidden_size);
                problems.keep(graph.expect_output("text_embeds", FLOATS, &[BATCH, Want::Exactly(width)]));
                all.pooled = Some(width);
            }
            all.encoders.push(TextEncoder { part, tokenizer, config, hidden, width: keys.hidden_size });
        }
        if problems.is_empty() { Ok(all) } else { Err(problems.into_vec()) }
    }

    /// Returns the number of values per token of an encoded prompt.
    pub(super) fn width(&self) -> usize {
        self.encoders.iter().map(|encoder| encoder.width).sum()
    }

    /// Returns the shape of encoded prompts.
    pub(super) fn hidden_shape(&self) -> [Want; 3] {
        [BATCH, Want::Exactly(self.length), Want::Exactly(self.width())]
    }
}

/// Checks that a graph encodes `length` tokens, if that is known, as `width` values each in its output `hidden`.
fn check(graph: &Signature, length: Option<usize>, hidden: &str, width: usize, problems: &mut Problems) {
    let length = length.map_or(Want::Any("tokens"), Want::Exactly);
    problems.keep(graph.expect_only(&["input_ids"]));
    problems.keep(graph.expect_input("input_ids", INTEGERS, &[BATCH, length]));
    problems.keep(graph.expect_output(hidden, FLOATS, &[BATCH, length, Want::Exactly(width)]));
}

/// Returns the name of the second to last hidden state. They are numbered from 0. The last one has no final layer norm,
/// and SDXL takes the one before it.
fn penultimate(graph: &Signature) -> String {
    let number = |name: &str| name.strip_prefix("hidden_states.")?.parse::<usize>().ok();
    let last = graph.outputs.iter().filter_map(|port| number(&port.name)).max();
    format!("hidden_states.{}", last.unwrap_or_default().saturating_sub(1))
}
