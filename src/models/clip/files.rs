//! What a CLIP directory holds, in the layout that `optimum-cli export onnx` writes. Weights are not loaded.

use std::path::{Path, PathBuf};

use super::ClipError;
use crate::models::{
    model_dir::{self, digest_of_files, file_names},
    onnx::{Dim, Element, Signature, Want},
    preprocess::Preprocess,
    tokenizer::Tokenizer,
};

type Problems = model_dir::Problems<ClipError>;

const FLOATS: &[Element] = &[Element::F32, Element::F16];
const INTEGERS: &[Element] = &[Element::I64, Element::I32];

/// Files other than the graph and its weights that affect an embedding. Not all of them must exist.
const FILES: [&str; 6] = [
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// A CLIP directory that fits.
#[derive(Debug, Clone)]
pub(crate) struct ClipFiles {
    dir: PathBuf,
    pub(super) preprocess: Preprocess,
    /// Width and height of the images that the graph expects.
    pub(super) image: (u32, u32),
    /// Whether texts and images must come in equal numbers: the graph uses one name for both axes.
    pub(super) paired: bool,
    /// Whether the graph has an attention mask.
    pub(super) masked: bool,
}

impl ClipFiles {
    /// Reads a directory: its preprocessing, its tokenizer and the signature of its graph, but no weights. With
    /// `whole_frame`, images are not cropped.
    ///
    /// # Errors
    /// Returns every file that is missing, broken or does not fit. If both the graph and the preprocessing are missing,
    /// the directory is not a CLIP model, and only the first error is returned.
    pub(crate) fn inspect(dir: &Path, whole_frame: bool) -> Result<Self, Vec<ClipError>> {
        let path = dir.join("preprocessor_config.json");
        let preprocess = Preprocess::read(&path).and_then(|preprocess| {
            let preprocess = if whole_frame { preprocess.of_whole_frame() } else { preprocess };
            let image = preprocess.fixed_output(&path)?;
            Ok((preprocess, image))
        });
        let preprocess = match preprocess {
            Err(first) if !path.exists() && !dir.join("model.onnx").exists() => return Err(vec![first.into()]),
            other => other,
        };
        let mut problems = Problems::default();
        let preprocess = problems.keep(preprocess);
        let image = preprocess.as_ref().map(|(_, image)| *image);
        let length = problems.keep(Tokenizer::from_dir(dir)).map(|tokenizer| tokenizer.length());
        let graph = problems.keep(Signature::read(&dir.join("model.onnx")));
        let inputs = graph.and_then(|graph| Inputs::check(&graph, length, image, &mut problems));
        match (preprocess, inputs) {
            (Some((preprocess, image)), Some(Inputs { paired, masked })) if problems.is_empty() => {
                Ok(Self { dir: dir.to_owned(), preprocess, image, paired, masked })
            }
            _ => Err(problems.into_vec()),
        }
    }

    /// Returns a SHA-256 in hex over all files that affect an embedding: graph, weights, preprocessing and vocabulary.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(crate) fn digest(&self) -> Result<String, ClipError> {
        // Large exports keep their weights in another file, such as `model.onnx_data`.
        let affects = |name: &String| name.starts_with("model.onnx") || FILES.contains(&name.as_str());
        let names: Vec<String> = file_names(&self.dir)?.into_iter().filter(affects).collect();
        Ok(digest_of_files(&self.dir, &names)?)
    }

    /// Returns the path of the graph with both towers.
    pub(super) fn graph(&self) -> PathBuf {
        self.dir.join("model.onnx")
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// Returns the errors of [`Tokenizer::from_dir`].
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, ClipError> {
        Ok(Tokenizer::from_dir(&self.dir)?)
    }

    /// Returns the directory, which is also the tokenizer's.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// What is relevant about a graph's inputs.
struct Inputs {
    paired: bool,
    masked: bool,
}

impl Inputs {
    /// Checks a graph with both towers. `length` and `image` are the sizes of its inputs, if known.
    fn check(
        graph: &Signature,
        length: Option<usize>,
        image: Option<(u32, u32)>,
        problems: &mut Problems,
    ) -> Option<Self> {
        use Want::{Any, Exactly};
        problems.keep(graph.expect_only(&["input_ids", "pixel_values", "attention_mask"]));
        let texts = [Any("texts"), length.map_or(Any("tokens"), Exactly)];
        let ids = problems.keep(graph.expect_input("input_ids", INTEGERS, &texts));
        let masked = graph.input("attention_mask").is_some();
        if masked {
            problems.keep(graph.expect_input("attention_mask", INTEGERS, &texts));
        }
        let (width, height) = image.map_or((Any("width"), Any("height")), |(width, height)| {
            (Exactly(width as usize), Exactly(height as usize))
        });
        let pixels = [Any("images"), Exactly(3), height, width];
        let pixels = problems.keep(graph.expect_input("pixel_values", FLOATS, &pixels));
        for output in ["text_embeds", "image_embeds"] {
            problems.keep(graph.expect_output(output, FLOATS, &[Any("rows"), Any("width")]));
        }
        let first = |dims: Option<&Vec<Dim>>| dims.and_then(|dims| dims.first().cloned());
        let paired = match (first(ids?.dims.as_ref()), first(pixels?.dims.as_ref())) {
            (Some(Dim::Free(texts)), Some(Dim::Free(images))) => texts == images && !texts.is_empty(),
            _ => false,
        };
        Some(Self { paired, masked })
    }
}
