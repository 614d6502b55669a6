//! The graphs that run once for a source and once for a prompt, and what is counted.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::DiffusionError;
use super::family::TextEncoder;
use super::files::{DiffusionFiles, MEAN, PARAMETERS};
use super::img2img::{Pixels, Posterior};
use crate::models::onnx::{Busy, Loader, Model, OnnxError, Tensor};
use crate::models::tokenizer::Tokenizer;

/// What was run so far. Written by the engine's threads, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) unet_evaluations: AtomicU64,
    pub(super) unet_calls: AtomicU64,
    pub(super) batch_rows_offered: AtomicU64,
    pub(super) images: AtomicU64,
    pub(super) busy: Arc<Busy>,
}

/// A prompt as the UNet takes it.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    /// [length, width].
    pub(super) hidden: Arc<[f32]>,
    /// SDXL's pooled output; empty for others.
    pub(super) pooled: Arc<[f32]>,
}

/// The text encoders and the VAE's encoder, each run on one row at a time.
#[derive(Debug)]
pub(super) struct Encoders {
    pub(super) files: DiffusionFiles,
    vae_encoder: Model,
    text_encoders: Vec<(TextEncoder, Tokenizer, Model)>,
}

impl Encoders {
    /// Loads the graphs with their weights.
    ///
    /// # Errors
    /// The graph that the runtime refuses, or the tokenizer.
    pub(super) fn load(loader: &Loader<'_>, files: &DiffusionFiles) -> Result<Self, DiffusionError> {
        let text = |encoder: &TextEncoder| {
            let tokenizer = Tokenizer::from_dir(&encoder.tokenizer)?;
            Ok((encoder.clone(), tokenizer, loader.open(&files.graph(encoder.part))?))
        };
        Ok(Self {
            vae_encoder: loader.open(&files.graph("vae_encoder"))?,
            text_encoders: files.text.encoders.iter().map(text).collect::<Result<_, DiffusionError>>()?,
            files: files.clone(),
        })
    }

    /// Encodes a prompt: the hidden states of all encoders side by side, and the last one's pooled output.
    ///
    /// # Errors
    /// As [`Model::run`], or a tokenizer that refuses the text.
    pub(super) fn encode_prompt(&mut self, prompt: &str) -> Result<Prompt, DiffusionError> {
        let text = &self.files.text;
        let mut hidden = vec![0.0; text.length * text.width()];
        let mut pooled = Vec::new();
        let mut left = 0;
        for (encoder, tokenizer, model) in &mut self.text_encoders {
            let ids = tokenizer.encode(prompt)?.ids;
            let mut outputs = model.run(vec![("input_ids", Tensor::i64([1, ids.len()], ids))])?;
            let states = model.take(&mut outputs, &encoder.hidden, text.length * encoder.width)?;
            for (to, from) in hidden.chunks_exact_mut(text.width()).zip(states.chunks_exact(encoder.width)) {
                for (to, from) in to.iter_mut().skip(left).zip(from) {
                    *to = *from;
                }
            }
            left += encoder.width;
            if let (Some(width), "text_encoder_2") = (text.pooled, encoder.part) {
                pooled = model.take(&mut outputs, "text_embeds", width)?;
            }
        }
        Ok(Prompt { hidden: hidden.into(), pooled: pooled.into() })
    }

    /// Encodes the negative prompt; where there is none, it is the empty text, or zeros where the pipeline says so.
    ///
    /// # Errors
    /// As [`Encoders::encode_prompt`].
    pub(super) fn encode_negative(&mut self, prompt: Option<&str>) -> Result<Prompt, DiffusionError> {
        let text = &self.files.text;
        if prompt.is_some() || !text.zeros_for_no_prompt {
            return self.encode_prompt(prompt.unwrap_or_default());
        }
        let zeros = |count: usize| Arc::from(vec![0.0; count]);
        Ok(Prompt { hidden: zeros(text.length * text.width()), pooled: zeros(text.pooled.unwrap_or_default()) })
    }

    /// Encodes a source image.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub(super) fn encode_image(&mut self, pixels: Pixels) -> Result<Posterior, OnnxError> {
        let Pixels { planes, size } = pixels;
        let [width, height] = [size.width, size.height].map(|side| (side * self.files.pixels_per_latent) as usize);
        let input = Tensor::f32([1, 3, height, width], planes);
        let mut outputs = self.vae_encoder.run(vec![("sample", input)])?;
        let count = self.files.latent_channels * size.area();
        if self.files.mean_only {
            let mean = self.vae_encoder.take(&mut outputs, MEAN, count)?;
            return Ok(Posterior { mean, log_variance: None, size });
        }
        let mut mean = self.vae_encoder.take(&mut outputs, PARAMETERS, 2 * count)?;
        let log_variance = Some(mean.split_off(count));
        Ok(Posterior { mean, log_variance, size })
    }
}
