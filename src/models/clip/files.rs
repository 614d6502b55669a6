//! What a CLIP directory holds, in the layout that `optimum-cli export onnx` writes. No weights are loaded here.

use std::fs;
use std::path::{Path, PathBuf};

use super::ClipError;
use crate::imaging::Preprocess;
use crate::models::onnx::{Dim, Element, Signature, Want, digest_of_all};
use crate::models::tokenizer::Tokenizer;

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
    /// Width and height of the images that the graph takes.
    pub(super) image: (u32, u32),
    /// Whether texts and images must come in equal numbers: the graph has one name for both axes.
    pub(super) paired: bool,
    /// Whether the graph wants to know which tokens are padding.
    pub(super) masked: bool,
}

impl ClipFiles {
    /// Reads a directory: its preprocessing, its tokenizer and the graph's signature, without weights. With
    /// `whole_frame` images are not cropped.
    ///
    /// # Errors
    /// Every file that is missing, broken or does not fit, with what it has and what is expected. Where neither graph
    /// nor preprocessing is there, it is no such directory, and the first of them stands for all.
    pub(crate) fn inspect(dir: &Path, whole_frame: bool) -> Result<Self, Vec<ClipError>> {
        let path = dir.join("preprocessor_config.json");
        let preprocess = Preprocess::read(&path).map_err(ClipError::from).and_then(|preprocess| {
            let preprocess = if whole_frame { preprocess.of_whole_frame() } else { preprocess };
            let image = preprocess.one_size(&path)?;
            Ok((preprocess, image))
        });
        let preprocess = match preprocess {
            Err(first) if !path.exists() && !dir.join("model.onnx").exists() => return Err(vec![first]),
            other => other,
        };
        let image = preprocess.as_ref().ok().map(|(_, image)| *image);
        let mut problems = Vec::new();
        let preprocess = keep(preprocess, &mut problems);
        let length = keep(Tokenizer::from_dir(dir), &mut problems).map(|tokenizer| tokenizer.length());
        let graph = keep(Signature::read(&dir.join("model.onnx")), &mut problems);
        let inputs = graph.and_then(|graph| Inputs::of(&graph, length, image, &mut problems));
        match (preprocess, inputs) {
            (Some((preprocess, image)), Some(Inputs { paired, masked })) if problems.is_empty() => {
                Ok(Self { dir: dir.to_owned(), preprocess, image, paired, masked })
            }
            _ => Err(problems),
        }
    }

    /// SHA-256 in hex over all files that decide an embedding: graph, weights, preprocessing and vocabulary.
    ///
    /// # Errors
    /// [`ClipError::Read`] and [`OnnxError::Io`](crate::models::onnx::OnnxError::Io) name the file.
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

/// What matters of a graph's inputs.
struct Inputs {
    paired: bool,
    masked: bool,
}

impl Inputs {
    /// Looks at a graph with both towers; `length` and `image` are what goes in, where that is known.
    fn of(
        graph: &Signature,
        length: Option<usize>,
        image: Option<(u32, u32)>,
        problems: &mut Vec<ClipError>,
    ) -> Option<Self> {
        use Want::{Any, Exactly};
        keep(graph.expect_only(&["input_ids", "pixel_values", "attention_mask"]), problems);
        let texts = [Any("texts"), length.map_or(Any("tokens"), Exactly)];
        let ids = keep(graph.expect_input("input_ids", INTEGERS, &texts), problems);
        let masked = graph.input("attention_mask").is_some();
        if masked {
            keep(graph.expect_input("attention_mask", INTEGERS, &texts), problems);
        }
        let (width, height) = image.map_or((Any("width"), Any("height")), |(width, height)| {
            (Exactly(width as usize), Exactly(height as usize))
        });
        let pixels = [Any("images"), Exactly(3), height, width];
        let pixels = keep(graph.expect_input("pixel_values", FLOATS, &pixels), problems);
        for output in ["text_embeds", "image_embeds"] {
            keep(graph.expect_output(output, FLOATS, &[Any("rows"), Any("width")]), problems);
        }
        let first = |dims: Option<&Vec<Dim>>| dims.and_then(|dims| dims.first().cloned());
        let paired = match (first(ids?.dims.as_ref()), first(pixels?.dims.as_ref())) {
            (Some(Dim::Free(texts)), Some(Dim::Free(images))) => texts == images && !texts.is_empty(),
            _ => false,
        };
        Some(Self { paired, masked })
    }
}

/// What there is, or one problem more.
fn keep<T, E: Into<ClipError>>(result: Result<T, E>, problems: &mut Vec<ClipError>) -> Option<T> {
    result.map_err(|error| problems.push(error.into())).ok()
}
