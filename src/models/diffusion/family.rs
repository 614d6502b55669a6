//! What tells diffusers' pipelines apart: Stable Diffusion 1.x and 2.x, SDXL base, and the SDXL refiner. All of it is
//! read from the model directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::DiffusionError;
use super::files::{BATCH, FLOATS, config, keep, unsupported};
use super::img2img::Size;
use crate::models::onnx::{Element, Signature, Want};
use crate::models::tokenizer::Tokenizer;

const INTEGERS: &[Element] = &[Element::I64, Element::I32];

/// Classes of `model_index.json`, without optimum's prefix `ORT`, and whether each is SDXL.
const CLASSES: [(&str, bool); 4] = [
    ("StableDiffusionPipeline", false),
    ("StableDiffusionImg2ImgPipeline", false),
    ("StableDiffusionXLPipeline", true),
    ("StableDiffusionXLImg2ImgPipeline", true),
];

/// What `model_index.json` says.
#[derive(Debug)]
pub(super) struct ModelIndex {
    xl: bool,
    zeros_for_no_prompt: bool,
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
    /// [`DiffusionError::Unsupported`] for a pipeline that is none of [`CLASSES`].
    pub(super) fn read(dir: &Path) -> Result<Self, DiffusionError> {
        let path = dir.join("model_index.json");
        let keys: IndexKeys = config(&path)?;
        let plain = keys.class.trim_start_matches("ORT");
        let Some((_, xl)) = CLASSES.iter().find(|(class, _)| *class == plain) else {
            let known = CLASSES.map(|(class, _)| format!("`{class}`")).join(", ");
            let found = format!("`{}`", keys.class);
            return Err(unsupported(path, "_class_name", &found, &format!("supported are {known}")));
        };
        Ok(Self {
            xl: *xl,
            // the default of diffusers' SDXL pipelines; the others have no such argument
            zeros_for_no_prompt: *xl && keys.force_zeros_for_empty_prompt.unwrap_or(true),
            aesthetic_score: keys.requires_aesthetics_score.unwrap_or(false),
        })
    }

    /// Whether it is SDXL.
    pub(super) fn is_xl(&self) -> bool {
        self.xl
    }

    /// Which of the known models it is, for people; `width` is what its UNet takes of each token of a prompt.
    pub(super) fn family(&self, dir: &Path, width: Option<u64>) -> String {
        let refiner = self.aesthetic_score || !dir.join("text_encoder").is_dir();
        match (self.xl, width) {
            (true, _) if refiner => "SDXL refiner".to_owned(),
            (true, _) => "SDXL base".to_owned(),
            (false, Some(768)) => "Stable Diffusion 1.x".to_owned(),
            (false, Some(1024)) => "Stable Diffusion 2.x".to_owned(),
            (false, Some(width)) => format!("Stable Diffusion, with {width} values for each token"),
            (false, None) => "Stable Diffusion".to_owned(),
        }
    }

    /// Keys of the scheduler's that the pipeline sets, whatever the file says: so does
    /// `StableDiffusionImg2ImgPipeline` when it is made.
    pub(super) fn scheduler_corrections(&self) -> Vec<(&'static str, Value)> {
        if self.xl { Vec::new() } else { vec![("steps_offset", 1.into()), ("clip_sample", false.into())] }
    }

    /// What its UNet is told beside the prompt.
    pub(super) fn time_ids(&self) -> TimeIds {
        match (self.xl, self.aesthetic_score) {
            (false, _) => TimeIds::None,
            (true, false) => TimeIds::Target,
            (true, true) => TimeIds::AestheticScore,
        }
    }
}

/// SDXL's micro-conditioning, as `StableDiffusionXLImg2ImgPipeline` fills it by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeIds {
    /// The UNet takes none.
    None,
    /// Height and width of the original, the crop's top left corner, height and width aimed at.
    Target,
    /// Height and width of the original, the crop's top left corner, and how beautiful the image shall be.
    AestheticScore,
}

/// diffusers' default `aesthetic_score`, and `negative_aesthetic_score`.
const AESTHETIC_SCORES: (f32, f32) = (6.0, 2.5);

impl TimeIds {
    /// How many there are.
    pub(super) fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Target => 6,
            Self::AestheticScore => 5,
        }
    }

    /// Those of an image with latents of `size`; `conditional` is false for the row of the negative prompt.
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
#[derive(Clone, Debug)]
pub(super) struct TextEncoders {
    /// One, or both of SDXL base, whose hidden states lie side by side.
    pub(super) encoders: Vec<TextEncoder>,
    /// Token ids of a prompt.
    pub(super) length: usize,
    /// Values of the last encoder's pooled output, which SDXL's UNet takes too.
    pub(super) pooled: Option<usize>,
    /// Whether a negative prompt that is not given is zeros, and not the empty text.
    pub(super) zeros_for_no_prompt: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct TextEncoder {
    /// The graph's directory.
    pub(super) part: &'static str,
    /// The tokenizer's directory.
    pub(super) tokenizer: PathBuf,
    /// The output that conditions the UNet.
    pub(super) hidden: String,
    /// Its values for one token.
    pub(super) width: usize,
}

#[derive(Deserialize)]
struct TextConfig {
    hidden_size: usize,
    projection_dim: Option<usize>,
}

impl TextEncoders {
    /// Reads what the directory has.
    ///
    /// # Errors
    /// Every file that is missing or does not fit.
    pub(super) fn inspect(dir: &Path, index: &ModelIndex) -> Result<Self, Vec<DiffusionError>> {
        // the refiner has only the second
        let both = !index.xl || dir.join("text_encoder").is_dir();
        let parts = [("text_encoder", "tokenizer", both), ("text_encoder_2", "tokenizer_2", index.xl)];
        let mut all =
            Self { encoders: Vec::new(), length: 0, pooled: None, zeros_for_no_prompt: index.zeros_for_no_prompt };
        let mut problems = Vec::new();
        for (part, tokenizer, _) in parts.into_iter().filter(|(_, _, there)| *there) {
            let tokenizer = dir.join(tokenizer);
            let length = keep(Tokenizer::from_dir(&tokenizer), &mut problems).map(|tokenizer| tokenizer.length());
            if let Some(length) = length.filter(|length| all.length > 0 && *length != all.length) {
                let path = tokenizer.join("tokenizer_config.json");
                let allowed = format!("both tokenizers have one length, and the other's is {}", all.length);
                problems.push(unsupported(path, "model_max_length", &length.to_string(), &allowed));
            }
            all.length = length.unwrap_or(all.length);
            let keys: Option<TextConfig> = keep(config(&dir.join(part).join("config.json")), &mut problems);
            let graph = keep(Signature::read(&dir.join(part).join("model.onnx")), &mut problems);
            let (Some(keys), Some(graph)) = (keys, graph) else { continue };
            let hidden = if index.xl { penultimate(&graph) } else { "last_hidden_state".to_owned() };
            problems.extend(misfits(&graph, length, &hidden, keys.hidden_size));
            if part == "text_encoder_2" {
                let width = keys.projection_dim.unwrap_or(keys.hidden_size);
                keep(graph.expect_output("text_embeds", FLOATS, &[BATCH, Want::Exactly(width)]), &mut problems);
                all.pooled = Some(width);
            }
            all.encoders.push(TextEncoder { part, tokenizer, hidden, width: keys.hidden_size });
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    /// Values for one token of an encoded prompt.
    pub(super) fn width(&self) -> usize {
        self.encoders.iter().map(|encoder| encoder.width).sum()
    }

    /// The shape of encoded prompts.
    pub(super) fn hidden_shape(&self) -> [Want; 3] {
        [BATCH, Want::Exactly(self.length), Want::Exactly(self.width())]
    }
}

/// Where a graph does not encode `length` tokens, if that is known, as `width` values each in its output `hidden`.
fn misfits(graph: &Signature, length: Option<usize>, hidden: &str, width: usize) -> Vec<DiffusionError> {
    let length = length.map_or(Want::Any("tokens"), Want::Exactly);
    let only = graph.expect_only(&["input_ids"]);
    let ids = graph.expect_input("input_ids", INTEGERS, &[BATCH, length]);
    let output = graph.expect_output(hidden, FLOATS, &[BATCH, length, Want::Exactly(width)]);
    [only.err(), ids.err(), output.err()].into_iter().flatten().map(Into::into).collect()
}

/// The output before the last of the hidden states, which are numbered from 0; the last has no final layer norm, and
/// SDXL takes the one before.
fn penultimate(graph: &Signature) -> String {
    let number = |name: &str| name.strip_prefix("hidden_states.")?.parse::<usize>().ok();
    let last = graph.outputs.iter().filter_map(|port| number(&port.name)).max();
    format!("hidden_states.{}", last.unwrap_or_default().saturating_sub(1))
}
