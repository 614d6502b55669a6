//! One engine per device: the handle that everyone asks.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::batch::Guidance;
use super::denoiser::Denoiser;
use super::encode_stage::{Event, Intake, Prepared, Question};
use super::encoders::{Counters, Encoders};
use super::files::DiffusionFiles;
use super::noise::{NoiseSource, Normals};
use super::queue::Line;
use super::schedulers::SchedulerName;
use super::timesteps::{rows_per_sample, timesteps_run};
use super::worker::{Shared, Worker};
use super::{DiffusionError, EngineError};
use crate::imaging::{Fit, Limits, decode, encode_png};
use crate::models::onnx::{Chosen, CudaOptions, Device, Inbox, Loader, Provider, Runtime, Service, default_threads};

/// What is the same for all images of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Another scheduler than the model's own.
    pub(crate) scheduler: Option<SchedulerName>,
    /// Timesteps of the whole schedule; a level of image guidance runs a part of them.
    pub(crate) timesteps: NonZeroU32,
    /// diffusers' factor; classifier-free guidance is on above 1.
    pub(crate) guidance_scale: f64,
    /// What images shall not show. Where there is none, diffusers encodes the empty text, or takes zeros where the
    /// pipeline says so.
    pub(crate) negative_prompt: Option<String>,
    /// Where random numbers come from.
    pub(crate) noise: NoiseSource,
    /// Starts image guidance 0 from noise alone; diffusers leaves some of the source even at strength 1.
    pub(crate) pure_noise_at_zero: bool,
    /// Samples in one UNet call. Part of what an image is to the bit, so it belongs to the machine's record.
    pub(crate) batch_size: usize,
    /// Cores that the models may use on the CPU.
    pub(crate) threads: usize,
    /// How GPUs are set up.
    pub(crate) cuda: CudaOptions,
    /// Jobs that may be waiting or running; callers past it are held back.
    pub(crate) queue: usize,
    /// The largest source image that is opened.
    pub(crate) limits: Limits,
    /// What size source images are brought to first; none leaves them as they are.
    pub(crate) size: Option<Fit>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheduler: None,
            timesteps: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
            guidance_scale: 10.0,
            negative_prompt: None,
            noise: NoiseSource::default(),
            pure_noise_at_zero: false,
            batch_size: 8,
            threads: default_threads(),
            cuda: CudaOptions::default(),
            queue: 64,
            limits: Limits::default(),
            size: None,
        }
    }
}

/// One image to make.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The source image's file: PNG, JPEG or WebP.
    pub(crate) image: Arc<[u8]>,
    /// What it shall show.
    pub(crate) prompt: Arc<str>,
    /// Percent of the source that is kept: 100 is the source itself.
    pub(crate) image_guidance: u8,
    /// Of all noise in this image.
    pub(crate) seed: i64,
}

/// An image, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generated {
    /// 8-bit RGB.
    pub(crate) png: Vec<u8>,
    /// Timesteps that were run; 0 where the source passed through.
    pub(crate) timesteps: u32,
    /// UNet rows that were computed for it.
    pub(crate) unet_evaluations: u64,
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// UNet rows that held a sample; padding is not counted.
    pub(crate) unet_evaluations: u64,
    /// Calls of the UNet.
    pub(crate) unet_calls: u64,
    /// UNet rows with padding; `unet_evaluations` of these were filled.
    pub(crate) batch_rows_offered: u64,
    /// Images made by models; those that passed through are not counted.
    pub(crate) images: u64,
    /// Time in which some model ran.
    pub(crate) busy: Duration,
}

/// A running engine. Clones share it; it ends, with its threads, when the last is dropped, and that waits for the
/// model call in progress.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    service: Arc<Service<Event>>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    chosen: Chosen,
}

impl Engine {
    /// Loads the models, which takes as long as their files are large, and starts the engine's threads.
    ///
    /// # Errors
    /// A device that is not there, a graph that the runtime refuses, a scheduler that cannot be built.
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
        let line = Arc::new(Line::new());
        let batch_size = settings.batch_size.max(1);
        let pure_noise_at_zero = settings.pure_noise_at_zero;
        let shared = Arc::new(Shared { line, scheduler, guidance, pure_noise_at_zero, batch_size });
        let workers = denoisers.into_iter().map(|denoiser| Worker::new(denoiser, Arc::clone(&shared))).collect();
        let intake = Intake::new(encoders, &settings, Arc::clone(&shared.line));
        let line = Arc::clone(&shared.line);
        let service = Service::start("diffusion", settings.queue, move |inbox| run(intake, workers, inbox, &line))
            .map_err(|source| DiffusionError::Thread { source })?;
        Ok(Self { service: Arc::new(service), shared, counters, settings: Arc::new(settings), chosen })
    }

    /// What the models run on.
    pub(crate) fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Makes an image. The same job gives the same bytes whatever else the engine does at the time.
    ///
    /// Where the image guidance leaves no timestep, the source passes through: its pixels, as PNG, without any
    /// model. Dropping the future takes the job back.
    ///
    /// # Errors
    /// [`EngineError::Row`] for a source that cannot be opened or is too small, or a result that is not a number;
    /// [`EngineError::Job`] where a model failed.
    pub(crate) async fn img2img(&self, job: Job) -> Result<Generated, EngineError> {
        let run = timesteps_run(self.settings.timesteps.get(), job.image_guidance);
        if run == 0 {
            return pass_through(job.image, self.settings.limits).await;
        }
        let normals = self.settings.noise.start(job.seed);
        self.ask(job, run, normals).await
    }

    /// As [`Engine::img2img`], with draws from outside, so that another implementation's can be given.
    pub(super) async fn ask(&self, job: Job, run: u32, normals: Box<dyn Normals>) -> Result<Generated, EngineError> {
        let digest: [u8; 32] = Sha256::digest(&job.image).into();
        let question = |reply| {
            let announced = self.shared.line.announce();
            Event::Question(Question { job, run, normals, digest, announced, reply })
        };
        let answer = self.service.ask(question).await;
        let png = answer.map_err(EngineError::Job)??;
        let calls = self.shared.scheduler.calls(run as usize).len();
        let unet_evaluations = calls as u64 * u64::from(rows_per_sample(self.settings.guidance_scale));
        Ok(Generated { png, timesteps: run, unet_evaluations })
    }

    /// What was done so far.
    pub(crate) fn stats(&self) -> Stats {
        let Counters { unet_evaluations, unet_calls, batch_rows_offered, images, busy } = &*self.counters;
        Stats {
            unet_evaluations: unet_evaluations.load(Ordering::Relaxed),
            unet_calls: unet_calls.load(Ordering::Relaxed),
            batch_rows_offered: batch_rows_offered.load(Ordering::Relaxed),
            images: images.load(Ordering::Relaxed),
            busy: busy.total(),
        }
    }
}

/// A UNet up to this size is loaded once for each core. Measured with one of 3.6 MB on two cores: two calls side by
/// side make twice the images of one core, two cores within one call 1.3 times.
const SMALL_UNET_BYTES: u64 = 64 << 20;

/// How cores are shared: UNets side by side, and cores for one operator of each.
fn share_cores(threads: usize, provider: Provider, unet_bytes: u64) -> (usize, usize) {
    let threads = threads.max(1);
    if provider == Provider::Cpu && unet_bytes <= SMALL_UNET_BYTES { (threads, 1) } else { (1, threads) }
}

/// Loads all graphs, side by side: this takes seconds, or minutes, of a GPU that waits.
fn load(
    runtime: &Runtime,
    files: &DiffusionFiles,
    chosen: &Chosen,
    settings: &Settings,
    counters: &Arc<Counters>,
) -> Result<(Encoders, Vec<Denoiser>), DiffusionError> {
    let (provider, threads) = (chosen.provider, settings.threads);
    let (side_by_side, threads_of_each) = share_cores(threads, provider, files.unet_bytes()?);
    let loader = Loader { runtime, provider, cuda: settings.cuda, threads, busy: &counters.busy };
    let of_each = Loader { threads: threads_of_each, ..loader };
    let providers = std::iter::repeat_n(provider, side_by_side).chain(chosen.others.iter().copied());
    thread::scope(|scope| {
        let denoiser = |provider| Denoiser::load(&Loader { provider, ..of_each }, files, Arc::clone(counters));
        let loading: Vec<_> = providers.map(|provider| scope.spawn(move || denoiser(provider))).collect();
        let encoders = Encoders::load(&loader, files)?;
        let denoisers = loading.into_iter().map(|loading| loading.join().map_err(|_| DiffusionError::Panic)?);
        Ok((encoders, denoisers.collect::<Result<_, _>>()?))
    })
}

/// Classifier-free guidance, where it is on.
fn guidance(encoders: &mut Encoders, settings: &Settings) -> Result<Option<Guidance>, DiffusionError> {
    if rows_per_sample(settings.guidance_scale) == 1 {
        return Ok(None);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the models compute in f32")]
    let scale = settings.guidance_scale as f32;
    Ok(Some(Guidance { scale, negative: encoders.encode_negative(settings.negative_prompt.as_deref())? }))
}

/// The engine's threads: the intake is this one, and each worker has its own. All end when nobody holds the engine
/// any more, or one fails; then every caller is told why.
fn run(mut intake: Intake, workers: Vec<Worker>, mut inbox: Inbox<Event>, line: &Line<Prepared>) {
    thread::scope(|scope| {
        for mut worker in workers {
            let (failure, events) = (inbox.failure(), inbox.sender());
            scope.spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| worker.run().map_err(DiffusionError::from)));
                if let Err(error) = ended.unwrap_or(Err(DiffusionError::Panic)) {
                    failure.set(&error);
                    events.send(Event::Failed);
                }
            });
        }
        if let Err(error) = intake.run(&mut inbox) {
            inbox.failure().set(&error);
        }
        line.close();
    });
}

async fn pass_through(image: Arc<[u8]>, limits: Limits) -> Result<Generated, EngineError> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        let png = decode(&image, &limits).and_then(|image| encode_png(&image));
        // Nobody may be waiting any more.
        let _ = sender.send(png);
    });
    let png = receiver.await.map_err(|_| EngineError::Job("an image was dropped".to_owned()))?;
    let png = png.map_err(|error| EngineError::Row(error.chain()))?;
    Ok(Generated { png, timesteps: 0, unet_evaluations: 0 })
}
