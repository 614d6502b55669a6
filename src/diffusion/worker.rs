//! The engine's thread: takes jobs in, keeps the batches running, hands pictures out.
//!
//! A job's way: its source is decoded on rayon and encoded by the VAE, once for equal bytes; it waits until a
//! batch of its size has an empty slot; it is denoised among others; the VAE decodes it, and rayon writes the PNG
//! while the next timestep runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::batch::{Batch, Guidance, Sample};
use super::engine::{Job, Settings};
use super::img2img::{Draws, Pixels, Posterior, Size, latents, prepare, unscaled};
use super::models::Models;
use super::schedulers::Scheduler;
use super::strength::rows_per_sample;
use super::{DiffusionError, EngineError};
use crate::imaging::{Limits, decode, encode_png, from_chw};
use crate::onnx::{Inbox, Memo, Reply};

/// Source images whose encoding is kept. A level, seed or attempt of the same source comes soon after another.
const SOURCES_KEPT: usize = 256;

/// Prompts whose encoding is kept.
const PROMPTS_KEPT: usize = 4096;

/// SHA-256 of a source image's file.
type Digest = [u8; 32];

type Answer = Result<Vec<u8>, EngineError>;

/// What arrives at the thread.
#[derive(Debug)]
pub(super) enum Event {
    /// A job from outside.
    Question(Question),
    /// A source that rayon has opened, or why it could not.
    Opened(Digest, Result<Pixels, String>),
}

/// A job with the timesteps to run, and its place in the queue.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) job: Job,
    pub(super) run: u32,
    /// Draws from outside; else those of the job's seed.
    pub(super) draws: Option<Draws>,
    pub(super) digest: Digest,
    pub(super) reply: Reply<Answer>,
}

/// All that the thread owns.
#[derive(Debug)]
pub(super) struct Worker {
    models: Models,
    scheduler: Box<dyn Scheduler>,
    guidance: Option<Guidance>,
    batch_size: usize,
    limits: Limits,
    prompts: Memo<Arc<str>, Arc<[f32]>>,
    sources: Memo<Digest, Arc<Posterior>>,
    /// Sources that rayon is opening, and who waits for them.
    opening: HashMap<Digest, Vec<Question>>,
    /// What runs and what waits, by size of the latents.
    lanes: BTreeMap<Size, Lane>,
}

/// The jobs of one size.
#[derive(Debug)]
struct Lane {
    batch: Batch<Reply<Answer>>,
    waiting: VecDeque<(Question, Arc<Posterior>)>,
}

impl Worker {
    /// # Errors
    /// The negative prompt cannot be encoded.
    pub(super) fn new(
        mut models: Models,
        scheduler: Box<dyn Scheduler>,
        settings: &Settings,
    ) -> Result<Self, DiffusionError> {
        let guidance = if rows_per_sample(settings.guidance_scale) == 2 {
            #[expect(clippy::cast_possible_truncation, reason = "the models compute in f32")]
            let scale = settings.guidance_scale as f32;
            Some(Guidance { scale, negative: models.encode_prompt(&settings.negative_prompt)? })
        } else {
            None
        };
        Ok(Self {
            models,
            scheduler,
            guidance,
            batch_size: settings.batch_size.max(1),
            limits: settings.limits,
            prompts: Memo::new(PROMPTS_KEPT),
            sources: Memo::new(SOURCES_KEPT),
            opening: HashMap::new(),
            lanes: BTreeMap::new(),
        })
    }

    /// Works until nobody holds the engine any more, or a model fails.
    pub(super) fn run(mut self, mut inbox: Inbox<Event>) {
        if let Err(error) = self.work(&mut inbox) {
            inbox.fail(error.to_string());
        }
    }

    fn work(&mut self, inbox: &mut Inbox<Event>) -> Result<(), DiffusionError> {
        while !inbox.is_abandoned() {
            while let Some(event) = if self.should_wait() { inbox.wait() } else { inbox.look() } {
                match event {
                    Event::Question(question) => self.take_in(question, inbox),
                    Event::Opened(digest, opened) => self.opened(digest, opened)?,
                }
            }
            self.fill()?;
            self.step()?;
        }
        Ok(())
    }

    /// Whether running a timestep now would be a waste: nothing runs, or there are empty slots and sources for
    /// them are being opened, each of which ends in an event.
    fn should_wait(&self) -> bool {
        let mut lanes = self.lanes.values();
        if self.opening.is_empty() { lanes.all(Lane::is_idle) } else { lanes.all(Lane::has_room) }
    }

    fn take_in(&mut self, question: Question, inbox: &Inbox<Event>) {
        if !question.reply.is_wanted() {
            return;
        }
        if let Some(posterior) = self.sources.get(&question.digest) {
            return self.line_up(question, posterior);
        }
        let (digest, image) = (question.digest, Arc::clone(&question.job.image));
        let waiting = self.opening.entry(digest).or_default();
        waiting.push(question);
        let (1, Some(events)) = (waiting.len(), inbox.sender()) else { return };
        let (limits, pixels_per_latent) = (self.limits, self.models.files.pixels_per_latent);
        rayon::spawn(move || {
            // The thread may have ended because of an error.
            let _ = events.send(Event::Opened(digest, open(&image, &limits, pixels_per_latent)));
        });
    }

    /// Encodes a source for all who wait for it.
    fn opened(&mut self, digest: Digest, opened: Result<Pixels, String>) -> Result<(), DiffusionError> {
        let mut waiting = self.opening.remove(&digest).unwrap_or_default();
        waiting.retain(|question| question.reply.is_wanted());
        match opened {
            Err(reason) => reject(waiting, &reason),
            Ok(_) if waiting.is_empty() => {}
            Ok(pixels) => match self.check_size(pixels.size)? {
                Err(reason) => reject(waiting, &reason),
                Ok(()) => {
                    let posterior = Arc::new(self.models.encode_image(pixels)?);
                    self.sources.put(digest, Arc::clone(&posterior));
                    for question in waiting {
                        self.line_up(question, Arc::clone(&posterior));
                    }
                }
            },
        }
        Ok(())
    }

    fn line_up(&mut self, question: Question, posterior: Arc<Posterior>) {
        let size = posterior.size;
        let lane = self
            .lanes
            .entry(size)
            .or_insert_with(|| Lane { batch: Batch::new(size, self.batch_size), waiting: VecDeque::new() });
        lane.waiting.push_back((question, posterior));
    }

    /// Puts waiting jobs into empty slots.
    fn fill(&mut self) -> Result<(), DiffusionError> {
        for lane in self.lanes.values_mut() {
            lane.batch.retain(Reply::is_wanted);
            while lane.batch.free() > 0
                && let Some((question, posterior)) = lane.waiting.pop_front()
            {
                if !question.reply.is_wanted() {
                    continue;
                }
                let Question { job, run, draws, reply, .. } = question;
                let prompt = match self.prompts.get(&job.prompt) {
                    Some(prompt) => prompt,
                    None => {
                        let prompt = self.models.encode_prompt(&job.prompt)?;
                        self.prompts.put(job.prompt, Arc::clone(&prompt));
                        prompt
                    }
                };
                let draws = draws.unwrap_or_else(|| Draws::of_seed(job.seed, posterior.mean.len()));
                let latents = latents(&self.models.files, &posterior, &draws.posterior);
                let denoising = self.scheduler.start(run as usize, &latents, &draws.noise);
                // There is room: it was looked for above.
                let _ = lane.batch.admit(Sample { denoising, prompt, ticket: reply });
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
        Ok(())
    }

    /// Moves every batch one timestep on, and hands out what is done.
    fn step(&mut self) -> Result<(), DiffusionError> {
        for (&size, lane) in &mut self.lanes {
            if lane.batch.is_empty() {
                continue;
            }
            for sample in lane.batch.step(&mut self.models, self.guidance.as_ref())? {
                let latents = unscaled(&self.models.files, sample.denoising.latents());
                let (planes, width, height) = self.models.decode(latents, size)?;
                self.models.count_image();
                rayon::spawn(move || {
                    let png = from_chw(&planes, width, height).and_then(|image| encode_png(&image));
                    sample.ticket.send(png.map_err(|error| EngineError::Row(error.chain())));
                });
            }
        }
        Ok(())
    }

    /// Whether the UNet takes latents of a size. Exported graphs may not take those that do not halve evenly, and
    /// that must reject a picture, not stop the engine: so such a size is tried before it is used.
    fn check_size(&mut self, size: Size) -> Result<Result<(), String>, DiffusionError> {
        let multiple = self.models.files.unet_multiple;
        let halves = size.width.is_multiple_of(multiple) && size.height.is_multiple_of(multiple);
        if halves || self.lanes.contains_key(&size) {
            return Ok(Ok(()));
        }
        let prompt = self.models.encode_prompt("")?;
        if self.models.takes(size, &prompt) {
            return Ok(Ok(()));
        }
        let pixels = multiple * self.models.files.pixels_per_latent;
        Ok(Err(format!("the UNet takes only pictures whose sides are multiples of {pixels} pixels")))
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.waiting.is_empty()
    }

    fn has_room(&self) -> bool {
        self.batch.free() > self.waiting.len()
    }
}

fn open(image: &[u8], limits: &Limits, pixels_per_latent: u32) -> Result<Pixels, String> {
    let picture = decode(image, limits).map_err(|error| error.chain())?;
    let pixels = prepare(&picture, pixels_per_latent).map_err(|error| error.chain())?;
    pixels.ok_or_else(|| {
        let (width, height) = picture.dimensions();
        format!("the picture is {width} x {height} pixels, and a side needs {pixels_per_latent} at least")
    })
}

fn reject(waiting: Vec<Question>, reason: &str) {
    for question in waiting {
        question.reply.send(Err(EngineError::Row(reason.to_owned())));
    }
}
