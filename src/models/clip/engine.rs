//! One CLIP for many callers: their rows are batched, and equal ones are embedded once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::files::ClipFiles;
use super::model::{Clip, ROWS};
use super::{ClipError, EmbedError};
use crate::imaging::{Limits, Preprocess, decode_on_white};
use crate::models::onnx::{
    Busy, Chosen, CudaOptions, Device, Inbox, Loader, Memo, Reply, Runtime, Service, default_threads,
};

/// Texts whose embedding is kept; at a width of 768 this is 200 MB at most.
const TEXTS_KEPT: usize = 65_536;

/// SHA-256 of an image's file.
type Digest = [u8; 32];

type Answer = Result<Arc<[f32]>, EmbedError>;

/// How an engine runs here; no embedding depends on it but through rounding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClipSettings {
    /// Cores that one operator may use on the CPU.
    pub(crate) threads: usize,
    /// How a GPU is set up.
    pub(crate) cuda: CudaOptions,
    /// Rows that may be waiting or running; callers past it are held back.
    pub(crate) queue: usize,
    /// The largest image that is opened.
    pub(crate) limits: Limits,
}

impl Default for ClipSettings {
    fn default() -> Self {
        Self { threads: default_threads(), cuda: CudaOptions::default(), queue: 8 * ROWS, limits: Limits::default() }
    }
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClipStats {
    /// Images embedded by the model.
    pub(crate) images: u64,
    /// Texts embedded by the model.
    pub(crate) texts: u64,
    /// Time in which the model ran.
    pub(crate) busy: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    images: AtomicU64,
    texts: AtomicU64,
    busy: Arc<Busy>,
}

/// A running CLIP. Clones share it; it ends, with its thread, when the last is dropped.
#[derive(Clone, Debug)]
pub(crate) struct ClipEngine {
    service: Arc<Service<Event>>,
    counters: Arc<Counters>,
    chosen: Chosen,
}

/// What arrives at the thread.
#[derive(Debug)]
enum Event {
    Text(Arc<str>, Reply<Answer>),
    Image(Digest, Arc<[u8]>, Reply<Answer>),
    /// An image that rayon has opened and preprocessed, or why it could not.
    Opened(Digest, Result<Vec<f32>, String>),
}

impl ClipEngine {
    /// Loads the model and starts its thread.
    ///
    /// # Errors
    /// A device that is not there, or a graph that the runtime refuses.
    pub(crate) fn start(
        runtime: &Runtime,
        files: &ClipFiles,
        settings: ClipSettings,
        device: &Device,
    ) -> Result<Self, ClipError> {
        let chosen = device.choose(runtime)?;
        let counters = Arc::new(Counters::default());
        let (provider, cuda, threads) = (chosen.provider, settings.cuda, settings.threads);
        let loader = Loader { runtime, provider, cuda, threads, busy: &counters.busy };
        let worker = Worker {
            clip: Clip::load(&loader, files)?,
            preprocess: Arc::new(files.preprocess.clone()),
            limits: settings.limits,
            counters: Arc::clone(&counters),
            known_texts: Memo::new(TEXTS_KEPT),
            texts: VecDeque::new(),
            opening: HashMap::new(),
            opened: VecDeque::new(),
        };
        let service = Service::start("clip", settings.queue, move |inbox| worker.run(inbox))
            .map_err(|source| ClipError::Thread { source })?;
        Ok(Self { service: Arc::new(service), counters, chosen })
    }

    /// What the model runs on.
    pub(crate) fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Embeds a text as a unit vector; each distinct text once.
    ///
    /// # Errors
    /// [`EmbedError::Job`] where the model failed.
    pub(crate) async fn embed_text(&self, text: &str) -> Answer {
        let text = Arc::from(text);
        self.service.ask(|reply| Event::Text(text, reply)).await.map_err(EmbedError::Job)?
    }

    /// Embeds an image's file (PNG, JPEG or WebP) as a unit vector; equal bytes that are asked for at the same
    /// time once.
    ///
    /// # Errors
    /// [`EmbedError::Row`] for an image that cannot be opened or whose embedding is not a number,
    /// [`EmbedError::Job`] where the model failed.
    pub(crate) async fn embed_image(&self, bytes: Arc<[u8]>) -> Answer {
        let digest = Sha256::digest(&bytes).into();
        self.service.ask(|reply| Event::Image(digest, bytes, reply)).await.map_err(EmbedError::Job)?
    }

    /// What was done so far.
    pub(crate) fn stats(&self) -> ClipStats {
        ClipStats {
            images: self.counters.images.load(Ordering::Relaxed),
            texts: self.counters.texts.load(Ordering::Relaxed),
            busy: self.counters.busy.total(),
        }
    }
}

/// All that the thread owns.
#[derive(Debug)]
struct Worker {
    clip: Clip,
    preprocess: Arc<Preprocess>,
    limits: Limits,
    counters: Arc<Counters>,
    known_texts: Memo<Arc<str>, Arc<[f32]>>,
    texts: VecDeque<(Arc<str>, Reply<Answer>)>,
    /// Images that were asked for and not embedded yet, and who waits for them.
    opening: HashMap<Digest, Vec<Reply<Answer>>>,
    opened: VecDeque<(Digest, Vec<f32>)>,
}

impl Worker {
    fn run(mut self, mut inbox: Inbox<Event>) {
        if let Err(error) = self.work(&mut inbox) {
            inbox.failure().set(&error);
        }
    }

    fn work(&mut self, inbox: &mut Inbox<Event>) -> Result<(), ClipError> {
        while !inbox.is_abandoned() {
            while let Some(event) = if self.should_wait() { inbox.wait() } else { inbox.look() } {
                self.take_in(event, inbox);
            }
            self.embed_texts()?;
            self.embed_images()?;
        }
        Ok(())
    }

    /// Whether running the model now would be a waste: nothing is ready, or a batch is not full and images for
    /// it are being opened, each of which ends in an event.
    fn should_wait(&self) -> bool {
        let still_opening = self.opening.len() > self.opened.len();
        self.texts.is_empty() && (self.opened.is_empty() || (still_opening && self.opened.len() < ROWS))
    }

    fn take_in(&mut self, event: Event, inbox: &Inbox<Event>) {
        match event {
            Event::Text(text, reply) => match self.known_texts.get(&text) {
                Some(embedding) => reply.send(Ok(embedding)),
                None => self.texts.push_back((text, reply)),
            },
            Event::Image(digest, bytes, reply) => {
                let waiting = self.opening.entry(digest).or_default();
                waiting.push(reply);
                if waiting.len() > 1 {
                    return;
                }
                let (preprocess, limits, events) = (Arc::clone(&self.preprocess), self.limits, inbox.sender());
                rayon::spawn(move || events.send(Event::Opened(digest, open(&bytes, &limits, &preprocess))));
            }
            Event::Opened(digest, Ok(tensor)) => self.opened.push_back((digest, tensor)),
            Event::Opened(digest, Err(reason)) => {
                for reply in self.opening.remove(&digest).unwrap_or_default() {
                    reply.send(Err(EmbedError::Row(reason.clone())));
                }
            }
        }
    }

    /// Embeds the texts that wait: each distinct one once, a batch at a time.
    fn embed_texts(&mut self) -> Result<(), ClipError> {
        let mut distinct: Vec<Arc<str>> = Vec::new();
        for (text, _) in &self.texts {
            if distinct.len() < ROWS && !distinct.contains(text) {
                distinct.push(Arc::clone(text));
            }
        }
        if distinct.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = distinct.iter().map(AsRef::as_ref).collect();
        let embeddings = self.clip.embed_texts(&texts)?;
        self.counters.texts.fetch_add(texts.len() as u64, Ordering::Relaxed);
        for (text, embedding) in distinct.into_iter().zip(embeddings) {
            self.known_texts.put(text, embedding.into());
        }
        for (text, reply) in std::mem::take(&mut self.texts) {
            match self.known_texts.get(&text) {
                Some(embedding) => reply.send(Ok(embedding)),
                None => self.texts.push_back((text, reply)),
            }
        }
        Ok(())
    }

    /// Embeds a batch of the images that are opened.
    fn embed_images(&mut self) -> Result<(), ClipError> {
        let mut batch = Vec::with_capacity(ROWS);
        while batch.len() < ROWS
            && let Some((digest, tensor)) = self.opened.pop_front()
        {
            if self.opening.get(&digest).is_some_and(|waiting| waiting.iter().any(Reply::is_wanted)) {
                batch.push((digest, tensor));
            } else {
                self.opening.remove(&digest);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let tensors: Vec<&[f32]> = batch.iter().map(|(_, tensor)| tensor.as_slice()).collect();
        let embeddings = self.clip.embed_tensors(&tensors)?;
        self.counters.images.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for ((digest, _), embedding) in batch.into_iter().zip(embeddings) {
            let answer: Answer = if embedding.iter().all(|value| value.is_finite()) {
                Ok(embedding.into())
            } else {
                Err(EmbedError::Row("the embedding has values that are not numbers".to_owned()))
            };
            for reply in self.opening.remove(&digest).unwrap_or_default() {
                reply.send(answer.clone());
            }
        }
        Ok(())
    }
}

/// Decodes and preprocesses an image.
fn open(bytes: &[u8], limits: &Limits, preprocess: &Preprocess) -> Result<Vec<f32>, String> {
    let image = decode_on_white(bytes, limits).map_err(|error| error.chain())?;
    preprocess.apply(&image).map_err(|error| error.chain())
}
