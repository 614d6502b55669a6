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
    denoiser::Denoiser,
    encode_stage::{EncodeStage, Event, PendingRequest},
    encoders::Encoders,
    files::DiffusionFiles,
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
    models::onnx::{Chosen, Device, Inbox, Loader, Provider, Runtime, Service},
};

/// A running engine. Clones share it. Dropping the last clone ends its threads, after the model call in progress.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    service: Arc<Service<Event>>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    chosen: Chosen,
}

impl Engine {
    /// Loads the models and starts the engine's threads. The time this takes grows with the size of the model files.
    ///
    /// # Errors
    /// Returns an error if the device is missing, the runtime rejects a graph, or the scheduler cannot be built.
    pub(crate) fn start(
        runtime: &Runtime,
        files: &DiffusionFiles,
        settings: Settings,
        device: &Device,
    ) -> Result<Self, DiffusionError> {
        let chosen = device.choose(runtime)?;
        let counters = Arc::new(Counters::default());
        let scheduler = files.scheduler(settings.scheduler, settings.timesteps.get())?;
        let (mut encoders, denoisers) = load(runtime, files, &chosen, &settings, &counters)?;
        let guidance = guidance(&mut encoders, &settings)?;
        let queue = Arc::new(AdmissionQueue::new());
        let batch_size = settings.batch_size.max(1);
        let pure_noise_at_zero = settings.pure_noise_at_zero;
        let shared = Arc::new(Shared { queue, scheduler, guidance, pure_noise_at_zero, batch_size });
        let workers = denoisers.into_iter().map(|denoiser| Worker::new(denoiser, Arc::clone(&shared))).collect();
        let encode_stage = EncodeStage::new(encoders, &settings, Arc::clone(&shared.queue));
        let queue = Arc::clone(&shared.queue);
        let service =
            Service::start("diffusion", settings.queue, move |inbox| run(encode_stage, workers, inbox, &queue))?;
        Ok(Self { service: Arc::new(service), shared, counters, settings: Arc::new(settings), chosen })
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
}

/// UNets up to this size are loaded once per core. Measured with a UNet of 3.6 MB on two cores: two calls in parallel
/// generate twice the images of one core; two cores within one call generate 1.3 times as many.
const SMALL_UNET_BYTES: u64 = 64 << 20;

/// Returns how many copies of the UNet to load, and how many cores each of them may use.
fn share_cores(threads: usize, provider: Provider, unet_bytes: u64) -> (usize, usize) {
    let threads = threads.max(1);
    if provider == Provider::Cpu && unet_bytes <= SMALL_UNET_BYTES { (threads, 1) } else { (1, threads) }
}

/// Loads all graphs in parallel: while they load, for seconds or minutes, a GPU is idle.
fn load(
    runtime: &Runtime,
    files: &DiffusionFiles,
    chosen: &Chosen,
    settings: &Settings,
    counters: &Arc<Counters>,
) -> Result<(Encoders, Vec<Denoiser>), DiffusionError> {
    let (provider, threads) = (chosen.provider, settings.threads);
    let (copies, threads_of_each) = share_cores(threads, provider, files.unet_bytes());
    let loader = Loader { runtime, provider, cuda: settings.cuda, threads, busy: &counters.busy };
    let of_each = Loader { threads: threads_of_each, ..loader };
    let providers = std::iter::repeat_n(provider, copies).chain(chosen.others.iter().copied());
    thread::scope(|scope| {
        let denoiser = |provider| Denoiser::load(&Loader { provider, ..of_each }, files, Arc::clone(counters));
        let loading: Vec<_> = providers.map(|provider| scope.spawn(move || denoiser(provider))).collect();
        let encoders = Encoders::load(&loader, files)?;
        let denoisers = loading.into_iter().map(|loading| loading.join().map_err(|_| DiffusionError::Panic)?);
        Ok((encoders, denoisers.collect::<Result<_, _>>()?))
    })
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

/// Runs the encode stage on this thread and each worker on its own. All end when the last handle to the engine is
/// dropped or when one of them fails; then every caller gets the reason.
fn run(
    mut encode_stage: EncodeStage,
    workers: Vec<Worker>,
    mut inbox: Inbox<Event>,
    queue: &AdmissionQueue<EncodedRequest>,
) {
    thread::scope(|scope| {
        for mut worker in workers {
            let (failure, events) = (inbox.failure(), inbox.sender());
            scope.spawn(move || {
                if let Err(error) = caught(|| Ok(worker.run()?)) {
                    failure.set(&error);
                    events.send(Event::WorkerFailed);
                }
            });
        }
        // Even after a panic the queue is closed: the workers would wait for it forever.
        if let Err(error) = caught(|| encode_stage.run(&mut inbox)) {
            inbox.failure().set(&error);
        }
        queue.close();
    });
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
