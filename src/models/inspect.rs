//! Reads the models that a pipeline names: their configurations and digests, but no weights.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use super::{
    ModelOptions,
    classifier::{self, ClassifierFiles},
    clip::{self, ClipFiles},
    diffusion::{self, DiffusionError, DiffusionFiles, NoiseGenerator, Scheduler, SchedulerName, Settings},
    error::ModelError,
    hub::{self, FetchProgress},
    model_dir::Problems,
    onnx::{CudaOptions, check_versions, graph_file},
};
use crate::{config::Config, identity::Digest, imaging::Fit};

/// The models of a pipeline.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) diffusion: InspectedDiffusion,
    pub(super) clip: InspectedClip,
    pub(super) classifiers: InspectedClassifiers,
}

/// The diffusion model with the settings under which it generates.
#[derive(Debug)]
pub(super) struct InspectedDiffusion {
    pub(super) files: DiffusionFiles,
    pub(super) settings: Settings,
    pub(super) scheduler: SchedulerName,
    pub(super) schedule: Box<dyn Scheduler>,
    /// Identifies everything that determines an image except its request: files and settings.
    pub(super) digest: String,
}

#[derive(Debug)]
pub(super) struct InspectedClip {
    pub(super) files: ClipFiles,
    pub(super) digest: String,
}

#[derive(Debug)]
pub(super) struct InspectedClassifiers {
    pub(super) files: BTreeMap<String, ClassifierFiles>,
    pub(super) digest: String,
}

/// Fetches the models that are not local, and reads all of them.
///
/// # Errors
/// Returns every problem of every model.
pub(super) async fn inspect(
    config: &Config,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<Inspected, Vec<ModelError>> {
    let mut problems = Problems::default();
    let diffusion = problems.keep_all(inspect_diffusion(config, options, progress).await);
    let clip = problems.keep_all(inspect_clip(config, options, progress).await);
    let classifiers = problems.keep_all(inspect_classifiers(config, options, progress).await);
    match (diffusion, clip, classifiers) {
        (Some(diffusion), Some(clip), Some(classifiers)) => Ok(Inspected { diffusion, clip, classifiers }),
        _ => Err(problems.into_vec()),
    }
}

async fn inspect_diffusion(
    config: &Config,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<InspectedDiffusion, Vec<ModelError>> {
    let key = "models.diffusion";
    let dir = directory(key, &config.models.diffusion, progress).await?;
    let files = supported(key, DiffusionFiles::inspect(&dir), &diffusion::graph_paths(&dir), options)?;
    with_settings(config, options, files).map_err(|error| vec![error.into()])
}

/// Combines the files of the diffusion model with the pipeline's settings. A schedule that does not have the requested
/// number of timesteps is found here, and not in the middle of a run.
fn with_settings(
    config: &Config,
    options: &ModelOptions,
    files: DiffusionFiles,
) -> Result<InspectedDiffusion, DiffusionError> {
    let spectrum = &config.spectrum;
    let cuda = CudaOptions {
        memory_limit: config.cuda.memory_limit_mib.and_then(|mib| usize::try_from(mib << 20).ok()),
        tf32: config.cuda.tf32,
    };
    let settings = Settings { cuda, ..settings(config, options)? };
    let schedule = files.scheduler(settings.scheduler, settings.timesteps.get())?;
    let scheduler = match settings.scheduler {
        Some(scheduler) => scheduler,
        None => files.scheduler_name()?,
    };
    let digest = Digest::new("generator")
        .text(&files.digest()?)
        .text(&scheduler.to_string())
        .part(&settings.timesteps.get().to_le_bytes())
        .part(&settings.guidance_scale.to_le_bytes())
        .part(&[u8::from(settings.pure_noise_at_zero), u8::from(settings.negative_prompt.is_some())])
        .text(settings.negative_prompt.as_deref().unwrap_or_default())
        .text(&spectrum.noise)
        .text(&settings.size.map_or_else(String::new, digested))
        .id();
    Ok(InspectedDiffusion { files, settings, scheduler, schedule, digest })
}

fn settings(config: &Config, options: &ModelOptions) -> Result<Settings, DiffusionError> {
    let (defaults, spectrum) = (Settings::default(), &config.spectrum);
    let batch = config.models.batch.and_then(|batch| usize::try_from(batch).ok());
    let timesteps = u32::try_from(spectrum.timesteps).ok().and_then(NonZeroU32::new);
    Ok(Settings {
        scheduler: spectrum.scheduler.as_deref().map(str::parse).transpose()?,
        timesteps: timesteps.unwrap_or(defaults.timesteps),
        guidance_scale: spectrum.guidance_scale,
        negative_prompt: spectrum.negative_prompt.clone(),
        noise: if spectrum.noise == "torch" { NoiseGenerator::Torch } else { NoiseGenerator::Counter },
        pure_noise_at_zero: spectrum.pure_noise_at_zero,
        size: spectrum.area.and_then(|area| u32::try_from(area).ok()).map(Fit::Area).or_else(|| {
            let (width, height) = spectrum.size?;
            let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
            Some(if spectrum.keep_aspect { Fit::Within(width, height) } else { Fit::Exactly(width, height) })
        }),
        batch_size: options.batch_size.or(batch),
        threads: options.threads.unwrap_or(defaults.threads),
        ..defaults
    })
}

/// Returns what the digest of the generator has for a size. Images of earlier versions have it in their ids.
fn digested(size: Fit) -> String {
    let sides =
        |width, height, keeps: bool| format!("Fit {{ width: {width}, height: {height}, keep_aspect: {keeps} }}");
    match size {
        Fit::Exactly(width, height) => sides(width, height, false),
        Fit::Within(width, height) => sides(width, height, true),
        Fit::Area(area) => format!("area {area}"),
    }
}

async fn inspect_clip(
    config: &Config,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<InspectedClip, Vec<ModelError>> {
    let key = "models.clip";
    let dir = directory(key, &config.models.clip, progress).await?;
    let whole_frame = config.filter.frame == "whole";
    let graphs = clip::graph_paths(&dir).unwrap_or_default();
    let files = supported(key, ClipFiles::inspect(&dir, whole_frame), &graphs, options)?;
    let of_files = files.digest().map_err(|error| ModelError::at(key)(vec![error]))?;
    let digest = Digest::new("clip").text(&of_files).part(&[u8::from(whole_frame)]).id();
    Ok(InspectedClip { files, digest })
}

async fn inspect_classifiers(
    config: &Config,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<InspectedClassifiers, Vec<ModelError>> {
    let (mut all, mut problems, mut digest) = (BTreeMap::new(), Problems::default(), Digest::new("classifiers"));
    for (name, location) in &config.models.classifiers {
        let key = format!("models.classifiers.{name}");
        if let Some((files, of_files)) = problems.keep_all(inspect_classifier(&key, location, options, progress).await)
        {
            digest = digest.text(name).text(&of_files);
            all.insert(name.clone(), files);
        }
    }
    if problems.is_empty() {
        Ok(InspectedClassifiers { files: all, digest: digest.id() })
    } else {
        Err(problems.into_vec())
    }
}

/// Returns a classifier's files and their digest.
async fn inspect_classifier(
    key: &str,
    location: &str,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<(ClassifierFiles, String), Vec<ModelError>> {
    let dir = directory(key, location, progress).await?;
    let graph: Vec<PathBuf> = graph_file::find(&dir, classifier::GRAPH).into_iter().collect();
    let files = supported(key, ClassifierFiles::inspect(&dir), &graph, options)?;
    let digest = files.digest().map_err(|error| ModelError::at(key)(vec![error]))?;
    Ok((files, digest))
}

/// Returns the files of the model that `key` names if they fit and the runtime supports their graphs.
fn supported<F, E: Into<ModelError>>(
    key: &str,
    files: Result<F, Vec<E>>,
    graphs: &[impl AsRef<Path>],
    options: &ModelOptions,
) -> Result<F, Vec<ModelError>> {
    let mut problems = Problems::default();
    let files = problems.keep_all(files.map_err(ModelError::at(key)));
    let too_new = check_versions(graphs, options.library.as_deref());
    match files {
        Some(files) if too_new.is_empty() => Ok(files),
        _ => {
            ModelError::at(key)(too_new).into_iter().for_each(|problem| problems.add(problem));
            Err(problems.into_vec())
        }
    }
}

/// Returns the local directory of the model that `key` names.
async fn directory(key: &str, location: &str, progress: &FetchProgress) -> Result<PathBuf, Vec<ModelError>> {
    hub::directory(location, progress).await.map_err(|error| ModelError::at(key)(vec![error]))
}
