//! The VAE's decoder.

use std::sync::{Arc, atomic::Ordering};

use super::{DiffusionError, files::DiffusionFiles, latents::Size, stats::Counters};
use crate::models::onnx::{Loader, Model, OnnxError, Share, Tensor};

/// The output of the graph.
const SAMPLE: &str = "sample";

/// A decoded image that is not encoded yet: [3, height, width], roughly in -1..1.
#[derive(Debug)]
pub(super) struct Planes {
    pub(super) values: Vec<f32>,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The VAE's decoder of one device.
#[derive(Debug)]
pub(super) struct Decoder {
    files: DiffusionFiles,
    graph: Model,
    counters: Arc<Counters>,
}

impl Decoder {
    /// Loads the graph with its weights.
    ///
    /// # Errors
    /// Returns an error if the runtime rejects the graph.
    pub(super) fn load(
        loader: &Loader<'_>,
        files: &DiffusionFiles,
        counters: Arc<Counters>,
    ) -> Result<Self, DiffusionError> {
        let graph = loader.sharing(Share::Decoder).open(&files.graph("vae_decoder"))?;
        Ok(Self { graph, files: files.clone(), counters })
    }

    /// Returns the name of the graph's file.
    pub(super) fn graph_name(&self) -> String {
        self.graph.file_name()
    }

    /// Decodes the UNet's latents, one image at a time: batching gains little here, and a finished image would have to
    /// wait or be padded.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run`].
    pub(super) fn decode(&mut self, latents: &[f32], size: Size) -> Result<Planes, OnnxError> {
        let planes = self.run(latents, size)?;
        self.counters.images.fetch_add(1, Ordering::Relaxed);
        Ok(planes)
    }

    /// Decodes zeros of a size, which is not counted.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run`].
    pub(super) fn try_size(&mut self, size: Size) -> Result<(), OnnxError> {
        self.run(&vec![0.0; self.files.latent_channels * size.area()], size).map(drop)
    }

    fn run(&mut self, latents: &[f32], size: Size) -> Result<Planes, OnnxError> {
        let [width, height] = [size.width, size.height].map(|side| side * self.files.sides.pixels_per_latent);
        let shape = [1, self.files.latent_channels, size.height as usize, size.width as usize];
        let mut latents = latents.to_vec();
        self.files.scaling.undo(&mut latents);
        let mut outputs = self.graph.run(vec![("latent_sample", Tensor::f32(shape, latents))], &[SAMPLE])?;
        let values = self.graph.take(&mut outputs, SAMPLE, 3 * width as usize * height as usize)?;
        Ok(Planes { values, width, height })
    }
}
