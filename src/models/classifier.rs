//! Image classifiers of the user's own, exported to ONNX: an image to the probability of each class.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::imaging::{Limits, Preprocess, PreprocessError, decode};
use crate::models::onnx::{
    Busy, CudaOptions, Device, Element, Loader, Model, OnnxError, Runtime, Signature, Tensor, Want,
};
use crate::models::onnx::{default_threads, digest_of_all};

/// Rows of one call. Fewer are padded, so that a row's numbers do not depend on its company.
const ROWS: usize = 16;

const FLOATS: &[Element] = &[Element::F32, Element::F16];

/// Why a classifier cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassifierError {
    /// The graph or the runtime.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// How images are prepared.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The directory cannot be listed.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A classifier's directory, in the layout that `optimum-cli export onnx --task image-classification` writes:
/// `model.onnx` with `pixel_values` and `logits`, and `preprocessor_config.json`. No weights are loaded here.
#[derive(Clone, Debug)]
pub(crate) struct ClassifierFiles {
    dir: PathBuf,
    preprocess: Preprocess,
    /// Height and width of the images that the graph takes.
    sides: (usize, usize),
}

impl ClassifierFiles {
    /// Reads a directory.
    ///
    /// # Errors
    /// Every file that is missing, broken or does not fit, with what it has and what is expected.
    pub(crate) fn inspect(dir: &Path) -> Result<Self, Vec<ClassifierError>> {
        let path = dir.join("preprocessor_config.json");
        let preprocess = Preprocess::read(&path).map_err(ClassifierError::from).and_then(|preprocess| {
            let (width, height) = preprocess.one_size(&path)?;
            Ok((preprocess, (height as usize, width as usize)))
        });
        let sides = preprocess.as_ref().ok().map(|(_, sides)| *sides);
        let problems = match Signature::read(&dir.join("model.onnx")) {
            Ok(graph) => misfits(&graph, sides),
            Err(error) => vec![error],
        };
        let problems: Vec<ClassifierError> = problems.into_iter().map(Into::into).collect();
        match preprocess {
            Ok((preprocess, sides)) if problems.is_empty() => Ok(Self { dir: dir.to_owned(), preprocess, sides }),
            Ok(_) => Err(problems),
            Err(first) => Err([first].into_iter().chain(problems).collect()),
        }
    }

    /// SHA-256 in hex over all files that decide a probability: graph, weights and preprocessing.
    ///
    /// # Errors
    /// [`ClassifierError::Read`] and [`OnnxError::Io`] name the file.
    pub(crate) fn digest(&self) -> Result<String, ClassifierError> {
        let read = |source| ClassifierError::Read { path: self.dir.clone(), source };
        let mut names = vec!["preprocessor_config.json".to_owned()];
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            // Large exports keep their weights beside the graph, as `model.onnx_data`.
            names.extend(name.starts_with("model.onnx").then_some(name));
        }
        names.sort();
        Ok(digest_of_all(&self.dir, &names)?)
    }
}

/// Where a graph is not a classifier of images of this height and width, where these are known.
fn misfits(graph: &Signature, sides: Option<(usize, usize)>) -> Vec<OnnxError> {
    use Want::{Any, Exactly};
    let (height, width) =
        sides.map_or((Any("height"), Any("width")), |(height, width)| (Exactly(height), Exactly(width)));
    let pixels = graph.expect_input("pixel_values", FLOATS, &[Any("images"), Exactly(3), height, width]);
    let logits = graph.expect_output("logits", FLOATS, &[Any("images"), Any("classes")]);
    let only = graph.expect_only(&["pixel_values"]);
    [only.err(), pixels.err(), logits.err()].into_iter().flatten().collect()
}

/// A loaded classifier. Calls take turns; the images of one are prepared on all cores.
#[derive(Debug)]
pub(crate) struct Classifier {
    model: Mutex<Model>,
    files: ClassifierFiles,
}

impl Classifier {
    /// Loads the graph with its weights.
    ///
    /// # Errors
    /// A device that is not there, or a graph that the runtime refuses.
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
        let model = Mutex::new(loader.open(&files.dir.join("model.onnx"))?);
        Ok(Self { model, files: files.clone() })
    }

    /// The probability of each class for each image's file: the softmax of its logits. None for an image that
    /// cannot be opened.
    ///
    /// # Errors
    /// [`OnnxError::Run`] where the runtime fails, or gives no logits for each image.
    pub(crate) fn probabilities(&self, images: &[&[u8]]) -> Result<Vec<Option<Vec<f32>>>, OnnxError> {
        let prepare = |bytes: &&[u8]| {
            let image = decode(bytes, &Limits::default()).ok()?;
            self.files.preprocess.apply(&image).ok()
        };
        let mut answers = Vec::with_capacity(images.len());
        for images in images.chunks(ROWS) {
            let tensors: Vec<Option<Vec<f32>>> = images.par_iter().map(prepare).collect();
            let mut rows = self.run(tensors.iter().flatten())?.into_iter();
            answers.extend(tensors.iter().map(|tensor| tensor.as_ref().and_then(|_| rows.next())));
        }
        Ok(answers)
    }

    /// The probabilities for up to [`ROWS`] tensors.
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
        let taken = model.run(vec![("pixel_values", Tensor::f32(shape, pixels))])?.take("logits");
        let logits = taken.and_then(|(shape, values)| match shape.as_slice() {
            [rows, classes] if *rows == ROWS && *classes > 0 => Some((*classes, values)),
            _ => None,
        });
        let (classes, values) = logits.ok_or_else(|| OnnxError::Run {
            path: self.files.dir.join("model.onnx"),
            reason: format!("its `logits` did not come as {ROWS} rows of floats"),
        })?;
        Ok(values.chunks_exact(classes).take(count).map(softmax).collect())
    }
}

/// Logits as probabilities that sum to 1, computed in f64.
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 after a division in f64")]
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}
