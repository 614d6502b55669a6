//! Measures a model on this machine: `models bench`.

use std::path::Path;

use super::{
    ModelOptions,
    diffusion::{Bench, DiffusionError, DiffusionFiles, Measured},
    error::ModelError,
    hub::{self, FetchProgress},
    onnx::{CudaOptions, Runtime},
};
use crate::error::{Error, Result};

/// Loads the diffusion model at `location` on the device of `options`, and reports each measurement as it comes. Without
/// sizes they are the model's own. `is_fast` chooses the UNet's graph for speed on a GPU.
///
/// # Errors
/// Returns an error if the location is not a diffusion model that fits, or if the device or a graph cannot be used.
pub(crate) async fn bench(
    location: &str,
    options: &ModelOptions,
    mut bench: Bench,
    is_fast: bool,
    progress: &FetchProgress,
    report: impl FnMut(Measured),
) -> Result<()> {
    let fetched = hub::directory(location, progress).await;
    let directory = fetched.map_err(|error| Error::input(ModelError::from(error)))?;
    if !directory.join("model_index.json").is_file() {
        return Err(Error::input(ModelError::NotDiffusion { location: location.to_owned() }));
    }
    let files = inspect(&directory)?;
    if bench.sizes.is_empty() {
        let side = files.trained_side().unwrap_or(512);
        bench.sizes.push((side, side));
    }
    let run = || -> Result<(), DiffusionError> {
        let runtime = Runtime::open(options.library.as_deref())?;
        let chosen = options.device.choose(&runtime)?;
        let cuda = CudaOptions { tf32: files.has_half_unet(), fast: is_fast, ..CudaOptions::default() };
        bench.run(&runtime, chosen.provider, cuda, &files, report)
    };
    tokio::task::block_in_place(run).map_err(super::failed)
}

fn inspect(directory: &Path) -> Result<DiffusionFiles> {
    DiffusionFiles::inspect(directory).map_err(|problems| {
        Error::Multiple(problems.into_iter().map(|problem| Error::input(ModelError::from(problem))).collect())
    })
}
