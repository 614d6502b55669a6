//! The CLIP engine: one model for many callers. Batches their rows and embeds equal rows once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{
    ClipError, EmbedError,
    files::ClipFiles,
    model::{Clip, ROWS},
};
use crate::{
    imaging::{Limits, decode, spawn},
    models::{
        onnx::{Busy, Cache, Chosen, CudaOptions, Device, Inbox, Loader, Reply, Runtime, Service, default_threads},
        preprocess::Preprocess,
    },
};

/// Texts whose embedding is cached: at most 200 MB at a width of 768.
const CACHED_TEXTS: usize = 65_536;

/// SHA-256 of an image's file.
type Digest = [u8; 32];

type Response = Result<Arc<[f32]>, EmbedError>;

/// An engine's settings. They affect embeddings only by rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClipSettings {
    /// Cores that one operator may use on the CPU.
    pub(crate) threads: usize,
    pub(crate) cuda: CudaOptions,
    /// Requests that may be waiting or running; further callers are held back.
    pub(crate) queue: usize,
    /// The largest image that is opened.
    pub(crate) limits: Limits,
}

impl Default for ClipSettings {
    fn default() -> Self {
        Self { threads: default_threads(), cuda: CudaOptions::default(), queue: 8 * ROWS, limits: Limits::default() }
    }
}

/// A snapshot of an engine's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClipStats {
    /// Images that the model embedded.
    pub(crate) images: u64,
    /// Texts that the model embedded.
    pub(crate) texts: u64,
    /// Time during which the model ran.
    pub(crate) busy: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    images: AtomicU64,
    texts: AtomicU64,
    busy: Arc<Busy>,
}

/// A running CLIP engine. Clones share it. Dropping the last clone ends its thread.
#[derive(Debug, Clone)]
pub(crate) struct ClipEngine {
    service: Arc<Service<Event>>,
    counters: Arc<Counters>,
    chosen: Chosen,
}

/// What arrives at the thread.
#[derive(Debug)]
enum Event {
    Text(Arc<str>, Reply<Response>),
    Image(Digest, Arc<[u8]>, Reply<Response>),
    /// An image that rayon has decoded and preprocessed, or why it could not.
    Prepared(Digest, Result<Vec<f32>, String>),
}

impl ClipEngine {
    /// Loads the model and starts its thread.
    ///
    /// # Errors
    /// Returns an error if the device is missing or the runtime rejects the graph.
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
            cached_texts: Cache::new(CACHED_TEXTS),
            texts: VecDeque::new(),
            preparing: HashMap::new(),
            prepared: VecDeque::new(),
        };
        let service = Service::start("clip", settings.queue, move |inbox| worker.run(inbox))?;
        Ok(Self { service: Arc::new(service), counters, chosen })
    }

    /// Returns what the model runs on.
    pub(crate) fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Embeds a text as a unit vector. Equal texts are embedded once.
    ///
    /// # Errors
    /// Returns [`EmbedError::Stopped`] if the model failed.
    pub(crate) async fn embed_text(&self, text: &str) -> Response {
        let text = Arc::from(text);
        self.service.call(|reply| Event::Text(text, reply)).await.map_err(EmbedError::Stopped)?
    }

    /// Embeds an image file as a unit vector. Equal images that are requested at the same time are
    /// embedded once.
    ///
    /// # Errors
    /// Returns [`EmbedError::Image`] if the image cannot be opened or its embedding has values that are not finite, and
    /// [`EmbedError::Stopped`] if the model failed.
    pub(crate) async fn embed_image(&self, bytes: Arc<[u8]>) -> Response {
        let digest = Sha256::digest(&bytes).into();
        self.service.call(|reply| Event::Image(digest, bytes, reply)).await.map_err(EmbedError::Stopped)?
    }

    /// Returns what the engine has done so far.
    pub(crate) fn stats(&self) -> ClipStats {
        ClipStats {
            images: self.counters.images.load(Ordering::Relaxed),
            texts: self.counters.texts.load(Ordering::Relaxed),
            busy: self.counters.busy.total(),
        }
    }
}

/// The state of the thread.
#[derive(Debug)]
struct Worker {
    clip: Clip,
    preprocess: Arc<Preprocess>,
    limits: Limits,
    counters: Arc<Counters>,
    cached_texts: Cache<Arc<str>, Arc<[f32]>>,
    texts: VecDeque<(Arc<str>, Reply<Response>)>,
    /// Images that were requested and are not embedded yet, with the callers that wait for them.
    preparing: HashMap<Digest, Vec<Reply<Response>>>,
    prepared: VecDeque<(Digest, Vec<f32>)>,
}

impl Worker {
    fn run(mut self, mut inbox: Inbox<Event>) {
        if let Err(error) = self.work(&mut inbox) {
            inbox.failure().set(&error);
        }
    }

    fn work(&mut self, inbox: &mut Inbox<Event>) -> Result<(), ClipError> {
        while !inbox.is_abandoned() {
            while let Some(event) = if self.should_wait() { inbox.wait() } else { inbox.try_next() } {
                self.accept(event, inbox);
            }
            self.embed_texts()?;
            self.embed_images()?;
        }
        Ok(())
    }

    /// Whether running the model now would be wasteful: nothing is ready, or the batch is not full and rayon is preparing
    /// images for it, each of which ends in an event.
    fn should_wait(&self) -> bool {
        let more_to_come = self.preparing.len() > self.prepared.len();
        self.texts.is_empty() && (self.prepared.is_empty() || (more_to_come && self.prepared.len() < ROWS))
    }

    fn accept(&mut self, event: Event, inbox: &Inbox<Event>) {
        match event {
            Event::Text(text, reply) => match self.cached_texts.get(&text) {
                Some(embedding) => reply.send(Ok(embedding)),
                None => self.texts.push_back((text, reply)),
            },
            Event::Image(digest, bytes, reply) => {
                let waiting = self.preparing.entry(digest).or_default();
                waiting.push(reply);
                if waiting.len() > 1 {
                    return;
                }
                let (preprocess, limits, events) = (Arc::clone(&self.preprocess), self.limits, inbox.sender());
                spawn(
                    move || preprocess.apply(&decode(&bytes, &limits)?),
                    move |prepared| events.send(Event::Prepared(digest, prepared)),
                );
            }
            Event::Prepared(digest, Ok(tensor)) => self.prepared.push_back((digest, tensor)),
            Event::Prepared(digest, Err(reason)) => {
                for reply in self.preparing.remove(&digest).unwrap_or_default() {
                    reply.send(Err(EmbedError::Image(reason.clone())));
                }
            }
        }
    }

    /// Embeds one batch of the waiting texts, each distinct one once.
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
            self.cached_texts.put(text, embedding.into());
        }
        for (text, reply) in std::mem::take(&mut self.texts) {
            match self.cached_texts.get(&text) {
                Some(embedding) => reply.send(Ok(embedding)),
                None => self.texts.push_back((text, reply)),
            }
        }
        Ok(())
    }

    /// Embeds one batch of the prepared images.
    fn embed_images(&mut self) -> Result<(), ClipError> {
        let mut batch = Vec::with_capacity(ROWS);
        while batch.len() < ROWS
            && let Some((digest, tensor)) = self.prepared.pop_front()
        {
            if self.preparing.get(&digest).is_some_and(|waiting| waiting.iter().any(Reply::is_wanted)) {
                batch.push((digest, tensor));
            } else {
                self.preparing.remove(&digest);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let tensors: Vec<&[f32]> = batch.iter().map(|(_, tensor)| tensor.as_slice()).collect();
        let embeddings = self.clip.embed_tensors(&tensors)?;
        self.counters.images.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for ((digest, _), embedding) in batch.into_iter().zip(embeddings) {
            let response: Response = if embedding.iter().all(|value| value.is_finite()) {
                Ok(embedding.into())
            } else {
                Err(EmbedError::Image("the embedding has values that are not finite".to_owned()))
            };
            for reply in self.preparing.remove(&digest).unwrap_or_default() {
                reply.send(response.clone());
            }
        }
        Ok(())
    }
}
