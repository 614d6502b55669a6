//! The graphs that turn noise into a picture: the UNet and the VAE's decoder.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::DiffusionError;
use super::encoders::Counters;
use super::files::DiffusionFiles;
use super::img2img::{Size, unscaled};
use crate::onnx::{Model, OnnxError, Provider, Runtime, Tensor};

/// One row of a UNet call that holds a sample.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) timestep: f32,
    /// [length, width].
    pub(super) prompt: &'a [f32],
}

/// A picture in the making: [3, height, width] in about -1..1.
#[derive(Debug)]
pub(super) struct Planes {
    pub(super) values: Vec<f32>,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// A UNet and a decoder of their own for one thread. Where cores are many and the UNet is small, several run side
/// by side, each on its own batch.
#[derive(Debug)]
pub(super) struct Denoiser {
    pub(super) files: DiffusionFiles,
    unet: Model,
    vae_decoder: Model,
    counters: Arc<Counters>,
}

impl Denoiser {
    /// Loads both graphs with their weights. `threads` is how many cores one operator may use on the CPU.
    ///
    /// # Errors
    /// The graph that the runtime refuses.
    pub(super) fn load(
        runtime: &Runtime,
        files: &DiffusionFiles,
        provider: Provider,
        threads: usize,
        counters: Arc<Counters>,
    ) -> Result<Self, DiffusionError> {
        let open = |part| Model::open(runtime, &files.graph(part), provider, threads, &counters.busy);
        Ok(Self { unet: open("unet")?, vae_decoder: open("vae_decoder")?, files: files.clone(), counters })
    }

    /// Runs the UNet on as many rows as `rows`: latents [rows, channels, height, width], a timestep and a prompt
    /// for each row that holds a sample, `None` for padding. Gives as many values as `sample` has.
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

    /// Decodes latents, as the UNet left them, one picture at a time: batching gains nothing here, and would make
    /// a finished picture wait or be padded.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub(super) fn decode(&mut self, latents: &[f32], size: Size) -> Result<Planes, OnnxError> {
        let [width, height] = [size.width, size.height].map(|side| side * self.files.pixels_per_latent);
        let shape = [1, self.files.latent_channels, size.height as usize, size.width as usize];
        let input = Tensor::f32(shape, unscaled(&self.files, latents));
        let outputs = self.vae_decoder.run(vec![("latent_sample", input)])?;
        let values = self.vae_decoder.take(outputs, "sample", 3 * width as usize * height as usize)?;
        self.counters.images.fetch_add(1, Ordering::Relaxed);
        Ok(Planes { values, width, height })
    }

    fn call_unet(&mut self, size: Size, sample: Vec<f32>, rows: &[Option<Row<'_>>]) -> Result<Vec<f32>, OnnxError> {
        let (count, length) = (sample.len(), self.files.prompt_length);
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
        let outputs = self.unet.run(inputs)?;
        self.unet.take(outputs, "out_sample", count)
    }
}
