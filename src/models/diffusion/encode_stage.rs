//! The encode stage: the engine's first thread. Encodes requests and pushes them to the queue.
//!
//! Rayon decodes a source image and the VAE encodes it, once for equal bytes. The text encoders encode the prompt, once
//! for equal prompts. The encoded request then waits in the [`AdmissionQueue`] for a free slot of its size.

use std::{collections::HashMap, sync::Arc};

use super::{
    DiffusionError, EngineError,
    encoders::{Encoders, Prompt},
    img2img::{Pixels, Posterior, prepare},
    noise::Normals,
    queue::{AdmissionQueue, Reservation},
    request::{EncodedRequest, Request, Response},
    settings::Settings,
    sides::Sides,
};
use crate::{
    imaging::{Filter, Fit, ImageError, Limits, decode, resize, spawn},
    models::onnx::{Cache, Inbox, Reply},
};

/// Source images whose encoding is cached. The levels, seeds and attempts of one source follow each other closely.
const CACHED_SOURCES: usize = 256;

/// Prompts whose encoding is cached.
const CACHED_PROMPTS: usize = 4096;

/// SHA-256 of a source image's file.
type Digest = [u8; 32];

/// A message to the thread.
#[derive(Debug)]
pub(super) enum Event {
    Request(PendingRequest),
    /// A source image that rayon has decoded, or why it could not.
    Decoded(Digest, Result<Pixels, String>),
    /// Another stage has failed; the service has the reason.
    StageFailed,
}

/// A request with its reservation in the queue.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) request: Request,
    /// How many timesteps to run.
    pub(super) run: u32,
    pub(super) normals: Box<dyn Normals>,
    pub(super) digest: Digest,
    pub(super) reservation: Reservation<EncodedRequest>,
    pub(super) reply: Reply<Response>,
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct EncodeStage {
    encoders: Encoders,
    limits: Limits,
    size: Option<Fit>,
    queue: Arc<AdmissionQueue<EncodedRequest>>,
    prompts: Cache<Arc<str>, Prompt>,
    sources: Cache<Digest, Arc<Posterior>>,
    /// Source images that rayon is decoding, and the requests that wait for them.
    decoding: HashMap<Digest, Vec<PendingRequest>>,
}

impl EncodeStage {
    pub(super) fn new(encoders: Encoders, settings: &Settings, queue: Arc<AdmissionQueue<EncodedRequest>>) -> Self {
        Self {
            encoders,
            limits: settings.limits,
            size: settings.size,
            queue,
            prompts: Cache::new(CACHED_PROMPTS),
            sources: Cache::new(CACHED_SOURCES),
            decoding: HashMap::new(),
        }
    }

    /// Runs until the last handle to the engine is dropped or another stage fails.
    ///
    /// # Errors
    /// Returns an error if an encoder fails.
    pub(super) fn run(&mut self, inbox: &mut Inbox<Event>) -> Result<(), DiffusionError> {
        while let Some(event) = inbox.wait() {
            match event {
                _ if inbox.is_abandoned() => break,
                Event::Request(pending) => self.accept(pending, inbox)?,
                Event::Decoded(digest, decoded) => self.encode_source(digest, decoded)?,
                Event::StageFailed => break,
            }
        }
        Ok(())
    }

    fn accept(&mut self, pending: PendingRequest, inbox: &Inbox<Event>) -> Result<(), DiffusionError> {
        if !pending.reply.is_wanted() {
            return Ok(());
        }
        if let Some(posterior) = self.sources.get(&pending.digest) {
            return self.enqueue(pending, posterior);
        }
        let (digest, image) = (pending.digest, Arc::clone(&pending.request.image));
        let waiting = self.decoding.entry(digest).or_default();
        waiting.push(pending);
        if waiting.len() == 1 {
            let (limits, size, sides) = (self.limits, self.size, self.encoders.files.sides);
            let events = inbox.sender();
            spawn(
                move || open(&image, &limits, size, sides),
                move |decoded| events.send(Event::Decoded(digest, decoded)),
            );
        }
        Ok(())
    }

    /// Encodes a source image for all requests that wait for it.
    fn encode_source(&mut self, digest: Digest, decoded: Result<Pixels, String>) -> Result<(), DiffusionError> {
        let mut waiting = self.decoding.remove(&digest).unwrap_or_default();
        waiting.retain(|pending| pending.reply.is_wanted());
        match decoded {
            Err(reason) => {
                for pending in waiting {
                    pending.reply.send(Err(EngineError::Image(reason.clone())));
                }
            }
            Ok(_) if waiting.is_empty() => {}
            Ok(pixels) => {
                let posterior = Arc::new(self.encoders.encode_image(pixels)?);
                self.sources.put(digest, Arc::clone(&posterior));
                for pending in waiting {
                    self.enqueue(pending, Arc::clone(&posterior))?;
                }
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, pending: PendingRequest, posterior: Arc<Posterior>) -> Result<(), DiffusionError> {
        let prompt = self.encode_prompt(&pending.request.prompt)?;
        let PendingRequest { request, run, normals, reservation, reply, .. } = pending;
        let image_guidance = request.image_guidance;
        self.queue.push(posterior.size, EncodedRequest { posterior, prompt, image_guidance, normals, run, reply });
        drop(reservation);
        Ok(())
    }

    fn encode_prompt(&mut self, prompt: &Arc<str>) -> Result<Prompt, DiffusionError> {
        if let Some(encoding) = self.prompts.get(prompt) {
            return Ok(encoding);
        }
        let encoding = self.encoders.encode_prompt(prompt)?;
        self.prompts.put(Arc::clone(prompt), encoding.clone());
        Ok(encoding)
    }
}

fn open(image: &[u8], limits: &Limits, size: Option<Fit>, sides: Sides) -> Result<Pixels, ImageError> {
    let image = decode(image, limits)?;
    let Some(size) = size else { return prepare(&image, sides) };
    let (width, height) = size.sides(image.width(), image.height());
    // Bicubic is the default of Pillow's `Image.resize`. The sides of buckets are those that the models take.
    let filter = if matches!(size, Fit::Area(_)) { Filter::Lanczos } else { Filter::Bicubic };
    prepare(&resize(&image, width, height, filter)?, sides)
}
