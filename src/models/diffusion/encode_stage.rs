//! The engine's first thread: takes jobs in and lines them up.
//!
//! A job's way: its source is decoded on rayon and encoded by the VAE, once for equal bytes; its prompt is encoded,
//! once for equal texts; it waits in the [`Line`] until a batch of its size has an empty slot, where a
//! [`Worker`](super::worker::Worker) takes it on.

use std::collections::HashMap;
use std::sync::Arc;

use super::encoders::{Encoders, Prompt};
use super::engine::{Job, Settings};
use super::img2img::{Pixels, Posterior, prepare};
use super::noise::Normals;
use super::queue::{Announced, Line};
use super::{DiffusionError, EngineError};
use crate::imaging::{Filter, Fit, Limits, decode, resize};
use crate::models::onnx::{Inbox, Memo, Reply};

/// Source images whose encoding is kept. A level, seed or attempt of the same source comes soon after another.
const SOURCES_KEPT: usize = 256;

/// Prompts whose encoding is kept.
const PROMPTS_KEPT: usize = 4096;

/// SHA-256 of a source image's file.
type Digest = [u8; 32];

/// An image's file, or why there is none.
pub(super) type Answer = Result<Vec<u8>, EngineError>;

/// What arrives at the thread.
#[derive(Debug)]
pub(super) enum Event {
    /// A job from outside.
    Question(Question),
    /// A source that rayon has opened, or why it could not.
    Opened(Digest, Result<Pixels, String>),
    /// A worker has ended before its time; the service knows why.
    Failed,
}

/// A job with the timesteps to run, and its place in the queue.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) job: Job,
    pub(super) run: u32,
    pub(super) normals: Box<dyn Normals>,
    pub(super) digest: Digest,
    pub(super) announced: Announced<Prepared>,
    pub(super) reply: Reply<Answer>,
}

/// A job with what the encoders say of it: ready to be denoised.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) posterior: Arc<Posterior>,
    pub(super) prompt: Prompt,
    pub(super) image_guidance: u8,
    pub(super) normals: Box<dyn Normals>,
    pub(super) run: u32,
    pub(super) reply: Reply<Answer>,
}

/// All that the thread owns.
#[derive(Debug)]
pub(super) struct Intake {
    encoders: Encoders,
    limits: Limits,
    size: Option<Fit>,
    line: Arc<Line<Prepared>>,
    prompts: Memo<Arc<str>, Prompt>,
    sources: Memo<Digest, Arc<Posterior>>,
    /// Sources that rayon is opening, and who waits for them.
    opening: HashMap<Digest, Vec<Question>>,
}

impl Intake {
    pub(super) fn new(encoders: Encoders, settings: &Settings, line: Arc<Line<Prepared>>) -> Self {
        Self {
            encoders,
            limits: settings.limits,
            size: settings.size,
            line,
            prompts: Memo::new(PROMPTS_KEPT),
            sources: Memo::new(SOURCES_KEPT),
            opening: HashMap::new(),
        }
    }

    /// Works until nobody holds the engine any more, or something fails.
    ///
    /// # Errors
    /// A model that failed.
    pub(super) fn run(&mut self, inbox: &mut Inbox<Event>) -> Result<(), DiffusionError> {
        while let Some(event) = inbox.wait() {
            match event {
                _ if inbox.is_abandoned() => break,
                Event::Question(question) => self.take_in(question, inbox)?,
                Event::Opened(digest, opened) => self.opened(digest, opened)?,
                Event::Failed => break,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, question: Question, inbox: &Inbox<Event>) -> Result<(), DiffusionError> {
        if !question.reply.is_wanted() {
            return Ok(());
        }
        if let Some(posterior) = self.sources.get(&question.digest) {
            return self.line_up(question, posterior);
        }
        let (digest, image) = (question.digest, Arc::clone(&question.job.image));
        let waiting = self.opening.entry(digest).or_default();
        waiting.push(question);
        if waiting.len() == 1 {
            let (limits, size, pixels_per_latent) = (self.limits, self.size, self.encoders.files.pixels_per_latent);
            let events = inbox.sender();
            rayon::spawn(move || events.send(Event::Opened(digest, open(&image, &limits, size, pixels_per_latent))));
        }
        Ok(())
    }

    /// Encodes a source for all who wait for it.
    fn opened(&mut self, digest: Digest, opened: Result<Pixels, String>) -> Result<(), DiffusionError> {
        let mut waiting = self.opening.remove(&digest).unwrap_or_default();
        waiting.retain(|question| question.reply.is_wanted());
        match opened {
            Err(reason) => {
                for question in waiting {
                    question.reply.send(Err(EngineError::Row(reason.clone())));
                }
            }
            Ok(_) if waiting.is_empty() => {}
            Ok(pixels) => {
                let posterior = Arc::new(self.encoders.encode_image(pixels)?);
                self.sources.put(digest, Arc::clone(&posterior));
                for question in waiting {
                    self.line_up(question, Arc::clone(&posterior))?;
                }
            }
        }
        Ok(())
    }

    fn line_up(&mut self, question: Question, posterior: Arc<Posterior>) -> Result<(), DiffusionError> {
        let prompt = self.encode_prompt(&question.job.prompt)?;
        let Question { job, run, normals, announced, reply, .. } = question;
        let image_guidance = job.image_guidance;
        self.line.put(posterior.size, Prepared { posterior, prompt, image_guidance, normals, run, reply });
        drop(announced);
        Ok(())
    }

    /// A prompt's encoding, made once.
    fn encode_prompt(&mut self, prompt: &Arc<str>) -> Result<Prompt, DiffusionError> {
        if let Some(encoding) = self.prompts.get(prompt) {
            return Ok(encoding);
        }
        let encoding = self.encoders.encode_prompt(prompt)?;
        self.prompts.put(Arc::clone(prompt), encoding.clone());
        Ok(encoding)
    }
}

fn open(image: &[u8], limits: &Limits, size: Option<Fit>, pixels_per_latent: u32) -> Result<Pixels, String> {
    let mut image = decode(image, limits).map_err(|error| error.chain())?;
    if let Some(size) = size {
        let (width, height) = size.sides(image.width(), image.height());
        // as Pillow's `Image.resize` does where no filter is named
        image = resize(&image, width, height, Filter::Bicubic).map_err(|error| error.chain())?;
    }
    let pixels = prepare(&image, pixels_per_latent).map_err(|error| error.chain())?;
    pixels.ok_or_else(|| {
        let (width, height) = image.dimensions();
        format!("the image is {width} x {height} pixels, and a side needs {pixels_per_latent} at least")
    })
}
