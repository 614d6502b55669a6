//! What a CLIP directory holds, in the layout that `optimum-cli export onnx` writes. No weights are loaded here.

use std::fs;
use std::path::{Path, PathBuf};

use super::ClipError;
use crate::imaging::{Preprocess, PreprocessError};
use crate::onnx::{Dim, Element, Signature, Want, digest_of_all};
use crate::tokens::Tokenizer;

const FLOATS: &[Element] = &[Element::F32, Element::F16];
const INTEGERS: &[Element] = &[Element::I64, Element::I32];

/// Files that decide an embedding besides the graph and its weights; those that are there.
const DECIDING: [&str; 6] = [
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// A CLIP directory that fits.
#[derive(Clone, Debug)]
pub(crate) struct ClipFiles {
    dir: PathBuf,
    pub(super) preprocess: Preprocess,
    /// Width and height of the pictures that the graph takes.
    pub(super) picture: (u32, u32),
    /// Whether texts and pictures must come in equal numbers: the graph has one name for both axes.
    pub(super) paired: bool,
    /// Whether the graph wants to know which tokens are padding.
    pub(super) masked: bool,
}

impl ClipFiles {
    /// Reads a directory: its preprocessing, its tokenizer and the graph's signature, without weights. With
    /// `whole_frame` pictures are not cropped.
    ///
    /// # Errors
    /// The first file that is missing, broken or does not fit, with what it has and what is expected.
    pub(crate) fn inspect(dir: &Path, whole_frame: bool) -> Result<Self, ClipError> {
        use Want::{Any, Exactly};
        let preprocess_path = dir.join("preprocessor_config.json");
        let preprocess = Preprocess::read(&preprocess_path)?;
        let preprocess = if whole_frame { preprocess.of_whole_frame() } else { preprocess };
        let length = Exactly(Tokenizer::from_dir(dir)?.length());
        let graph = Signature::read(&dir.join("model.onnx"))?;
        graph.expect_only(&["input_ids", "pixel_values", "attention_mask"])?;
        let texts = [Any("texts"), length];
        let ids = graph.expect_input("input_ids", INTEGERS, &texts)?;
        let masked = graph.input("attention_mask").is_some();
        if masked {
            graph.expect_input("attention_mask", INTEGERS, &texts)?;
        }
        let Some((width, height)) = preprocess.output() else {
            let error = PreprocessError::Unsupported {
                path: preprocess_path,
                key: "do_center_crop",
                found: "off".to_owned(),
                allowed: "pictures need one size: a crop, or a height and a width to resize to",
            };
            return Err(error.into());
        };
        let pixels = [Any("images"), Exactly(3), Exactly(height as usize), Exactly(width as usize)];
        let pixels = graph.expect_input("pixel_values", FLOATS, &pixels)?;
        for output in ["text_embeds", "image_embeds"] {
            graph.expect_output(output, FLOATS, &[Any("rows"), Any("width")])?;
        }
        let first = |dims: Option<&Vec<Dim>>| dims.and_then(|dims| dims.first().cloned());
        let paired = match (first(ids.dims.as_ref()), first(pixels.dims.as_ref())) {
            (Some(Dim::Free(texts)), Some(Dim::Free(images))) => texts == images && !texts.is_empty(),
            _ => false,
        };
        Ok(Self { dir: dir.to_owned(), preprocess, picture: (width, height), paired, masked })
    }

    /// SHA-256 in hex over all files that decide an embedding: graph, weights, preprocessing and vocabulary.
    ///
    /// # Errors
    /// [`ClipError::Read`] and [`OnnxError::Io`](crate::onnx::OnnxError::Io) name the file.
    pub(crate) fn digest(&self) -> Result<String, ClipError> {
        let read = |source| ClipError::Read { path: self.dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            // Large exports keep their weights beside the graph, as `model.onnx_data`.
            if name.starts_with("model.onnx") || DECIDING.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(digest_of_all(&self.dir, &names)?)
    }

    /// The graph with both towers.
    pub(super) fn graph(&self) -> PathBuf {
        self.dir.join("model.onnx")
    }

    /// The directory, which is the tokenizer's too.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}
