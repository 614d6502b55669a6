//! The four graphs on one device, each run at one fixed batch shape.
//!
//! A runtime may compute a row otherwise in a batch of another size. So rows are never batched as they come: what
//! is missing is padded, and a row's result does not depend on its company.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::DiffusionError;
use super::files::DiffusionFiles;
use super::img2img::{Pixels, Posterior, Size};
use crate::onnx::{Model, OnnxError, Outputs, Provider, Runtime, Tensor};
use crate::tokens::Tokenizer;

/// What was run so far. Written by the engine's thread, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) unet_evaluations: AtomicU64,
    pub(super) unet_calls: AtomicU64,
    pub(super) batch_rows_offered: AtomicU64,
    pub(super) images: AtomicU64,
    pub(super) busy_nanoseconds: AtomicU64,
}

/// One row of a UNet call that holds a sample.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) timestep: f32,
    pub(super) prompt: &'a [f32],
}

/// The models of one directory, loaded.
#[derive(Debug)]
pub(super) struct Models {
    pub(super) files: DiffusionFiles,
    unet: Model,
    vae_encoder: Model,
    vae_decoder: Model,
    text_encoder: Model,
    tokenizer: Tokenizer,
    counters: Arc<Counters>,
}

impl Models {
    /// Loads all four graphs with their weights.
    ///
    /// # Errors
    /// The graph that the runtime refuses, or the tokenizer.
    pub(super) fn load(
        runtime: &Runtime,
        files: &DiffusionFiles,
        provider: Provider,
        threads: usize,
        counters: Arc<Counters>,
    ) -> Result<Self, DiffusionError> {
        let open = |part| Model::open(runtime, &files.graph(part), provider, threads);
        Ok(Self {
            unet: open("unet")?,
            vae_encoder: open("vae_encoder")?,
            vae_decoder: open("vae_decoder")?,
            text_encoder: open("text_encoder")?,
            tokenizer: Tokenizer::from_dir(&files.tokenizer_dir())?,
            files: files.clone(),
            counters,
        })
    }

    /// Encodes a prompt: [length, width], the text encoder's last hidden state.
    ///
    /// # Errors
    /// As [`Model::run`], or a tokenizer that refuses the text.
    pub(super) fn encode_prompt(&mut self, prompt: &str) -> Result<Arc<[f32]>, DiffusionError> {
        let ids = self.tokenizer.encode(prompt)?.ids;
        let input = Tensor::i64([1, ids.len()], ids);
        let outputs = timed(&self.counters, &mut self.text_encoder, vec![("input_ids", input)])?;
        let (_, hidden) = take(&self.text_encoder, outputs, "last_hidden_state")?;
        Ok(hidden.into())
    }

    /// Encodes a source picture.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub(super) fn encode_image(&mut self, pixels: Pixels) -> Result<Posterior, OnnxError> {
        let Pixels { planes, size } = pixels;
        let [width, height] = [size.width, size.height].map(|side| (side * self.files.pixels_per_latent) as usize);
        let input = Tensor::f32([1, 3, height, width], planes);
        let outputs = timed(&self.counters, &mut self.vae_encoder, vec![("sample", input)])?;
        let count = self.files.latent_channels * size.area();
        let mut mean = values(&self.vae_encoder, outputs, "latent_parameters", 2 * count)?;
        let log_variance = mean.split_off(count);
        Ok(Posterior { mean, log_variance, size })
    }

    /// Decodes latents, unscaled already, to [3, height, width] in about -1..1, with the picture's sides.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub(super) fn decode(&mut self, latents: Vec<f32>, size: Size) -> Result<(Vec<f32>, u32, u32), OnnxError> {
        let [width, height] = [size.width, size.height].map(|side| side * self.files.pixels_per_latent);
        let shape = [1, self.files.latent_channels, size.height as usize, size.width as usize];
        let input = Tensor::f32(shape, latents);
        let outputs = timed(&self.counters, &mut self.vae_decoder, vec![("latent_sample", input)])?;
        let planes = values(&self.vae_decoder, outputs, "sample", 3 * width as usize * height as usize)?;
        Ok((planes, width, height))
    }

    /// Runs the UNet on as many rows as `sample` has: latents [rows, channels, height, width], a timestep and a
    /// prompt for each row that holds a sample, `None` for padding. Gives as many values as `sample` has.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub(super) fn predict(
        &mut self,
        size: Size,
        sample: Vec<f32>,
        rows: &[Option<Row<'_>>],
    ) -> Result<Vec<f32>, OnnxError> {
        let predicted = self.call_unet(size, sample, rows)?;
        let real = rows.iter().flatten().count();
        self.counters.unet_calls.fetch_add(1, Ordering::Relaxed);
        self.counters.unet_evaluations.fetch_add(real as u64, Ordering::Relaxed);
        self.counters.batch_rows_offered.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(predicted)
    }

    /// Whether the UNet takes latents of a size. Not counted: it makes no picture.
    pub(super) fn takes(&mut self, size: Size, prompt: &[f32]) -> bool {
        let sample = vec![0.0; self.files.latent_channels * size.area()];
        self.call_unet(size, sample, &[Some(Row { timestep: 0.0, prompt })]).is_ok()
    }

    fn call_unet(&mut self, size: Size, sample: Vec<f32>, rows: &[Option<Row<'_>>]) -> Result<Vec<f32>, OnnxError> {
        let (count, length) = (sample.len(), self.tokenizer.length());
        let prompt_values = rows.iter().flatten().map(|row| row.prompt.len()).next().unwrap_or(length);
        let mut prompts = vec![0.0; rows.len() * prompt_values];
        let mut timesteps = vec![0.0; rows.len()];
        for ((row, prompt), timestep) in rows.iter().zip(prompts.chunks_exact_mut(prompt_values)).zip(&mut timesteps) {
            if let Some(row) = row {
                prompt.copy_from_slice(row.prompt);
                *timestep = row.timestep;
            }
        }
        let shape = [rows.len(), self.files.latent_channels, size.height as usize, size.width as usize];
        let inputs = vec![
            ("sample", Tensor::f32(shape, sample)),
            ("timestep", Tensor::f32([rows.len()], timesteps)),
            ("encoder_hidden_states", Tensor::f32([rows.len(), length, prompt_values / length], prompts)),
        ];
        let outputs = timed(&self.counters, &mut self.unet, inputs)?;
        values(&self.unet, outputs, "out_sample", count)
    }

    /// Counts a finished picture.
    pub(super) fn count_image(&self) {
        self.counters.images.fetch_add(1, Ordering::Relaxed);
    }
}

fn timed(counters: &Counters, model: &mut Model, inputs: Vec<(&str, Tensor)>) -> Result<Outputs, OnnxError> {
    let began = Instant::now();
    let outputs = model.run(inputs);
    let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    counters.busy_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    outputs
}

fn take(model: &Model, mut outputs: Outputs, name: &str) -> Result<(Vec<usize>, Vec<f32>), OnnxError> {
    outputs
        .take(name)
        .ok_or_else(|| OnnxError::Run { path: path(model), reason: format!("it gave no `{name}` of floats") })
}

/// An output's values, if they are as many as its shape was promised to have.
fn values(model: &Model, outputs: Outputs, name: &str, count: usize) -> Result<Vec<f32>, OnnxError> {
    let (shape, values) = take(model, outputs, name)?;
    if values.len() == count {
        return Ok(values);
    }
    let reason = format!("its `{name}` came as {shape:?}, which is not {count} values");
    Err(OnnxError::Run { path: path(model), reason })
}

fn path(model: &Model) -> PathBuf {
    model.signature().path.clone()
}
