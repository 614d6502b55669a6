//! The engine's thread: takes jobs in, keeps the batches running, hands pictures out.
//!
//! A job's way: its source is decoded on rayon and encoded by the VAE, once for equal bytes; it waits until a
//! batch of its size has an empty slot; it is denoised among others; the VAE decodes it, and rayon writes the PNG
//! while the next timestep runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use super::batch::{Batch, Guidance, Sample};
use super::denoiser::{Denoiser, Planes};
use super::encoders::Encoders;
use super::engine::{Job, Settings};
use super::files::DiffusionFiles;
use super::img2img::{Draws, Pixels, Posterior, Size, latents, prepare};

use super::schedulers::{Denoising, Scheduler};
use super::strength::rows_per_sample;
use super::{DiffusionError, EngineError};
use crate::imaging::{Limits, decode, encode_png, from_chw};
use crate::onnx::{Inbox, Memo, OnnxError, Reply};

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
    encoders: Encoders,
    denoisers: Vec<Denoiser>,
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
    /// One for each denoiser.
    batches: Vec<Batch<Reply<Answer>>>,
    waiting: VecDeque<(Question, Arc<Posterior>)>,
}

impl Worker {
    /// # Errors
    /// The negative prompt cannot be encoded.
    pub(super) fn new(
        mut encoders: Encoders,
        denoisers: Vec<Denoiser>,
        scheduler: Box<dyn Scheduler>,
        settings: &Settings,
    ) -> Result<Self, DiffusionError> {
        let guidance = if rows_per_sample(settings.guidance_scale) == 2 {
            #[expect(clippy::cast_possible_truncation, reason = "the models compute in f32")]
            let scale = settings.guidance_scale as f32;
            Some(Guidance { scale, negative: encoders.encode_prompt(&settings.negative_prompt)? })
        } else {
            None
        };
        Ok(Self {
            encoders,
            denoisers,
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
        let (limits, pixels_per_latent) = (self.limits, self.encoders.files.pixels_per_latent);
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
                    let posterior = Arc::new(self.encoders.encode_image(pixels)?);
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
        let lane = self.lanes.entry(size).or_insert_with(|| Lane {
            batches: self.denoisers.iter().map(|_| Batch::new(size, self.batch_size)).collect(),
            waiting: VecDeque::new(),
        });
        lane.waiting.push_back((question, posterior));
    }

    /// Puts waiting jobs into empty slots.
    fn fill(&mut self) -> Result<(), DiffusionError> {
        for lane in self.lanes.values_mut() {
            for batch in &mut lane.batches {
                batch.retain(Reply::is_wanted);
                while batch.free() > 0
                    && let Some((question, posterior)) = lane.waiting.pop_front()
                {
                    if !question.reply.is_wanted() {
                        continue;
                    }
                    let prompt = encoded(&mut self.prompts, &mut self.encoders, &question.job.prompt)?;
                    let denoising = start(&self.encoders.files, &*self.scheduler, &question, &posterior);
                    // There is room: it was looked for above.
                    let _ = batch.admit(Sample { denoising, prompt, ticket: question.reply });
                }
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
        Ok(())
    }

    /// Moves every sample one timestep on, and hands out what is done.
    fn step(&mut self) -> Result<(), DiffusionError> {
        for (&size, lane) in &mut self.lanes {
            let guidance = self.guidance.as_ref();
            let stepped: Vec<_> = thread::scope(|scope| {
                let pairs = self.denoisers.iter_mut().zip(&mut lane.batches).filter(|(_, batch)| !batch.is_empty());
                let running: Vec<_> =
                    pairs.map(|(denoiser, batch)| scope.spawn(move || step(denoiser, batch, size, guidance))).collect();
                running.into_iter().map(ScopedJoinHandle::join).collect()
            });
            let busy = self.denoisers.iter_mut().map(Denoiser::take_busy).max();
            self.encoders.counters.add_busy(busy.unwrap_or_default());
            for finished in stepped {
                for (reply, planes) in finished.map_err(|_| DiffusionError::Panic)?? {
                    rayon::spawn(move || reply.send(to_png(&planes)));
                }
            }
        }
        Ok(())
    }

    /// Whether the UNet takes latents of a size. Exported graphs may not take those that do not halve evenly, and
    /// that must reject a picture, not stop the engine: so such a size is tried before it is used.
    fn check_size(&mut self, size: Size) -> Result<Result<(), String>, DiffusionError> {
        let multiple = self.encoders.files.unet_multiple;
        let halves = size.width.is_multiple_of(multiple) && size.height.is_multiple_of(multiple);
        if halves || self.lanes.contains_key(&size) {
            return Ok(Ok(()));
        }
        let prompt = self.encoders.encode_prompt("")?;
        if self.denoisers.first_mut().is_some_and(|denoiser| denoiser.takes(size, &prompt)) {
            return Ok(Ok(()));
        }
        let pixels = multiple * self.encoders.files.pixels_per_latent;
        Ok(Err(format!("the UNet takes only pictures whose sides are multiples of {pixels} pixels")))
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.batches.iter().all(Batch::is_empty) && self.waiting.is_empty()
    }

    fn has_room(&self) -> bool {
        self.batches.iter().map(Batch::free).sum::<usize>() > self.waiting.len()
    }
}

/// A prompt's encoding, made once.
fn encoded(
    known: &mut Memo<Arc<str>, Arc<[f32]>>,
    encoders: &mut Encoders,
    prompt: &Arc<str>,
) -> Result<Arc<[f32]>, DiffusionError> {
    if let Some(encoding) = known.get(prompt) {
        return Ok(encoding);
    }
    let encoding = encoders.encode_prompt(prompt)?;
    known.put(Arc::clone(prompt), Arc::clone(&encoding));
    Ok(encoding)
}

/// Draws a job's latents and noise, and sets it on its way.
fn start(
    files: &DiffusionFiles,
    scheduler: &dyn Scheduler,
    question: &Question,
    posterior: &Posterior,
) -> Box<dyn Denoising> {
    let draws = question.draws.clone().unwrap_or_else(|| Draws::of_seed(question.job.seed, posterior.mean.len()));
    let latents = latents(files, posterior, &draws.posterior);
    scheduler.start(question.run as usize, &latents, &draws.noise)
}

/// One timestep of one batch, and the pictures that it finished.
fn step(
    denoiser: &mut Denoiser,
    batch: &mut Batch<Reply<Answer>>,
    size: Size,
    guidance: Option<&Guidance>,
) -> Result<Vec<(Reply<Answer>, Planes)>, OnnxError> {
    let done = batch.step(denoiser, guidance)?;
    done.into_iter().map(|sample| Ok((sample.ticket, denoiser.decode(sample.denoising.latents(), size)?))).collect()
}

fn to_png(planes: &Planes) -> Answer {
    let image = from_chw(&planes.values, planes.width, planes.height);
    image.and_then(|image| encode_png(&image)).map_err(|error| EngineError::Row(error.chain()))
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
