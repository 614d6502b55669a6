//! The models of a pipeline: known by the digests of their files, loaded when one is first asked for.

use std::{num::NonZeroU32, path::PathBuf};

use tokio::sync::OnceCell;

use crate::{
    clip::{ClipEngine, ClipFiles, ClipSettings, ClipStats},
    config::{Config, Spectrum},
    diffusion::{DiffusionFiles, Engine, SchedulerName, Settings, Stats},
    error::{self, Error, Result},
    identity::Digest,
    onnx::{Device, Runtime},
};

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

/// The diffusion model and the CLIP of a pipeline.
#[derive(Debug)]
pub struct Models {
    machine: Machine,
    settings: Settings,
    scheduler: SchedulerName,
    diffusion_files: DiffusionFiles,
    clip_files: ClipFiles,
    generator_digest: String,
    clip_digest: String,
    diffusion: OnceCell<Engine>,
    clip: OnceCell<ClipEngine>,
}

impl Models {
    /// Looks at the model directories of `config`; no weights are loaded.
    ///
    /// # Errors
    /// Every problem of both directories.
    pub fn inspect(config: &Config, machine: Machine) -> Result<Self, Vec<Error>> {
        let diffusion = inspect_diffusion(config, &machine);
        let clip =
            ClipFiles::inspect(&config.models.clip).and_then(|files| files.digest().map(|digest| (files, digest)));
        let ((diffusion_files, settings, scheduler, generator_digest), (clip_files, clip_digest)) =
            match (diffusion, clip.map_err(|error| failed_at("models.clip", error))) {
                (Ok(diffusion), Ok(clip)) => (diffusion, clip),
                (diffusion, clip) => return Err(diffusion.err().into_iter().chain(clip.err()).collect()),
            };
        Ok(Self {
            machine,
            settings,
            scheduler,
            diffusion_files,
            clip_files,
            generator_digest,
            clip_digest,
            diffusion: OnceCell::new(),
            clip: OnceCell::new(),
        })
    }

    /// Names all that makes a picture but its prompt, guidance and noise: files and settings.
    pub fn generator_digest(&self) -> &str {
        &self.generator_digest
    }

    /// Names the CLIP's files.
    pub fn clip_digest(&self) -> &str {
        &self.clip_digest
    }

    /// The scheduler that denoises.
    pub fn scheduler(&self) -> String {
        self.scheduler.to_string()
    }

    /// What the models run on, once one is loaded.
    pub fn provider(&self) -> Option<String> {
        let chosen = self.diffusion.get().map(Engine::chosen).or(self.clip.get().map(ClipEngine::chosen));
        chosen.map(|chosen| chosen.provider.to_string())
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
        Ok(format!("{} ({})", chosen.provider, chosen.why))
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
            Engine::start(&runtime, &self.diffusion_files, self.settings.clone(), self.machine.device).map_err(failed)
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
            ClipEngine::start(&runtime, &self.clip_files, settings, self.machine.device).map_err(failed)
        };
        self.clip.get_or_try_init(|| async { tokio::task::block_in_place(start) }).await
    }
}

type Inspected = (DiffusionFiles, Settings, SchedulerName, String);

fn inspect_diffusion(config: &Config, machine: &Machine) -> Result<Inspected> {
    let files =
        DiffusionFiles::inspect(&config.models.diffusion).map_err(|error| failed_at("models.diffusion", error))?;
    let settings = settings(&config.spectrum, machine)?;
    // a schedule that cannot be cut into these timesteps is found here, and not in the middle of a run
    files.scheduler(settings.scheduler, settings.timesteps.get()).map_err(failed)?;
    let scheduler = match settings.scheduler {
        Some(scheduler) => scheduler,
        None => files.scheduler_name().map_err(failed)?,
    };
    let digest = Digest::new("generator")
        .text(&files.digest().map_err(failed)?)
        .text(&scheduler.to_string())
        .part(&settings.timesteps.get().to_le_bytes())
        .part(&settings.guidance_scale.to_le_bytes())
        .text(&settings.negative_prompt)
        .id();
    Ok((files, settings, scheduler, digest))
}

fn settings(spectrum: &Spectrum, machine: &Machine) -> Result<Settings> {
    let defaults = Settings::default();
    let timesteps = u32::try_from(spectrum.timesteps).ok().and_then(NonZeroU32::new);
    Ok(Settings {
        scheduler: spectrum.scheduler.as_deref().map(str::parse).transpose().map_err(failed)?,
        timesteps: timesteps.unwrap_or(defaults.timesteps),
        guidance_scale: spectrum.guidance_scale,
        negative_prompt: spectrum.negative_prompt.clone(),
        batch_size: machine.batch_size.unwrap_or(defaults.batch_size),
        threads: machine.threads.unwrap_or(defaults.threads),
        ..defaults
    })
}

/// A model directory that cannot be used, with the key that names it.
fn failed_at(key: &str, error: impl std::error::Error) -> Error {
    Error::Model(format!("`{key}`: {}", error::chain(&error)))
}

/// A failure of a model as a whole: the run ends.
pub fn failed(error: impl std::error::Error) -> Error {
    Error::Model(error::chain(&error))
}
