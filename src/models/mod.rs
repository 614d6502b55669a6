//! The models of a pipeline. A model is identified by the digest of its files, and loaded when it is first used.

mod bench;
mod cache_dir;
pub(crate) mod classifier;
pub(crate) mod clip;
mod describe;
pub(crate) mod diffusion;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod hub;
mod inspect;
mod model_dir;
pub(crate) mod onnx;
mod preprocess;
mod rates;
mod tokenizer;

use std::{collections::BTreeMap, path::PathBuf, sync::OnceLock};

use tokio::sync::OnceCell;

use self::{
    classifier::{Classifier, ClassifierFiles},
    clip::{ClipEngine, ClipFiles, ClipSettings, ClipStats},
    diffusion::{
        BatchUse, DiffusionFiles, Engine, Layout, Scheduler, SchedulerName, Settings, Sides, Stats, rows_per_sample,
    },
    error::ModelError,
    onnx::{Chosen, CudaOptions, Device, OnnxError, Provider, Runtime},
};
use crate::{
    config::{Config, timesteps_run},
    error::{Error, Result, Warning},
};

pub(crate) use bench::bench;
pub(crate) use describe::{Description, Graph, Kind, describe};
pub(crate) use hub::FetchProgress;
pub(crate) use rates::Rates;
pub(crate) use tokenizer::Tokenizer;

/// How models run on this machine. Not part of a fingerprint: with the same provider, number of threads and batch size,
/// results on one machine are bit-identical.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelOptions {
    /// The requested device.
    pub device: Device,
    /// The ONNX Runtime library; if absent, it is searched for, and fetched once if it is not found.
    pub library: Option<PathBuf>,
    /// Samples in a batch of the diffusion model; if absent, the engine's default.
    pub batch_size: Option<usize>,
    /// Cores that a model may use on the CPU; if absent, all. A small UNet is loaded once per core.
    pub threads: Option<usize>,
}

/// The diffusion model, the CLIP and the classifiers of a pipeline.
#[derive(Debug)]
pub(crate) struct Models {
    options: ModelOptions,
    chosen: OnceLock<Chosen>,
    settings: Settings,
    /// Options of the CLIP and of the classifiers on a GPU.
    exact: CudaOptions,
    scheduler: SchedulerName,
    schedule: Box<dyn Scheduler>,
    generator_digest: String,
    clip_digest: String,
    classifiers_digest: String,
    diffusion: Lazy<DiffusionFiles, Engine>,
    clip: Lazy<ClipFiles, ClipEngine>,
    classifiers: BTreeMap<String, Lazy<ClassifierFiles, Classifier>>,
}

impl Models {
    /// Reads the models of `config`, but not their weights. Fetches those that are not local first, and reports that to
    /// `progress`.
    ///
    /// # Errors
    /// Returns every problem of every model.
    pub(crate) async fn inspect(
        config: &Config,
        options: ModelOptions,
        progress: &FetchProgress,
    ) -> Result<Self, Vec<Error>> {
        let inspected = inspect::inspect(config, &options, progress).await;
        let inspect::Inspected { diffusion, clip, classifiers, exact } =
            inspected.map_err(|problems| problems.into_iter().map(Error::from).collect::<Vec<_>>())?;
        Ok(Self {
            options,
            chosen: OnceLock::new(),
            settings: diffusion.settings,
            exact,
            scheduler: diffusion.scheduler,
            schedule: diffusion.schedule,
            generator_digest: diffusion.digest,
            clip_digest: clip.digest,
            classifiers_digest: classifiers.digest,
            diffusion: Lazy::new(diffusion.files),
            clip: Lazy::new(clip.files),
            classifiers: classifiers.files.into_iter().map(|(name, files)| (name, Lazy::new(files))).collect(),
        })
    }

    /// Returns the digest of everything that determines an image except its prompt, guidance and noise.
    pub(crate) fn generator_digest(&self) -> &str {
        &self.generator_digest
    }

    /// Returns the digest of everything that determines an embedding: the CLIP's files and the frame that it sees.
    pub(crate) fn clip_digest(&self) -> &str {
        &self.clip_digest
    }

    /// Returns the digest of the names and files of the classifiers.
    pub(crate) fn classifiers_digest(&self) -> &str {
        &self.classifiers_digest
    }

    /// Returns the name of the scheduler.
    pub(crate) fn scheduler(&self) -> String {
        self.scheduler.to_string()
    }

    /// Returns how often the UNet is evaluated for one image at a level of image guidance, 0 to 100.
    pub(crate) fn unet_evaluations(&self, image_guidance: i64) -> i64 {
        let level = u8::try_from(image_guidance.clamp(0, 100)).unwrap_or(100);
        let run = timesteps_run(self.settings.timesteps.get(), level);
        let calls = if run == 0 { 0 } else { self.schedule.calls(run as usize).len() };
        calls as i64 * i64::from(rows_per_sample(self.settings.guidance_scale))
    }

    /// Returns the sides of images that the diffusion model takes.
    pub(crate) fn sides(&self) -> Sides {
        self.diffusion.files.sides()
    }

    /// Returns the side of the images that the diffusion model was trained with, in pixels, if its files say so.
    pub(crate) fn trained_side(&self) -> Option<u32> {
        self.diffusion.files.trained_side()
    }

    /// Returns the sides of the synthetic images of an image of `width` x `height`.
    pub(crate) fn resized(&self, width: u32, height: u32) -> (u32, u32) {
        let (width, height) = self.settings.size.map_or((width, height), |size| size.sides(width, height));
        (self.sides().of(width), self.sides().of(height))
    }

    /// Reads the tokenizers of the diffusion model, one for each of its text encoders.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(crate) fn diffusion_tokenizers(&self) -> Result<Vec<Tokenizer>> {
        self.diffusion.files.tokenizers().map_err(failed)
    }

    /// Reads the tokenizer of the CLIP.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(crate) fn clip_tokenizer(&self) -> Result<Tokenizer> {
        self.clip.files.tokenizer().map_err(failed)
    }

    /// Returns what the models run on, once one is loaded.
    pub(crate) fn provider(&self) -> Option<String> {
        let chosen = self.diffusion.loaded().map(Engine::chosen).or(self.clip.loaded().map(ClipEngine::chosen));
        chosen.map(Chosen::to_string)
    }

    /// Returns what the diffusion engine has done so far, if it is loaded.
    pub(crate) fn stats(&self) -> Option<Stats> {
        self.diffusion.loaded().map(Engine::stats)
    }

    /// Returns what the CLIP engine has done so far, if it is loaded.
    pub(crate) fn clip_stats(&self) -> Option<ClipStats> {
        self.clip.loaded().map(ClipEngine::stats)
    }

    /// Chooses the device, and describes it and the batch of the diffusion model. Loads ONNX Runtime but no model.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime, or a GPU that was requested by name, cannot be used, or if a limit on its memory
    /// is below the weights of the models.
    pub(crate) fn choose_device(&self) -> Result<String> {
        let chosen = self.chosen().map_err(failed)?;
        if let (Provider::Cuda(_), Some(memory)) = (chosen.provider, &self.exact.memory) {
            memory.check().map_err(failed)?;
        }
        let batch =
            Layout::of(chosen, &self.diffusion.files, &self.settings).describe(&self.diffusion.files, &self.settings);
        Ok(format!("{chosen} ({}), {batch}", chosen.why))
    }

    /// Returns how many images the diffusion model takes at once, in its batches and waiting for them; `None` if the device
    /// was not chosen yet.
    pub(crate) fn images_in_flight(&self) -> Option<usize> {
        let layout = Layout::of(self.chosen.get()?, &self.diffusion.files, &self.settings);
        Some(layout.images_in_flight(&self.diffusion.files, &self.settings))
    }

    /// Returns the batches of the diffusion engine so far, if it is loaded.
    pub(crate) fn batches(&self) -> Vec<BatchUse> {
        self.diffusion.loaded().map(Engine::batches).unwrap_or_default()
    }

    /// Returns the batches of the diffusion engine so far as text, such as `16 of 512 x 512`; `None` if it is not loaded.
    pub(crate) fn describe_batches(&self) -> Option<String> {
        let batches = self.batches();
        let each = |batch: &BatchUse| format!("{} of {} x {}", batch.samples, batch.width, batch.height);
        (!batches.is_empty()).then(|| batches.iter().map(each).collect::<Vec<_>>().join(", "))
    }

    /// Returns the rates of the diffusion engine since `earlier`, if it is loaded and has generated an image since.
    pub(crate) fn rates(&self, earlier: &Stats) -> Option<Rates> {
        let engine = self.diffusion.loaded()?;
        let stats = engine.stats().since(earlier);
        let chosen = engine.chosen();
        (stats.unet_calls > 0).then(|| Rates::of(&stats, chosen.provider, 1 + chosen.others.len()))
    }

    /// Returns a warning for each batch that did not fit into the memory of its device.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let halved = |batch: BatchUse| {
            let BatchUse { width, height, samples, planned } = batch;
            (samples < planned).then(|| {
                Warning::new(
                    format!(
                        "a batch of {planned} images of {width} x {height} did not fit into the memory of {}; {samples} \
                         were generated at once",
                        self.provider().unwrap_or_default()
                    ),
                    format!(
                        "end other programs that use the device, set a smaller size in `[spectrum]`, or set `models.batch` to \
                         {samples} for all sizes"
                    ),
                )
            })
        };
        self.batches().into_iter().filter_map(halved).collect()
    }

    fn chosen(&self) -> Result<&Chosen, OnnxError> {
        if let Some(chosen) = self.chosen.get() {
            return Ok(chosen);
        }
        let chosen = self.options.device.choose(&self.runtime()?)?;
        Ok(self.chosen.get_or_init(|| chosen))
    }

    /// Returns the diffusion engine, and starts it if necessary.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime, the device or the model cannot be used.
    pub(crate) async fn diffusion(&self) -> Result<&Engine> {
        let start = |files: &DiffusionFiles| {
            Ok(Engine::start(&self.runtime()?, files, self.settings.clone(), self.chosen()?.clone())?)
        };
        self.diffusion.get(start).await
    }

    /// Returns the CLIP engine, and starts it if necessary.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime, the device or the model cannot be used.
    pub(crate) async fn clip(&self) -> Result<&ClipEngine> {
        let start = |files: &ClipFiles| {
            let mut settings = ClipSettings::default();
            settings.threads = self.options.threads.unwrap_or(settings.threads);
            settings.cuda = self.exact;
            Ok(ClipEngine::start(&self.runtime()?, files, settings, &self.options.device)?)
        };
        self.clip.get(start).await
    }

    /// Returns the classifier `name`, and loads it if necessary.
    ///
    /// # Errors
    /// Returns an error if `[models.classifiers]` does not have the name, or if ONNX Runtime, the device or the model
    /// cannot be used.
    pub(crate) async fn classifier(&self, name: &str) -> Result<&Classifier> {
        let Some(classifier) = self.classifiers.get(name) else {
            let known: Vec<String> = self.classifiers.keys().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(ModelError::UnknownClassifier { name: name.to_owned(), known }.into());
        };
        let load = |files: &ClassifierFiles| {
            let ModelOptions { device, threads, .. } = &self.options;
            Ok(Classifier::load(&self.runtime()?, files, device, self.exact, *threads)?)
        };
        classifier.get(load).await
    }

    fn runtime(&self) -> Result<Runtime, OnnxError> {
        Runtime::open(self.options.library.as_deref())
    }
}

/// A model that is loaded when it is first used.
#[derive(Debug)]
struct Lazy<F, M> {
    files: F,
    model: OnceCell<M>,
}

impl<F, M> Lazy<F, M> {
    fn new(files: F) -> Self {
        Self { files, model: OnceCell::new() }
    }

    /// Returns the model if it is loaded.
    fn loaded(&self) -> Option<&M> {
        self.model.get()
    }

    /// Returns the model, and loads it first if necessary. Concurrent callers wait for the first.
    async fn get(&self, load: impl FnOnce(&F) -> Result<M, ModelError>) -> Result<&M> {
        let load = || async { tokio::task::block_in_place(|| load(&self.files)) };
        Ok(self.model.get_or_try_init(load).await?)
    }
}

/// Converts the error of a model that failed while it ran.
pub(crate) fn failed(error: impl Into<ModelError>) -> Error {
    error.into().into()
}
