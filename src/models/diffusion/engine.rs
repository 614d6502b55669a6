//! The engine of a device: loads the models, starts the threads, and is the handle that callers share.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{
    DiffusionError, EngineError,
    batch::Guidance,
    batch_size::BatchUse,
    decode_stage::DecodeStage,
    decoder::Decoder,
    denoiser::Denoiser,
    encode_stage::{EncodeStage, Event, PendingRequest},
    encoders::Encoders,
    files::DiffusionFiles,
    layout::Layout,
    noise::Normals,
    queue::AdmissionQueue,
    request::{EncodedRequest, Generated, Request},
    settings::{Settings, rows_per_sample},
    stats::{Counters, Stats},
    worker::{Shared, Worker},
};
use crate::{
    config::timesteps_run,
    imaging::{Limits, decode, encode_png, spawn},
    models::onnx::{Chosen, Inbox, Loader, OnnxError, Provider, Runtime, Service},
};

/// A running engine. Clones share it. Dropping the last clone ends its threads, after the model call in progress.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    service: Arc<Service<Event>>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    chosen: Chosen,
    pixels_per_latent: u32,
}

impl Engine {
    /// Loads the models and starts the engine's threads. The time this takes grows with the size of the model files.
    ///
    /// # Errors
    /// Returns an error if the runtime rejects a graph, or the scheduler cannot be built.
    pub(crate) fn start(
        runtime: &Runtime,
        files: &DiffusionFiles,
        settings: Settings,
        chosen: Chosen,
    ) -> Result<Self, DiffusionError> {
        let layout = Layout::of(&chosen, files, &settings);
        let counters = Arc::new(Counters::default());
        let scheduler = files.scheduler(settings.scheduler, settings.timesteps.get())?;
        let (mut encoders, devices) = load(runtime, files, &layout, &settings, &counters)?;
        let shared = Arc::new(Shared {
            queue: Arc::new(AdmissionQueue::new()),
            scheduler,
            guidance: guidance(&mut encoders, &settings)?,
            pure_noise_at_zero: settings.pure_noise_at_zero,
            batch_sizes: layout.batch_sizes(files, &settings),
        });
        let (mut workers, mut decode) = (Vec::new(), Vec::new());
        for DeviceModels { provider, denoisers, decoders } in devices {
            let (stages, finished) = DecodeStage::of(decoders);
            let worker = |denoiser| Worker::new(denoiser, provider, Arc::clone(&shared), finished.clone());
            workers.extend(denoisers.into_iter().map(worker));
            decode.extend(stages);
        }
        let encode = EncodeStage::new(encoders, &settings, Arc::clone(&shared.queue));
        let stages = Stages { encode, workers, decode };
        let (queue, in_flight) = (Arc::clone(&shared.queue), layout.images_in_flight(files, &settings));
        let service = Service::start("diffusion", in_flight, move |inbox| stages.run(inbox, &queue))?;
        let (service, settings) = (Arc::new(service), Arc::new(settings));
        let pixels_per_latent = files.sides().pixels_per_latent;
        Ok(Self { service, shared, counters, settings, chosen, pixels_per_latent })
    }

    /// Returns what the models run on.
    pub(crate) fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Generates an image. Equal requests give equal bytes, whatever else the engine does at the same time.
    ///
    /// If the level of image guidance leaves no timestep to run, the source passes through: its pixels become a PNG and
    /// no model runs. Dropping the future cancels the request.
    ///
    /// # Errors
    /// Returns [`EngineError::Image`] if the source cannot be opened, or if the result has values that
    /// are not finite; [`EngineError::Stopped`] if a model failed.
    pub(crate) async fn img2img(&self, request: Request) -> Result<Generated, EngineError> {
        let run = timesteps_run(self.settings.timesteps.get(), request.image_guidance);
        if run == 0 {
            return pass_through(request.image, self.settings.limits).await;
        }
        let normals = self.settings.noise.start(request.seed);
        self.submit(request, run, normals).await
    }

    /// Generates an image like [`Engine::img2img`], with the caller's random numbers. Tests pass those of another
    /// implementation.
    pub(super) async fn submit(
        &self,
        request: Request,
        run: u32,
        normals: Box<dyn Normals>,
    ) -> Result<Generated, EngineError> {
        let digest: [u8; 32] = Sha256::digest(&request.image).into();
        let event = |reply| {
            let reservation = self.shared.queue.reserve();
            Event::Request(PendingRequest { request, run, normals, digest, reservation, reply })
        };
        let png = self.service.call(event).await.map_err(EngineError::Stopped)??;
        let calls = self.shared.scheduler.calls(run as usize).len();
        let unet_evaluations = calls as u64 * u64::from(rows_per_sample(self.settings.guidance_scale));
        Ok(Generated { png, timesteps: run, unet_evaluations })
    }

    /// Returns what the engine has done so far.
    pub(crate) fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Returns the batch sizes so far.
    pub(crate) fn batches(&self) -> Vec<BatchUse> {
        self.shared.batch_sizes.used(self.pixels_per_latent)
    }
}

/// Loads all graphs in parallel: while they load, for seconds or minutes, a GPU is idle.
fn load(
    runtime: &Runtime,
    files: &DiffusionFiles,
    layout: &Layout,
    settings: &Settings,
    counters: &Arc<Counters>,
) -> Result<(Encoders, Vec<DeviceModels>), DiffusionError> {
    let loader = Loader {
        runtime,
        provider: layout.first(),
        cuda: settings.cuda,
        threads: settings.threads,
        busy: &counters.busy,
    };
    thread::scope(|scope| {
        let loading: Vec<_> = layout
            .providers
            .iter()
            .map(|&provider| {
                let loader = Loader { provider, threads: layout.threads, ..loader };
                let denoiser = move || Denoiser::load(&loader, files, Arc::clone(counters));
                let denoisers: Vec<_> = (0..layout.copies).map(|_| scope.spawn(denoiser)).collect();
                let decoder = move || Decoder::load(&loader, files, Arc::clone(counters));
                let decoders: Vec<_> = (0..layout.decoders).map(|_| scope.spawn(decoder)).collect();
                (provider, denoisers, decoders)
            })
            .collect();
        let encoders = Encoders::load(&loader, files)?;
        let mut devices = Vec::new();
        for (provider, denoisers, decoders) in loading {
            let (denoisers, decoders) = (loaded(denoisers)?, loaded(decoders)?);
            devices.push(DeviceModels { provider, denoisers, decoders });
        }
        Ok((encoders, devices))
    })
}

/// Waits for graphs that load in parallel.
fn loaded<T>(loading: Vec<thread::ScopedJoinHandle<'_, Result<T, DiffusionError>>>) -> Result<Vec<T>, DiffusionError> {
    loading.into_iter().map(|loading| loading.join().map_err(|_| DiffusionError::Panic)?).collect()
}

/// The models of one device.
struct DeviceModels {
    provider: Provider,
    denoisers: Vec<Denoiser>,
    decoders: Vec<Decoder>,
}

/// Encodes the negative prompt, if classifier-free guidance is on.
fn guidance(encoders: &mut Encoders, settings: &Settings) -> Result<Option<Guidance>, DiffusionError> {
    if rows_per_sample(settings.guidance_scale) == 1 {
        return Ok(None);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the models compute in f32")]
    let scale = settings.guidance_scale as f32;
    Ok(Some(Guidance { scale, negative: encoders.encode_negative(settings.negative_prompt.as_deref())? }))
}

/// What the threads of an engine run.
struct Stages {
    encode: EncodeStage,
    workers: Vec<Worker>,
    decode: Vec<DecodeStage>,
}

impl Stages {
    /// Runs the encode stage on this thread, and each worker and each decode stage on its own. All end when the last handle
    /// to the engine is dropped or when one of them fails; then every caller gets the reason.
    fn run(mut self, mut inbox: Inbox<Event>, queue: &AdmissionQueue<EncodedRequest>) {
        thread::scope(|scope| {
            let start = |mut work: Box<dyn FnMut() -> Result<(), OnnxError> + Send>| {
                let (failure, events) = (inbox.failure(), inbox.sender());
                scope.spawn(move || {
                    if let Err(error) = caught(|| Ok(work()?)) {
                        failure.set(&error);
                        events.send(Event::StageFailed);
                    }
                });
            };
            for mut worker in self.workers {
                start(Box::new(move || worker.run()));
            }
            for mut stage in self.decode {
                start(Box::new(move || stage.run()));
            }
            // Even after a panic the queue is closed: the workers would wait for it forever.
            if let Err(error) = caught(|| self.encode.run(&mut inbox)) {
                inbox.failure().set(&error);
            }
            queue.close();
        });
    }
}

/// Runs the work of a thread and makes a panic its error.
fn caught(work: impl FnOnce() -> Result<(), DiffusionError>) -> Result<(), DiffusionError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DiffusionError::Panic))
}

async fn pass_through(image: Arc<[u8]>, limits: Limits) -> Result<Generated, EngineError> {
    let (sender, receiver) = oneshot::channel();
    spawn(
        move || decode(&image, &limits).and_then(|image| encode_png(&image)),
        // The caller may have gone away.
        |png| drop(sender.send(png)),
    );
    let png = receiver.await.map_err(|_| EngineError::Stopped("an image was dropped".to_owned()))?;
    let png = png.map_err(EngineError::Image)?;
    Ok(Generated { png, timesteps: 0, unet_evaluations: 0 })
}
