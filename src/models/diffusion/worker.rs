//! A denoising worker: a thread with its own denoiser and its own batches.
//!
//! A worker fills the free slots of its batches from the [`AdmissionQueue`]. The samples of a batch are denoised
//! together, each at its own timestep. The VAE decodes finished samples, and rayon encodes the PNG while the next
//! timestep runs. Workers wait only for the queue, so while one of them prepares a call, the model of another runs.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    EngineError,
    batch::{Batch, Guidance, Sample},
    denoiser::{Denoiser, Planes},
    encoders::Prompt,
    img2img::latents,
    latents::Size,
    noise::Purpose,
    queue::AdmissionQueue,
    request::{EncodedRequest, Response},
    schedulers::Scheduler,
};
use crate::{
    imaging::{ImageError, check_colors, encode_png, from_chw, spawn},
    models::onnx::{OnnxError, Reply},
};

/// What all workers of an engine share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Arc<AdmissionQueue<EncodedRequest>>,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) guidance: Option<Guidance>,
    pub(super) pure_noise_at_zero: bool,
    pub(super) batch_size: usize,
}

/// The state of a worker's thread.
#[derive(Debug)]
pub(super) struct Worker {
    denoiser: Denoiser,
    shared: Arc<Shared>,
    /// The running batches, by the size of their latents.
    batches: BTreeMap<Size, Batch<Reply<Response>>>,
    /// Whether the UNet accepts sizes that do not halve evenly, for those that were tried.
    accepted: BTreeMap<Size, bool>,
}

impl Worker {
    pub(super) fn new(denoiser: Denoiser, shared: Arc<Shared>) -> Self {
        Self { denoiser, shared, batches: BTreeMap::new(), accepted: BTreeMap::new() }
    }

    /// Runs until the queue is closed.
    ///
    /// # Errors
    /// Returns an error if a model fails.
    pub(super) fn run(&mut self) -> Result<(), OnnxError> {
        while let Some(requests) = self.take() {
            for (size, request) in requests {
                self.admit(size, request)?;
            }
            self.step()?;
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Vec<(Size, EncodedRequest)>> {
        self.batches.retain(|_, batch| {
            batch.retain(Reply::is_wanted);
            !batch.is_empty()
        });
        let free = self.batches.iter().map(|(&size, batch)| (size, batch.free())).collect();
        self.shared.queue.take(free, self.shared.batch_size)
    }

    /// Draws a request's latents and noise, and puts it into a slot.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    fn admit(&mut self, size: Size, request: EncodedRequest) -> Result<(), OnnxError> {
        let EncodedRequest { posterior, prompt, image_guidance, mut normals, run, reply } = request;
        if !self.accepts(size, &prompt)? {
            let pixels = self.denoiser.files.sides.pixels_per_latent;
            let (width, height, multiple) = (size.width * pixels, size.height * pixels, pixels * self.even());
            let reason = format!(
                "the UNet fails on {width} x {height} pixels; set `spectrum.width` and `spectrum.height` to multiples of \
                 {multiple} and `keep_aspect = false`"
            );
            reply.send(Err(EngineError::Image(reason)));
            return Ok(());
        }
        // diffusers draws from the posterior first, and only if there is an image to start from.
        let from_noise = self.shared.pure_noise_at_zero && image_guidance == 0;
        let latents = (!from_noise).then(|| latents(&self.denoiser.files.scaling, &posterior, &mut *normals));
        let noise = normals.draw(Purpose::Noise, posterior.mean.len());
        let denoising = self.shared.scheduler.start(run as usize, latents.as_deref(), &noise, normals);
        let batch = self.batches.entry(size).or_insert_with(|| Batch::new(size, self.shared.batch_size));
        // The queue returns no more requests than there are free slots.
        let _ = batch.admit(Sample { denoising, prompt, ticket: reply });
        Ok(())
    }

    /// Whether the UNet accepts latents of a size. A graph may fail on sizes that do not halve evenly even if it seems to
    /// take them. That must reject one image and not stop the engine, so such a size is tried before it is used.
    ///
    /// # Errors
    /// Returns an error if the device fails, which says nothing about the size.
    fn accepts(&mut self, size: Size, prompt: &Prompt) -> Result<bool, OnnxError> {
        let multiple = self.even();
        let halves = size.width.is_multiple_of(multiple) && size.height.is_multiple_of(multiple);
        if halves {
            return Ok(true);
        }
        if let Some(accepted) = self.accepted.get(&size) {
            return Ok(*accepted);
        }
        let accepted = self.denoiser.accepts(size, prompt)?;
        self.accepted.insert(size, accepted);
        Ok(accepted)
    }

    /// Returns the number of which sides of latents are multiples that halve evenly in the UNet.
    fn even(&self) -> u32 {
        self.denoiser.files.unet_multiple
    }

    /// Moves every sample forward by one timestep, and replies with those that are finished.
    fn step(&mut self) -> Result<(), OnnxError> {
        for (&size, batch) in &mut self.batches {
            for sample in batch.step(&mut self.denoiser, self.shared.guidance.as_ref())? {
                let planes = self.denoiser.decode(sample.denoising.latents(), size)?;
                let ticket = sample.ticket;
                spawn(move || to_png(&planes), move |png| ticket.send(png.map_err(EngineError::Image)));
            }
        }
        Ok(())
    }
}

fn to_png(planes: &Planes) -> Result<Vec<u8>, ImageError> {
    let image = from_chw(&planes.values, planes.width, planes.height)?;
    check_colors(&image)?;
    encode_png(&image)
}
