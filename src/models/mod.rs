//! The models of a pipeline: known by the digests of their files, loaded when one is first asked for.

pub(crate) mod classifier;
pub(crate) mod clip;
mod describe;
pub(crate) mod diffusion;
pub(crate) mod hub;
pub(crate) mod onnx;
pub(crate) mod tokenizer;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use tokio::sync::OnceCell;

use crate::{
    config::{Config, Spectrum},
    error::{self, Error, Result},
    identity::Digest,
    imaging::Fit,
    models::classifier::{Classifier, ClassifierFiles},
    models::clip::{ClipEngine, ClipFiles, ClipSettings, ClipStats},
    models::diffusion::{
        DiffusionFiles, Engine, NoiseSource, Scheduler, SchedulerName, Settings, Stats, rows_per_sample, timesteps_run,
    },
    models::onnx::{Chosen, CudaOptions, Device, Runtime},
};

pub use describe::{Description, Graph, Kind, describe};
pub use hub::Notes;

/// How models run here; never what they are asked for. On one machine, provider, number of threads and batch
/// size, what they make is the same to the bit.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The device.
    pub device: Device,
    /// The ONNX Runtime library; where there is none, it is looked for, and fetched once.
    pub library: Option<PathBuf>,
    /// Samples in a batch of the diffusion model; the engine's default where there is none.
    pub batch_size: Option<usize>,
    /// Cores that a model may use on the CPU; all where there is none. A small UNet is loaded once for each.
    pub threads: Option<usize>,
}

/// The diffusion model, the CLIP and the classifiers of a pipeline.
#[derive(Debug)]
pub struct Models {
    machine: Machine,
    settings: Settings,
    scheduler: SchedulerName,
    schedule: Box<dyn Scheduler>,
    diffusion_files: DiffusionFiles,
    clip_files: ClipFiles,
    generator_digest: String,
    clip_digest: String,
    diffusion: OnceCell<Engine>,
    clip: OnceCell<ClipEngine>,
    classifiers: BTreeMap<String, (ClassifierFiles, OnceCell<Classifier>)>,
    classifiers_digest: String,
}

impl Models {
    /// Looks at the models of `config`, after those that lie elsewhere are fetched; no weights are loaded. `notes` says
    /// what takes long.
    ///
    /// # Errors
    /// Every problem of all models.
    pub async fn inspect(config: &Config, machine: Machine, notes: &Notes) -> Result<Self, Vec<Error>> {
        let diffusion = directory("models.diffusion", &config.models.diffusion, notes).await;
        let diffusion = diffusion.and_then(|dir| inspect_diffusion(config, &machine, &dir));
        let clip = directory("models.clip", &config.models.clip, notes).await;
        let clip = clip.and_then(|dir| inspect_clip(config, &dir));
        let classifiers = inspect_classifiers(config, notes).await;
        let (diffusion, (clip_files, clip_digest), (classifiers, classifiers_digest)) =
            match (diffusion, clip, classifiers) {
                (Ok(diffusion), Ok(clip), Ok(classifiers)) => (diffusion, clip, classifiers),
                (diffusion, clip, classifiers) => {
                    let errors = [diffusion.err(), clip.err(), classifiers.err()];
                    return Err(errors.into_iter().flatten().flatten().collect());
                }
            };
        let Inspected { diffusion_files, settings, scheduler, schedule, generator_digest } = diffusion;
        Ok(Self {
            machine,
            settings,
            scheduler,
            schedule,
            diffusion_files,
            clip_files,
            generator_digest,
            clip_digest,
            diffusion: OnceCell::new(),
            clip: OnceCell::new(),
            classifiers,
            classifiers_digest,
        })
    }

    /// Names all that makes an image but its prompt, guidance and noise: files and settings.
    pub fn generator_digest(&self) -> &str {
        &self.generator_digest
    }

    /// Names the CLIP's files.
    pub fn clip_digest(&self) -> &str {
        &self.clip_digest
    }

    /// Names the classifiers and their files.
    pub fn classifiers_digest(&self) -> &str {
        &self.classifiers_digest
    }

    /// The scheduler that denoises.
    pub fn scheduler(&self) -> String {
        self.scheduler.to_string()
    }

    /// Evaluations of the UNet for one image of a level of image guidance, 0 to 100.
    pub fn unet_evaluations(&self, image_guidance: i64) -> i64 {
        let level = u8::try_from(image_guidance.clamp(0, 100)).unwrap_or(100);
        let run = timesteps_run(self.settings.timesteps.get(), level);
        let calls = if run == 0 { 0 } else { self.schedule.calls(run as usize).len() };
        calls as i64 * i64::from(rows_per_sample(self.settings.guidance_scale))
    }

    /// What the models run on, once one is loaded.
    pub fn provider(&self) -> Option<String> {
        let chosen = self.diffusion.get().map(Engine::chosen).or(self.clip.get().map(ClipEngine::chosen));
        chosen.map(Chosen::to_string)
    }

    /// What the diffusion engine has done so far, where it was needed.
    pub fn stats(&self) -> Option<Stats> {
        self.diffusion.get().map(Engine::stats)
    }

    /// Settles what the models will run on, in words. Loads the runtime and no model.
    ///
    /// # Errors
    /// Where ONNX Runtime, or a GPU that was asked for by name, cannot be used.
    pub fn choose_device(&self) -> Result<String> {
        let runtime = Runtime::open(self.machine.library.as_deref()).map_err(failed)?;
        let chosen = self.machine.device.choose(&runtime).map_err(failed)?;
        Ok(format!("{chosen} ({})", chosen.why))
    }

    /// What the CLIP engine has done so far, where it was needed.
    pub fn clip_stats(&self) -> Option<ClipStats> {
        self.clip.get().map(ClipEngine::stats)
    }

    /// The diffusion engine of the device.
    ///
    /// # Errors
    /// Where ONNX Runtime, the device or the model cannot be used.
    pub async fn diffusion(&self) -> Result<&Engine> {
        let start = || {
            let runtime = Runtime::open(self.machine.library.as_deref()).map_err(failed)?;
            Engine::start(&runtime, &self.diffusion_files, self.settings.clone(), &self.machine.device).map_err(failed)
        };
        self.diffusion.get_or_try_init(|| async { tokio::task::block_in_place(start) }).await
    }

    /// The CLIP engine of the device.
    ///
    /// # Errors
    /// As [`Models::diffusion`].
    pub async fn clip(&self) -> Result<&ClipEngine> {
        let start = || {
            let runtime = Runtime::open(self.machine.library.as_deref()).map_err(failed)?;
            let mut settings = ClipSettings::default();
            settings.threads = self.machine.threads.unwrap_or(settings.threads);
            settings.cuda = self.settings.cuda;
            ClipEngine::start(&runtime, &self.clip_files, settings, &self.machine.device).map_err(failed)
        };
        self.clip.get_or_try_init(|| async { tokio::task::block_in_place(start) }).await
    }

    /// The classifier `name`.
    ///
    /// # Errors
    /// A name that is not in `[models.classifiers]`, or as [`Models::diffusion`].
    pub(crate) async fn classifier(&self, name: &str) -> Result<&Classifier> {
        let Some((files, classifier)) = self.classifiers.get(name) else {
            let known: Vec<String> = self.classifiers.keys().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::Data(format!("no classifier `{name}`; `[models.classifiers]` has {known}")));
        };
        let start = || {
            let runtime = Runtime::open(self.machine.library.as_deref()).map_err(failed)?;
            let (device, threads) = (&self.machine.device, self.machine.threads);
            Classifier::load(&runtime, files, device, self.settings.cuda, threads).map_err(failed)
        };
        classifier.get_or_try_init(|| async { tokio::task::block_in_place(start) }).await
    }
}

/// The classifiers by name, and a digest of all of them.
type Classifiers = (BTreeMap<String, (ClassifierFiles, OnceCell<Classifier>)>, String);

async fn inspect_classifiers(config: &Config, notes: &Notes) -> Result<Classifiers, Vec<Error>> {
    let (mut found, mut errors, mut digest) = (BTreeMap::new(), Vec::new(), Digest::new("classifiers"));
    for (name, location) in &config.models.classifiers {
        let key = format!("models.classifiers.{name}");
        let inspected = directory(&key, location, notes).await.and_then(|dir| {
            let files = ClassifierFiles::inspect(&dir).map_err(|problems| failed_at(&key, problems))?;
            let digest = files.digest().map_err(|error| failed_at(&key, [error]))?;
            Ok((files, digest))
        });
        match inspected {
            Ok((files, theirs)) => {
                digest = digest.text(name).text(&theirs);
                found.insert(name.clone(), (files, OnceCell::new()));
            }
            Err(problems) => errors.extend(problems),
        }
    }
    if errors.is_empty() { Ok((found, digest.id())) } else { Err(errors) }
}

/// The directory of the model that `key` names.
async fn directory(key: &str, location: &str, notes: &Notes) -> Result<PathBuf, Vec<Error>> {
    hub::directory(location, notes).await.map_err(|error| failed_at(key, [error]))
}

/// What the directory of the diffusion model and the settings say.
struct Inspected {
    diffusion_files: DiffusionFiles,
    settings: Settings,
    scheduler: SchedulerName,
    schedule: Box<dyn Scheduler>,
    generator_digest: String,
}

fn inspect_diffusion(config: &Config, machine: &Machine, dir: &Path) -> Result<Inspected, Vec<Error>> {
    let files = DiffusionFiles::inspect(dir).map_err(|problems| failed_at("models.diffusion", problems))?;
    prepare_diffusion(config, machine, files).map_err(|error| vec![error])
}

fn prepare_diffusion(config: &Config, machine: &Machine, files: DiffusionFiles) -> Result<Inspected> {
    let spectrum = &config.spectrum;
    let cuda = CudaOptions {
        memory_limit: config.cuda.memory_limit_mib.and_then(|mib| usize::try_from(mib << 20).ok()),
        tf32: config.cuda.tf32,
    };
    let settings = Settings { cuda, ..settings(spectrum, machine)? };
    // a schedule that cannot be cut into these timesteps is found here, and not in the middle of a run
    let schedule = files.scheduler(settings.scheduler, settings.timesteps.get()).map_err(failed)?;
    let scheduler = match settings.scheduler {
        Some(scheduler) => scheduler,
        None => files.scheduler_name().map_err(failed)?,
    };
    let generator_digest = Digest::new("generator")
        .text(&files.digest().map_err(failed)?)
        .text(&scheduler.to_string())
        .part(&settings.timesteps.get().to_le_bytes())
        .part(&settings.guidance_scale.to_le_bytes())
        .part(&[u8::from(settings.pure_noise_at_zero), u8::from(settings.negative_prompt.is_some())])
        .text(settings.negative_prompt.as_deref().unwrap_or_default())
        .text(&spectrum.noise)
        .text(&settings.size.map_or_else(String::new, |size| format!("{size:?}")))
        .id();
    Ok(Inspected { diffusion_files: files, settings, scheduler, schedule, generator_digest })
}

fn inspect_clip(config: &Config, dir: &Path) -> Result<(ClipFiles, String), Vec<Error>> {
    let whole_frame = config.filter.frame == "whole";
    let files = ClipFiles::inspect(dir, whole_frame).map_err(|problems| failed_at("models.clip", problems))?;
    let digest = files.digest().map_err(|error| failed_at("models.clip", [error]))?;
    Ok((files, Digest::new("clip").text(&digest).part(&[u8::from(whole_frame)]).id()))
}

fn settings(spectrum: &Spectrum, machine: &Machine) -> Result<Settings> {
    let defaults = Settings::default();
    let timesteps = u32::try_from(spectrum.timesteps).ok().and_then(NonZeroU32::new);
    Ok(Settings {
        scheduler: spectrum.scheduler.as_deref().map(str::parse).transpose().map_err(failed)?,
        timesteps: timesteps.unwrap_or(defaults.timesteps),
        guidance_scale: spectrum.guidance_scale,
        negative_prompt: spectrum.negative_prompt.clone(),
        noise: if spectrum.noise == "torch" { NoiseSource::Torch } else { NoiseSource::Counter },
        pure_noise_at_zero: spectrum.pure_noise_at_zero,
        size: spectrum.size.and_then(|(width, height)| {
            let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
            Some(Fit { width, height, keep_aspect: spectrum.keep_aspect })
        }),
        batch_size: machine.batch_size.unwrap_or(defaults.batch_size),
        threads: machine.threads.unwrap_or(defaults.threads),
        ..defaults
    })
}

/// The problems of a model, each with the key that names it.
fn failed_at<E: std::error::Error>(key: &str, problems: impl IntoIterator<Item = E>) -> Vec<Error> {
    problems.into_iter().map(|problem| Error::Model(format!("`{key}`: {}", error::chain(&problem)))).collect()
}

/// A failure of a model as a whole: the run ends.
pub fn failed(error: impl std::error::Error) -> Error {
    Error::Model(error::chain(&error))
}
