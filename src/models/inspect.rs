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
    onnx::{CudaOptions, Memory, Share, Signature, check_versions, graph_file},
};
use crate::{config::Config, identity::Digest, imaging::Fit};

/// The models of a pipeline.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) diffusion: InspectedDiffusion,
    pub(super) clip: InspectedClip,
    pub(super) classifiers: InspectedClassifiers,
    /// Options of the CLIP and of the classifiers on a GPU: their results decide which images are kept, so they are exact
    /// unless the pipeline says otherwise.
    pub(super) exact: CudaOptions,
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
    graphs: Vec<PathBuf>,
    pub(super) digest: String,
}

#[derive(Debug)]
pub(super) struct InspectedClassifiers {
    pub(super) files: BTreeMap<String, ClassifierFiles>,
    graphs: Vec<PathBuf>,
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
        (Some(mut diffusion), Some(clip), Some(classifiers)) => {
            let others = clip.graphs.iter().chain(&classifiers.graphs);
            let memory = memory(config, &diffusion.files, others);
            let exact = CudaOptions { memory, tf32: config.cuda.tf32.unwrap_or(false), ..CudaOptions::default() };
            // Where the UNet computes in half precision, the decoder alone gains from TF32.
            let tf32 = config.cuda.tf32.unwrap_or(diffusion.files.has_half_unet());
            diffusion.settings.cuda = CudaOptions { tf32, fast: config.cuda.fast, ..exact };
            Ok(Inspected { diffusion, clip, classifiers, exact })
        }
        _ => Err(problems.into_vec()),
    }
}

/// Divides the memory of a GPU among all graphs of the pipeline, if it is limited. `others` are the graphs of the CLIP and
/// of the classifiers.
fn memory<'a>(
    config: &Config,
    diffusion: &DiffusionFiles,
    others: impl Iterator<Item = &'a PathBuf>,
) -> Option<Memory> {
    let limit = u64::try_from(config.cuda.memory_limit_mib?).unwrap_or(0) << 20;
    let bytes = |path: &PathBuf| Signature::read(path).map_or(0, |graph| graph.weights.size_with(path));
    Some(Memory::new(limit, diffusion.shares().chain(others.map(|path| (Share::Other, bytes(path))))))
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
    let settings = settings(config, options)?;
    if config.cuda.fast {
        files.fast_unet()?;
    }
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
    Ok(InspectedClip { files, graphs, digest })
}

async fn inspect_classifiers(
    config: &Config,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<InspectedClassifiers, Vec<ModelError>> {
    let (mut all, mut problems, mut digest) = (BTreeMap::new(), Problems::default(), Digest::new("classifiers"));
    let mut graphs = Vec::new();
    for (name, location) in &config.models.classifiers {
        let key = format!("models.classifiers.{name}");
        if let Some((files, graph, of_files)) =
            problems.keep_all(inspect_classifier(&key, location, options, progress).await)
        {
            digest = digest.text(name).text(&of_files);
            all.insert(name.clone(), files);
            graphs.extend(graph);
        }
    }
    if problems.is_empty() {
        Ok(InspectedClassifiers { files: all, graphs, digest: digest.id() })
    } else {
        Err(problems.into_vec())
    }
}

/// Returns a classifier's files, its graph, and the digest of its files.
async fn inspect_classifier(
    key: &str,
    location: &str,
    options: &ModelOptions,
    progress: &FetchProgress,
) -> Result<(ClassifierFiles, Option<PathBuf>, String), Vec<ModelError>> {
    let dir = directory(key, location, progress).await?;
    let graph = graph_file::find(&dir, classifier::GRAPH).ok();
    let files = supported(key, ClassifierFiles::inspect(&dir), graph.as_slice(), options)?;
    let digest = files.digest().map_err(|error| ModelError::at(key)(vec![error]))?;
    Ok((files, graph, digest))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Inspects the models of the digits pipeline with edits.
    async fn inspected(edits: &[&str]) -> Inspected {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
        let config = Config::load(&root.join("pipelines/digits_lt.toml"), &edits).unwrap();
        inspect(&config, &ModelOptions::default(), &FetchProgress::new(|_| {})).await.unwrap()
    }

    /// Copies a model whose UNet computes in half precision to `folder`, and returns the edit that names it.
    fn half_model(folder: &Path) -> String {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pipelines/sd1");
        let copy = |from: &str, to: &str| {
            std::fs::create_dir_all(folder.join(to)).unwrap();
            for entry in std::fs::read_dir(source.join(from)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    std::fs::copy(&path, folder.join(to).join(path.file_name().unwrap())).unwrap();
                }
            }
        };
        for part in ["", "scheduler", "text_encoder", "tokenizer", "vae_decoder", "vae_encoder"] {
            copy(part, part);
        }
        copy("unet_f16", "unet");
        format!("models.diffusion={}", folder.display())
    }

    #[tokio::test]
    async fn tf32_follows_the_precision_of_the_unet_unless_the_pipeline_says() {
        // The weights of both are stored in half precision; only the second graph computes in it.
        let half = tempfile::tempdir().unwrap();
        let copied = half_model(half.path());
        for (edits, of_diffusion, of_others) in [
            (vec![], false, false),
            (vec!["cuda.tf32=true"], true, true),
            (vec![copied.as_str()], true, false),
            (vec![copied.as_str(), "cuda.tf32=false"], false, false),
        ] {
            let found = inspected(&edits).await;
            let tf32 = (found.diffusion.settings.cuda.tf32, found.exact.tf32);
            assert_eq!(tf32, (of_diffusion, of_others), "{edits:?}");
            assert_eq!(found.exact.memory, None);
        }
    }

    #[tokio::test]
    async fn a_limit_on_memory_is_for_all_models_together() {
        let found = inspected(&["cuda.memory_limit_mib=1000"]).await;
        let memory = found.exact.memory.unwrap();
        assert_eq!(found.diffusion.settings.cuda.memory, Some(memory));
        let graphs = found.diffusion.files.shares().map(|(_, bytes)| bytes).sum::<u64>();
        let others = found.clip.graphs.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum::<u64>();
        assert!(graphs > 1 << 20 && others > 0);
        assert_eq!(memory.check().unwrap(), (1000 << 20) - graphs - others);
        let message = inspected(&["cuda.memory_limit_mib=1"]).await.exact.memory.unwrap().check().unwrap_err();
        assert!(message.to_string().starts_with("`cuda.memory_limit_mib` is 1, but the weights"), "{message}");
    }
}
