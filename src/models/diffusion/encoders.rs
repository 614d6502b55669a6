//! The graphs that run once per source image and once per prompt: the VAE's encoder and the text encoders.

use std::sync::Arc;

use super::{
    DiffusionError,
    family::TextEncoder,
    files::{DiffusionFiles, MEAN, PARAMETERS},
    img2img::{Pixels, Posterior},
};
use crate::models::{
    onnx::{Loader, Model, OnnxError, Share, Tensor},
    tokenizer::Tokenizer,
};

/// The output of SDXL's second text encoder that is not a hidden state.
const POOLED: &str = "text_embeds";

/// An encoded prompt, as the UNet expects it.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    /// Hidden states, [length, width].
    pub(super) hidden: Arc<[f32]>,
    /// SDXL's pooled output; empty for other models.
    pub(super) pooled: Arc<[f32]>,
}

/// The VAE's encoder and the text encoders. Each runs on one row at a time.
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
    /// Returns an error if the runtime rejects a graph or a tokenizer cannot be read.
    pub(super) fn load(loader: &Loader<'_>, files: &DiffusionFiles) -> Result<Self, DiffusionError> {
        let text = |encoder: &TextEncoder| {
            let tokenizer = Tokenizer::from_dir(&encoder.tokenizer, &encoder.config)?;
            Ok((encoder.clone(), tokenizer, loader.open(&files.graph(encoder.part))?))
        };
        Ok(Self {
            vae_encoder: loader.sharing(Share::Encoder).open(&files.graph("vae_encoder"))?,
            text_encoders: files.text.encoders.iter().map(text).collect::<Result<_, DiffusionError>>()?,
            files: files.clone(),
        })
    }

    /// Encodes a prompt: concatenates the hidden states of all encoders, and takes the pooled output of the last.
    ///
    /// # Errors
    /// Returns an error if a graph fails or a tokenizer rejects the prompt.
    pub(super) fn encode_prompt(&mut self, prompt: &str) -> Result<Prompt, DiffusionError> {
        let text = &self.files.text;
        let mut hidden = vec![0.0; text.length * text.width()];
        let mut pooled = Vec::new();
        let mut left = 0;
        for (encoder, tokenizer, model) in &mut self.text_encoders {
            let ids = tokenizer.encode(prompt)?.ids;
            let inputs = vec![("input_ids", Tensor::i64([1, ids.len()], ids))];
            let mut outputs = model.run(inputs, &[&encoder.hidden, POOLED])?;
            let states = model.take(&mut outputs, &encoder.hidden, text.length * encoder.width)?;
            for (to, from) in hidden.chunks_exact_mut(text.width()).zip(states.chunks_exact(encoder.width)) {
                for (to, from) in to.iter_mut().skip(left).zip(from) {
                    *to = *from;
                }
            }
            left += encoder.width;
            if let (Some(width), "text_encoder_2") = (text.pooled, encoder.part) {
                pooled = model.take(&mut outputs, POOLED, width)?;
            }
        }
        Ok(Prompt { hidden: hidden.into(), pooled: pooled.into() })
    }

    /// Encodes the negative prompt. If it is absent, returns the encoding of the empty prompt, or zeros if the pipeline
    /// requires them.
    ///
    /// # Errors
    /// Returns the errors of [`Encoders::encode_prompt`].
    pub(super) fn encode_negative(&mut self, prompt: Option<&str>) -> Result<Prompt, DiffusionError> {
        let text = &self.files.text;
        if prompt.is_some() || !text.zeros_if_absent {
            return self.encode_prompt(prompt.unwrap_or_default());
        }
        let zeros = |count: usize| Arc::from(vec![0.0; count]);
        Ok(Prompt { hidden: zeros(text.length * text.width()), pooled: zeros(text.pooled.unwrap_or_default()) })
    }

    /// Encodes a source image.
    ///
    /// # Errors
    /// Returns an error if the VAE fails.
    pub(super) fn encode_image(&mut self, pixels: Pixels) -> Result<Posterior, OnnxError> {
        let Pixels { planes, size } = pixels;
        let [width, height] =
            [size.width, size.height].map(|side| (side * self.files.sides.pixels_per_latent) as usize);
        let input = Tensor::f32([1, 3, height, width], planes);
        let mut outputs = self.vae_encoder.run(vec![("sample", input)], &[MEAN, PARAMETERS])?;
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
