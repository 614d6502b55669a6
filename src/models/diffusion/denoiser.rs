//! The graphs that turn noise into an image: the UNet and the VAE's decoder.

use std::sync::{Arc, atomic::Ordering};

use super::{DiffusionError, encoders::Prompt, files::DiffusionFiles, latents::Size, stats::Counters};
use crate::models::onnx::{Loader, Model, OnnxError, Share, Tensor};

/// One row of a UNet call that holds a sample.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) timestep: f32,
    pub(super) prompt: &'a Prompt,
    /// Whether the prompt is the sample's own and not the negative one.
    pub(super) conditional: bool,
}

/// A decoded image that is not encoded yet: [3, height, width], roughly in -1..1.
#[derive(Debug)]
pub(super) struct Planes {
    pub(super) values: Vec<f32>,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The UNet and the decoder of one thread. If the UNet is small, several denoisers run in parallel, each on its own
/// batches.
#[derive(Debug)]
pub(super) struct Denoiser {
    pub(super) files: DiffusionFiles,
    unet: Model,
    vae_decoder: Model,
    counters: Arc<Counters>,
}

impl Denoiser {
    /// Loads both graphs with their weights.
    ///
    /// # Errors
    /// Returns an error if the runtime rejects a graph.
    pub(super) fn load(
        loader: &Loader<'_>,
        files: &DiffusionFiles,
        counters: Arc<Counters>,
    ) -> Result<Self, DiffusionError> {
        Ok(Self {
            unet: loader.sharing(Share::Unet).open_batched(&files.graph("unet"), "timestep")?,
            vae_decoder: loader.sharing(Share::Decoder).open(&files.graph("vae_decoder"))?,
            files: files.clone(),
            counters,
        })
    }

    /// Runs the UNet on latents [rows, channels, height, width]. A row is `None` if it is padding. Returns as many values
    /// as `sample` has.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run`].
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

    /// Whether the UNet accepts latents of a size. The call is not counted, since it generates no image.
    ///
    /// # Errors
    /// Returns [`OnnxError::Device`] if the device fails: the size may still be one that the UNet accepts.
    pub(super) fn accepts(&mut self, size: Size, prompt: &Prompt) -> Result<bool, OnnxError> {
        let sample = vec![0.0; self.files.latent_channels * size.area()];
        match self.call_unet(size, sample, &[Some(Row { timestep: 0.0, prompt, conditional: true })]) {
            Ok(_) => Ok(true),
            Err(error @ OnnxError::Device { .. }) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Decodes the UNet's latents, one image at a time: batching gains nothing here, and a finished image would have to
    /// wait or be padded.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run`].
    pub(super) fn decode(&mut self, latents: &[f32], size: Size) -> Result<Planes, OnnxError> {
        let [width, height] = [size.width, size.height].map(|side| side * self.files.sides.pixels_per_latent);
        let shape = [1, self.files.latent_channels, size.height as usize, size.width as usize];
        let mut latents = latents.to_vec();
        self.files.scaling.undo(&mut latents);
        let mut outputs = self.vae_decoder.run(vec![("latent_sample", Tensor::f32(shape, latents))])?;
        let values = self.vae_decoder.take(&mut outputs, "sample", 3 * width as usize * height as usize)?;
        self.counters.images.fetch_add(1, Ordering::Relaxed);
        Ok(Planes { values, width, height })
    }

    fn call_unet(&mut self, size: Size, sample: Vec<f32>, rows: &[Option<Row<'_>>]) -> Result<Vec<f32>, OnnxError> {
        let (count, text) = (sample.len(), &self.files.text);
        let mut hidden = vec![0.0; rows.len() * text.length * text.width()];
        let mut timesteps = vec![0.0; rows.len()];
        for ((row, hidden), timestep) in
            rows.iter().zip(hidden.chunks_exact_mut(text.length * text.width())).zip(&mut timesteps)
        {
            if let Some(row) = row {
                hidden.copy_from_slice(&row.prompt.hidden);
                *timestep = row.timestep;
            }
        }
        let shape = [rows.len(), self.files.latent_channels, size.height as usize, size.width as usize];
        let mut inputs = vec![
            ("sample", Tensor::f32(shape, sample)),
            ("timestep", Tensor::f32([rows.len()], timesteps)),
            ("encoder_hidden_states", Tensor::f32([rows.len(), text.length, text.width()], hidden)),
        ];
        inputs.extend(self.added_conditions(size, rows));
        let mut outputs = self.unet.run(inputs)?;
        self.unet.take(&mut outputs, "out_sample", count)
    }

    /// Returns the inputs of SDXL's UNet in addition to the prompt's hidden states.
    fn added_conditions(&self, size: Size, rows: &[Option<Row<'_>>]) -> Vec<(&'static str, Tensor)> {
        let (Some(width), time_ids) = (self.files.text.pooled, self.files.time_ids) else { return Vec::new() };
        let (mut pooled, mut ids) = (Vec::new(), Vec::new());
        for row in rows {
            match row {
                Some(row) => pooled.extend_from_slice(&row.prompt.pooled),
                None => pooled.extend(std::iter::repeat_n(0.0, width)),
            }
            let conditional = row.as_ref().is_none_or(|row| row.conditional);
            ids.extend(time_ids.of(size, self.files.sides.pixels_per_latent, conditional));
        }
        vec![
            ("text_embeds", Tensor::f32([rows.len(), width], pooled)),
            ("time_ids", Tensor::f32([rows.len(), time_ids.count()], ids)),
        ]
    }
}
