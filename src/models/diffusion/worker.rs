//! An engine's other threads: each keeps batches of its own running on a denoiser of its own, and hands images out.
//!
//! A batch takes jobs from the [`Line`] as its slots become empty. Its samples are denoised side by side, each at its
//! own timestep; the VAE decodes what is done, and rayon writes the PNG while the next timestep runs. Workers wait
//! for nobody but the line: while one computes between two calls, another's model runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::EngineError;
use super::batch::{Batch, Guidance, Sample};
use super::denoiser::{Denoiser, Planes};
use super::encode_stage::{Answer, Prepared};
use super::encoders::Prompt;
use super::img2img::{Size, latents};
use super::noise::Purpose;
use super::queue::Line;
use super::schedulers::Scheduler;
use crate::imaging::{encode_png, from_chw};
use crate::models::onnx::{OnnxError, Reply};

/// What is the same for all workers of an engine.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) line: Arc<Line<Prepared>>,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) guidance: Option<Guidance>,
    pub(super) pure_noise_at_zero: bool,
    pub(super) batch_size: usize,
}

/// All that such a thread owns.
#[derive(Debug)]
pub(super) struct Worker {
    denoiser: Denoiser,
    shared: Arc<Shared>,
    /// What runs, by size of the latents.
    batches: BTreeMap<Size, Batch<Reply<Answer>>>,
    /// Whether the UNet takes a size that does not halve evenly, where that was tried.
    tried: BTreeMap<Size, bool>,
}

impl Worker {
    pub(super) fn new(denoiser: Denoiser, shared: Arc<Shared>) -> Self {
        Self { denoiser, shared, batches: BTreeMap::new(), tried: BTreeMap::new() }
    }

    /// Works until the line is closed.
    ///
    /// # Errors
    /// A model that failed.
    pub(super) fn run(&mut self) -> Result<(), OnnxError> {
        while let Some(taken) = self.take() {
            for (size, prepared) in taken {
                self.admit(size, prepared);
            }
            self.step()?;
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Vec<(Size, Prepared)>> {
        self.batches.retain(|_, batch| {
            batch.retain(Reply::is_wanted);
            !batch.is_empty()
        });
        let room = self.batches.iter().map(|(&size, batch)| (size, batch.free())).collect();
        self.shared.line.take(room, self.shared.batch_size)
    }

    /// Draws a job's latents and noise, and sets it on its way.
    fn admit(&mut self, size: Size, prepared: Prepared) {
        let Prepared { posterior, prompt, image_guidance, mut normals, run, reply } = prepared;
        if !self.takes(size, &prompt) {
            let pixels = self.denoiser.files.unet_multiple * self.denoiser.files.pixels_per_latent;
            let reason =
                format!("the UNet takes only images whose sides are multiples of {pixels} pixels; see docs/models.md");
            return reply.send(Err(EngineError::Row(reason)));
        }
        // diffusers draws from the posterior first, and only where there is an image to start from
        let from_noise = self.shared.pure_noise_at_zero && image_guidance == 0;
        let latents = (!from_noise).then(|| latents(&self.denoiser.files.scaling, &posterior, &mut *normals));
        let noise = normals.draw(Purpose::Noise, posterior.mean.len());
        let denoising = self.shared.scheduler.start(run as usize, latents.as_deref(), &noise, normals);
        let batch = self.batches.entry(size).or_insert_with(|| Batch::new(size, self.shared.batch_size));
        // There is room: no more were taken from the line.
        let _ = batch.admit(Sample { denoising, prompt, ticket: reply });
    }

    /// Whether the UNet takes latents of a size. Exported graphs may not take those that do not halve evenly, and
    /// that must reject an image, not stop the engine: so such a size is tried before it is used.
    fn takes(&mut self, size: Size, prompt: &Prompt) -> bool {
        let multiple = self.denoiser.files.unet_multiple;
        let halves = size.width.is_multiple_of(multiple) && size.height.is_multiple_of(multiple);
        halves || *self.tried.entry(size).or_insert_with(|| self.denoiser.takes(size, prompt))
    }

    /// Moves every sample one timestep on, and hands out what is done.
    fn step(&mut self) -> Result<(), OnnxError> {
        for (&size, batch) in &mut self.batches {
            for sample in batch.step(&mut self.denoiser, self.shared.guidance.as_ref())? {
                let planes = self.denoiser.decode(sample.denoising.latents(), size)?;
                rayon::spawn(move || sample.ticket.send(to_png(&planes)));
            }
        }
        Ok(())
    }
}

fn to_png(planes: &Planes) -> Answer {
    let image = from_chw(&planes.values, planes.width, planes.height);
    image.and_then(|image| encode_png(&image)).map_err(|error| EngineError::Row(error.chain()))
}
