//! The graphs that run once for a source and once for a prompt, and what is counted.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::DiffusionError;
use super::files::DiffusionFiles;
use super::img2img::{Pixels, Posterior};
use crate::onnx::{Busy, Model, OnnxError, Provider, Runtime, Tensor};
use crate::tokens::Tokenizer;

/// What was run so far. Written by the engine's threads, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) unet_evaluations: AtomicU64,
    pub(super) unet_calls: AtomicU64,
    pub(super) batch_rows_offered: AtomicU64,
    pub(super) images: AtomicU64,
    pub(super) busy: Arc<Busy>,
}

/// The text encoder and the VAE's encoder, each run on one row at a time.
#[derive(Debug)]
pub(super) struct Encoders {
    pub(super) files: DiffusionFiles,
    vae_encoder: Model,
    text_encoder: Model,
    tokenizer: Tokenizer,
}

impl Encoders {
    /// Loads both graphs with their weights. `threads` is how many cores one operator may use on the CPU.
    ///
    /// # Errors
    /// The graph that the runtime refuses, or the tokenizer.
    pub(super) fn load(
        runtime: &Runtime,
        files: &DiffusionFiles,
        provider: Provider,
        threads: usize,
        counters: &Counters,
    ) -> Result<Self, DiffusionError> {
        let open = |part| Model::open(runtime, &files.graph(part), provider, threads, &counters.busy);
        Ok(Self {
            vae_encoder: open("vae_encoder")?,
            text_encoder: open("text_encoder")?,
            tokenizer: Tokenizer::from_dir(&files.tokenizer_dir())?,
            files: files.clone(),
        })
    }

    /// Encodes a prompt: [length, width], the text encoder's last hidden state.
    ///
    /// # Errors
    /// As [`Model::run`], or a tokenizer that refuses the text.
    pub(super) fn encode_prompt(&mut self, prompt: &str) -> Result<Arc<[f32]>, DiffusionError> {
        let ids = self.tokenizer.encode(prompt)?.ids;
        let input = Tensor::i64([1, ids.len()], ids);
        let outputs = self.text_encoder.run(vec![("input_ids", input)])?;
        let count = self.files.prompt_length * self.files.prompt_width;
        Ok(self.text_encoder.take(outputs, "last_hidden_state", count)?.into())
    }

    /// Encodes a source picture.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub(super) fn encode_image(&mut self, pixels: Pixels) -> Result<Posterior, OnnxError> {
        let Pixels { planes, size } = pixels;
        let [width, height] = [size.width, size.height].map(|side| (side * self.files.pixels_per_latent) as usize);
        let input = Tensor::f32([1, 3, height, width], planes);
        let outputs = self.vae_encoder.run(vec![("sample", input)])?;
        let count = self.files.latent_channels * size.area();
        let mut mean = self.vae_encoder.take(outputs, "latent_parameters", 2 * count)?;
        let log_variance = mean.split_off(count);
        Ok(Posterior { mean, log_variance, size })
    }
}
