//! Custom image classifiers, exported to ONNX: an image in, the probability of each class out.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::{
    imaging::{Limits, contained, decode},
    models::{
        model_dir::{FileError, Problems, digest_of_files},
        onnx::{
            Busy, CudaOptions, Device, Element, Loader, Model, OnnxError, Runtime, Signature, Tensor, Want,
            default_threads,
        },
        preprocess::Preprocess,
    },
};

/// Rows of one call. Short batches are padded so that results are batch-invariant.
const ROWS: usize = 16;

const FLOATS: &[Element] = &[Element::F32, Element::F16];

/// Why a classifier cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassifierError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// The name of the graph, without `.onnx`.
pub(crate) const GRAPH: &str = "model";

/// A classifier's directory, in the layout that `optimum-cli export onnx --task image-classification` writes:
/// `model.onnx` with `pixel_values` and `logits`, and `preprocessor_config.json`. Weights are not loaded.
#[derive(Debug, Clone)]
pub(crate) struct ClassifierFiles {
    dir: PathBuf,
    graph: PathBuf,
    /// The files that affect a probability, relative to the directory, in order.
    files: Vec<String>,
    preprocess: Preprocess,
    /// Height and width of the images that the graph expects.
    sides: (usize, usize),
}

impl ClassifierFiles {
    /// Reads a directory.
    ///
    /// # Errors
    /// Returns every file that is missing, broken or does not fit.
    pub(crate) fn inspect(dir: &Path) -> Result<Self, Vec<ClassifierError>> {
        let mut problems = Problems::default();
        let preprocess = problems.keep(Preprocess::file_in(dir).and_then(|file| {
            let preprocess = Preprocess::read(&dir.join(file))?;
            let (width, height) = preprocess.fixed_output(&dir.join(file))?;
            Ok((file, preprocess, (height as usize, width as usize)))
        }));
        let graph = problems.keep(Signature::find(dir, GRAPH));
        if let Some(graph) = &graph {
            check(graph, preprocess.as_ref().map(|(_, _, sides)| *sides), &mut problems);
        }
        match (graph, preprocess) {
            (Some(graph), Some((file, preprocess, sides))) if problems.is_empty() => {
                let mut files: Vec<String> = graph.files(dir).into_iter().chain([file.to_owned()]).collect();
                files.sort();
                Ok(Self { dir: dir.to_owned(), graph: graph.path, files, preprocess, sides })
            }
            _ => Err(problems.into_vec()),
        }
    }

    /// Returns a SHA-256 in hex over all files that affect a probability: graph, weights and preprocessing.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(crate) fn digest(&self) -> Result<String, ClassifierError> {
        Ok(digest_of_files(&self.dir, &self.files)?)
    }
}

/// Checks that a graph classifies images. `sides` are their height and width, if known.
fn check(graph: &Signature, sides: Option<(usize, usize)>, problems: &mut Problems<ClassifierError>) {
    use Want::{Any, Exactly};
    let (height, width) =
        sides.map_or((Any("height"), Any("width")), |(height, width)| (Exactly(height), Exactly(width)));
    problems.keep(graph.expect_only(&["pixel_values"]));
    problems.keep(graph.expect_input("pixel_values", FLOATS, &[Any("images"), Exactly(3), height, width]));
    problems.keep(graph.expect_output("logits", FLOATS, &[Any("images"), Any("classes")]));
}

/// A loaded classifier. Calls run sequentially; the images of a call are prepared on all cores.
#[derive(Debug)]
pub(crate) struct Classifier {
    model: Mutex<Model>,
    files: ClassifierFiles,
}

impl Classifier {
    /// Loads the graph with its weights.
    ///
    /// # Errors
    /// Returns an error if the device is missing or the runtime rejects the graph.
    pub(crate) fn load(
        runtime: &Runtime,
        files: &ClassifierFiles,
        device: &Device,
        cuda: CudaOptions,
        threads: Option<usize>,
    ) -> Result<Self, ClassifierError> {
        let provider = device.choose(runtime)?.provider;
        let (threads, busy) = (threads.unwrap_or_else(default_threads), Arc::new(Busy::default()));
        let loader = Loader { runtime, provider, cuda, threads, busy: &busy };
        let model = Mutex::new(loader.open(&files.graph)?);
        Ok(Self { model, files: files.clone() })
    }

    /// Returns the probability of each class, the softmax of the logits, for each image file; `None` for an image that
    /// cannot be opened.
    ///
    /// # Errors
    /// Returns [`OnnxError::Run`] if the runtime fails or does not return logits for each image.
    pub(crate) fn probabilities(&self, images: &[&[u8]]) -> Result<Vec<Option<Vec<f32>>>, OnnxError> {
        let prepare =
            |bytes: &&[u8]| contained(|| self.files.preprocess.apply(&decode(bytes, &Limits::default())?)).ok();
        let mut results = Vec::with_capacity(images.len());
        for images in images.chunks(ROWS) {
            let tensors: Vec<Option<Vec<f32>>> = images.par_iter().map(prepare).collect();
            let mut rows = self.run(tensors.iter().flatten())?.into_iter();
            results.extend(tensors.iter().map(|tensor| tensor.as_ref().and_then(|_| rows.next())));
        }
        Ok(results)
    }

    /// Returns the probabilities for up to [`ROWS`] tensors.
    fn run<'a>(&self, tensors: impl Iterator<Item = &'a Vec<f32>>) -> Result<Vec<Vec<f32>>, OnnxError> {
        let (height, width) = self.files.sides;
        let shape = [ROWS, 3, height, width];
        let mut pixels: Vec<f32> = Vec::with_capacity(shape.iter().product());
        let mut count = 0;
        for tensor in tensors {
            pixels.extend_from_slice(tensor);
            count += 1;
        }
        pixels.resize(shape.iter().product(), 0.0);
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let output = model.run(vec![("pixel_values", Tensor::f32(shape, pixels))], &["logits"])?.take("logits");
        let logits = output.and_then(|(shape, values)| match shape.as_slice() {
            [rows, classes] if *rows == ROWS && *classes > 0 => Some((*classes, values)),
            _ => None,
        });
        let (classes, values) = logits.ok_or_else(|| OnnxError::Run {
            path: self.files.graph.clone(),
            reason: format!("output `logits` does not have {ROWS} rows of floats"),
        })?;
        Ok(values.chunks_exact(classes).take(count).map(softmax).collect())
    }
}

/// Converts logits to probabilities that sum to 1. Computes in f64.
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 after a division in f64")]
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}
