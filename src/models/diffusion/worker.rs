//! A denoising worker: a thread with its own UNet and its own batch.
//!
//! A worker fills the free slots of its batch from the [`AdmissionQueue`]. The samples of a batch are denoised together,
//! each at its own timestep. Finished ones go to the decode stage. A worker stays with one size of images until its batch
//! is empty: on a GPU each change of size costs as much as several calls. Workers wait only for the queue, so while one of
//! them prepares a call, the model of another runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
};

use super::{
    EngineError,
    batch::{Batch, Guidance, Sample},
    batch_size::BatchSizes,
    decode_stage::{Decoding, Finished},
    denoiser::Denoiser,
    img2img::latents,
    latents::Size,
    noise::Purpose,
    queue::AdmissionQueue,
    request::{EncodedRequest, Response},
    schedulers::Scheduler,
};
use crate::models::onnx::{OnnxError, Provider, Reply};

/// What all workers of an engine share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Arc<AdmissionQueue<EncodedRequest>>,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) guidance: Option<Guidance>,
    pub(super) pure_noise_at_zero: bool,
    pub(super) batch_sizes: BatchSizes,
}

/// The state of a worker's thread.
#[derive(Debug)]
pub(super) struct Worker {
    denoiser: Denoiser,
    provider: Provider,
    shared: Arc<Shared>,
    decode: Sender<Decoding>,
    /// The running batch, or the last one.
    batch: Option<Batch<Reply<Response>>>,
    /// Whether the UNet accepts a size, for those that were tried.
    tried: BTreeMap<Size, bool>,
}

impl Worker {
    pub(super) fn new(denoiser: Denoiser, provider: Provider, shared: Arc<Shared>, decode: Sender<Decoding>) -> Self {
        Self { denoiser, provider, shared, decode, batch: None, tried: BTreeMap::new() }
    }

    /// Runs until the queue is closed.
    ///
    /// # Errors
    /// Returns an error if a model fails.
    pub(super) fn run(&mut self) -> Result<(), OnnxError> {
        while let Some((size, requests)) = self.take() {
            match self.accepts(size)? {
                true => self.admit(size, requests)?,
                false => requests.into_iter().for_each(|request| self.refuse(size, request)),
            }
            self.step()?;
        }
        Ok(())
    }

    fn take(&mut self) -> Option<(Size, Vec<EncodedRequest>)> {
        if let Some(batch) = &mut self.batch {
            batch.retain(Reply::is_wanted);
        }
        let running = self.batch.as_ref().filter(|batch| !batch.is_empty()).map(|batch| (batch.size, batch.free()));
        if running.is_none() {
            self.denoiser.rest();
        }
        self.shared.queue.take(running, |size| self.shared.batch_sizes.of(size))
    }

    /// Draws the latents and the noise of requests, and puts them into the batch.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    fn admit(&mut self, size: Size, requests: Vec<EncodedRequest>) -> Result<(), OnnxError> {
        let samples: Vec<_> = requests.into_iter().map(|request| self.start(request)).collect();
        let slots = self.shared.batch_sizes.of(size);
        let is_running = |batch: &Batch<_>| batch.size == size && (batch.slots() == slots || !batch.is_empty());
        let batch = match self.batch.take().filter(is_running) {
            Some(batch) => batch,
            None => self.open(size, slots)?,
        };
        let batch = self.batch.insert(batch);
        samples.into_iter().for_each(|sample| batch.admit(sample));
        Ok(())
    }

    fn start(&self, request: EncodedRequest) -> Sample<Reply<Response>> {
        let EncodedRequest { posterior, prompt, image_guidance, mut normals, run, reply } = request;
        // diffusers draws from the posterior first, and only if there is an image to start from.
        let from_noise = self.shared.pure_noise_at_zero && image_guidance == 0;
        let latents = (!from_noise).then(|| latents(&self.denoiser.files.scaling, &posterior, &mut *normals));
        let noise = normals.draw(Purpose::Noise, posterior.mean.len());
        let denoising = self.shared.scheduler.start(run as usize, latents.as_deref(), &noise, normals);
        Sample { denoising, prompt, ticket: reply }
    }

    fn open(&self, size: Size, slots: usize) -> Result<Batch<Reply<Response>>, OnnxError> {
        Batch::new(&self.denoiser, size, slots, self.shared.guidance.as_ref())
    }

    fn refuse(&self, size: Size, request: EncodedRequest) {
        let pixels = self.denoiser.files.sides.pixels_per_latent;
        let (width, height, multiple) = (size.width * pixels, size.height * pixels, pixels * self.even());
        let reason = format!(
            "the UNet fails on {width} x {height} pixels; set `spectrum.width` and `spectrum.height` to multiples of \
             {multiple} and `keep_aspect = false`"
        );
        request.reply.send(Err(EngineError::Image(reason)));
    }

    /// Whether the UNet accepts images of a size. A size is tried with a full batch before any image: on a GPU, to see
    /// whether that fits into its memory, otherwise half of it is tried; and if the size does not halve evenly, because a
    /// graph may fail on it even if it seems to take it. The latter must reject one image and not stop the engine.
    ///
    /// # Errors
    /// Returns an error if not even a batch of one sample fits into the memory of the device, or the device fails in
    /// another way.
    fn accepts(&mut self, size: Size) -> Result<bool, OnnxError> {
        let halves = size.width.is_multiple_of(self.even()) && size.height.is_multiple_of(self.even());
        if halves && self.provider == Provider::Cpu {
            return Ok(true);
        }
        if let Some(accepted) = self.tried.get(&size) {
            return Ok(*accepted);
        }
        // The decoder first: its memory cannot be halved.
        self.try_decoding(size)?;
        let accepted = loop {
            let slots = self.shared.batch_sizes.of(size);
            let negative = self.shared.guidance.as_ref().map(|guidance| &guidance.negative);
            let tried =
                self.denoiser.prepare(size, slots, negative).and_then(|mut call| self.denoiser.try_call(&mut call));
            match tried {
                Ok(()) => break true,
                Err(OnnxError::Run { .. }) if !halves => break false,
                Err(error) => self.halve(size, slots, error)?,
            };
        };
        self.tried.insert(size, accepted);
        Ok(accepted)
    }

    /// Lets the decoder of a GPU decode an image of this size, so that it has its memory before the UNet takes the rest.
    fn try_decoding(&self, size: Size) -> Result<(), OnnxError> {
        let (sender, receiver) = channel();
        if self.provider == Provider::Cpu || self.decode.send(Decoding::Trial(size, sender)).is_err() {
            return Ok(());
        }
        // Without a reply the decode stage has failed, and the engine stops.
        receiver.recv().unwrap_or(Ok(()))
    }

    /// Returns half of the samples if the memory of the device is too small for `slots` of them.
    fn halve(&self, size: Size, slots: usize, error: OnnxError) -> Result<usize, OnnxError> {
        let halve = || self.shared.batch_sizes.halve(size, slots);
        let half = error.is_out_of_memory().then(halve).flatten().ok_or(error)?;
        tracing::warn!(slots, half, ?size, "the batch does not fit into the memory of the device");
        Ok(half)
    }

    /// Returns the number of which sides of latents are multiples that halve evenly in the UNet.
    fn even(&self) -> u32 {
        self.denoiser.files.unet_multiple
    }

    /// Moves every sample forward by one timestep, and passes those on that are finished. If the memory of the device
    /// does not suffice, continues with half of the slots.
    fn step(&mut self) -> Result<(), OnnxError> {
        let Some(batch) = &mut self.batch else { return Ok(()) };
        let (size, slots) = (batch.size, batch.slots());
        match batch.step(&mut self.denoiser) {
            Ok(finished) => {
                for Sample { denoising, ticket: reply, .. } in finished {
                    // The decode stage ends before the workers only if it fails, and then the engine stops.
                    let latents = denoising.latents().to_vec();
                    let _ = self.decode.send(Decoding::Image(Finished { latents, size, reply }));
                }
            }
            Err(error) => {
                let mut smaller = self.open(size, self.halve(size, slots, error)?)?;
                if let Some(batch) = self.batch.take() {
                    smaller.take_over(batch);
                }
                self.batch = Some(smaller);
            }
        }
        Ok(())
    }
}
