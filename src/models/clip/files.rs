//! What a CLIP directory holds, in the layouts that optimum and transformers.js write. Weights are not loaded.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::ClipError;
use crate::models::{
    model_dir::{self, digest_of_files, file_names, read_config},
    onnx::{
        Dim, Element, OnnxError, Signature, Want,
        graph_file::{self, Choice},
    },
    preprocess::Preprocess,
    tokenizer::Tokenizer,
};

type Problems = model_dir::Problems<ClipError>;

const FLOATS: &[Element] = &[Element::F32, Element::F16];
const INTEGERS: &[Element] = &[Element::I64, Element::I32];

/// The name of a graph with both towers, without `.onnx`.
const BOTH: [&str; 1] = ["model"];

/// The names of graphs with one tower each.
const TOWERS: [&str; 2] = ["text_model", "vision_model"];

/// Files of the tokenizer that affect an embedding. Not all of them must exist.
const TOKENIZER: [&str; 5] =
    ["merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"];

/// What SigLIP's towers call their embedding. In other models it is not the one that texts and images have in common.
const SIGLIP_EMBEDDING: &str = "pooler_output";

/// A CLIP directory that fits.
#[derive(Debug, Clone)]
pub(crate) struct ClipFiles {
    dir: PathBuf,
    pub(super) preprocess: Preprocess,
    /// Width and height of the images that the graph expects.
    pub(super) image: (u32, u32),
    pub(super) text: Tower,
    pub(super) vision: Tower,
    /// The files of the graphs and of the preprocessing, relative to the directory.
    files: BTreeSet<String>,
}

/// The half of a model that embeds texts, or images. Both halves may be in one graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tower {
    pub(super) graph: PathBuf,
    /// The output with the embeddings.
    pub(super) output: String,
    /// The inputs of the graph, of those that are known. It may have them for the other half only.
    pub(super) inputs: BTreeSet<&'static str>,
    /// Whether texts and images must come in equal numbers: the graph uses one name for both axes.
    pub(super) paired: bool,
}

impl ClipFiles {
    /// Reads a directory: its preprocessing, its tokenizer and the signatures of its graphs, but no weights. With
    /// `whole_frame`, images are not cropped.
    ///
    /// # Errors
    /// Returns every file that is missing, broken or does not fit. If both the graph and the preprocessing are missing,
    /// the directory is not a CLIP model, and only the first error is returned.
    pub(crate) fn inspect(dir: &Path, whole_frame: bool) -> Result<Self, Vec<ClipError>> {
        let graphs = graph_paths(dir);
        let preprocess = Preprocess::file_in(dir).and_then(|file| {
            let preprocess = Preprocess::read(&dir.join(file))?;
            let preprocess = if whole_frame { preprocess.of_whole_frame() } else { preprocess };
            let image = preprocess.fixed_output(&dir.join(file))?;
            Ok((file, preprocess, image))
        });
        let (graphs, preprocess) = match (graphs, preprocess) {
            (Err(OnnxError::NoGraph { .. } | OnnxError::File(_)), Err(first)) => return Err(vec![first.into()]),
            (Err(first @ OnnxError::NotExported { .. }), Err(_)) => return Err(vec![first.into()]),
            other => other,
        };
        let mut problems = Problems::default();
        let preprocess = problems.keep(preprocess);
        let image = preprocess.as_ref().map(|(_, _, image)| *image);
        let length = problems.keep(Tokenizer::from_dir(dir, &config(dir))).map(|tokenizer| tokenizer.length());
        let graphs = problems.keep(graphs).unwrap_or_default();
        let graphs: Vec<Signature> = graphs.iter().filter_map(|path| problems.keep(Signature::read(path))).collect();
        let towers = towers(&graphs, &Expected { length, image, siglip: is_siglip(dir) }, &mut problems);
        match (preprocess, towers) {
            (Some((file, preprocess, image)), Some((text, vision))) if problems.is_empty() => {
                let files = graphs.iter().flat_map(|graph| graph.files(dir)).chain([file.to_owned()]).collect();
                Ok(Self { dir: dir.to_owned(), preprocess, image, text, vision, files })
            }
            _ => Err(problems.into_vec()),
        }
    }

    /// Returns a SHA-256 in hex over all files that affect an embedding: graphs, weights, preprocessing and vocabulary.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(crate) fn digest(&self) -> Result<String, ClipError> {
        let tokenizer = file_names(&self.dir)?.into_iter().filter(|name| TOKENIZER.contains(&name.as_str()));
        let names: BTreeSet<String> = tokenizer.chain(self.files.iter().cloned()).collect();
        Ok(digest_of_files(&self.dir, &names.into_iter().collect::<Vec<_>>())?)
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// Returns an error if a file has changed and cannot be read.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer, ClipError> {
        Ok(Tokenizer::from_dir(&self.dir, &config(&self.dir))?)
    }
}

/// Returns the paths of the graphs in a directory: one with both towers, or those of the towers, texts first.
///
/// # Errors
/// Returns the errors of [`graph_file::find`].
pub(crate) fn graph_paths(dir: &Path) -> Result<Vec<PathBuf>, OnnxError> {
    let paths = graph_file::paths_in(dir)?;
    graph_names(paths.iter().map(String::as_str)).iter().map(|stem| graph_file::find(dir, stem)).collect()
}

/// Returns the names without `.onnx` of the graphs that a model has to have, by the paths of its files relative to its
/// folder: `model`, or those of the two towers.
pub(crate) fn graph_names<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> &'static [&'static str] {
    let choose = |stem| graph_file::choose(paths.clone(), stem);
    let is_plain = |choice: &Choice<'_>| matches!(choice, Choice::One(path) if path.ends_with("model.onnx"));
    let (both, towers) = (choose(BOTH[0]), TOWERS.map(choose));
    // Graphs in another precision are used only if there are none in the original one.
    let has_towers = match both {
        Choice::None => towers.iter().any(|tower| *tower != Choice::None),
        _ => !is_plain(&both) && towers.iter().all(is_plain),
    };
    if has_towers { &TOWERS } else { &BOTH }
}

fn config(dir: &Path) -> PathBuf {
    dir.join("config.json")
}

/// Whether `config.json` says that the model is SigLIP.
fn is_siglip(dir: &Path) -> bool {
    let config: Option<Value> = read_config(&config(dir)).ok();
    config.is_some_and(|config| config["model_type"].as_str().is_some_and(|model| model.starts_with("siglip")))
}

/// What the graphs must take, as far as other files determine it.
struct Expected {
    /// Token ids per text.
    length: Option<usize>,
    /// Width and height of the images.
    image: Option<(u32, u32)>,
    siglip: bool,
}

/// Checks the graphs and returns the towers for texts and for images.
fn towers(graphs: &[Signature], expected: &Expected, problems: &mut Problems) -> Option<(Tower, Tower)> {
    use Want::{Any, Exactly};
    let (text, vision) = (graphs.first()?, graphs.last()?);
    let both = std::ptr::eq(text, vision);
    let axes = |graph: &Signature, problems: &mut Problems| check_inputs(graph, expected, problems);
    let of_text = axes(text, problems);
    let of_vision = if both { of_text.clone() } else { axes(vision, problems) };
    for (graph, input) in [(text, "input_ids"), (vision, "pixel_values")] {
        if graph.input(input).is_none() {
            problems.keep(graph.expect_input(input, if input == "input_ids" { INTEGERS } else { FLOATS }, &[]));
        }
    }
    let output = |graph: &Signature, name: &'static str| {
        let siglip = expected.siglip && graph.output(name).is_none() && graph.output(SIGLIP_EMBEDDING).is_some();
        if siglip { SIGLIP_EMBEDDING } else { name }
    };
    let (text_output, image_output) = (output(text, "text_embeds"), output(vision, "image_embeds"));
    let width = problems.keep(text.expect_output(text_output, FLOATS, &[Any("rows"), Any("width")]))?.last_axis();
    let width = width.map_or(Any("width"), Exactly);
    problems.keep(vision.expect_output(image_output, FLOATS, &[Any("rows"), width]))?;
    let tower = |graph: &Signature, output: &str, (inputs, paired)| Tower {
        graph: graph.path.clone(),
        output: output.to_owned(),
        inputs,
        paired,
    };
    Some((tower(text, text_output, of_text), tower(vision, image_output, of_vision)))
}

/// Checks the inputs of a graph. Returns the known ones that it has, and whether it pairs texts with images.
fn check_inputs(graph: &Signature, expected: &Expected, problems: &mut Problems) -> (BTreeSet<&'static str>, bool) {
    use Want::{Any, Exactly};
    let known = ["input_ids", "pixel_values", "attention_mask"];
    problems.keep(graph.expect_only(&known));
    let texts = [Any("texts"), expected.length.map_or(Any("tokens"), Exactly)];
    let (width, height) = expected
        .image
        .map_or((Any("width"), Any("height")), |(width, height)| (Exactly(width as usize), Exactly(height as usize)));
    let images = [Any("images"), Exactly(3), height, width];
    let inputs: BTreeSet<&str> = known.into_iter().filter(|name| graph.input(name).is_some()).collect();
    for name in &inputs {
        let (elements, axes) = if *name == "pixel_values" { (FLOATS, &images[..]) } else { (INTEGERS, &texts[..]) };
        problems.keep(graph.expect_input(name, elements, axes));
    }
    let rows = |name: &str| graph.input(name)?.dims.as_ref()?.first().cloned();
    let paired = match (rows("input_ids"), rows("pixel_values")) {
        (Some(Dim::Free(texts)), Some(Dim::Free(images))) => texts == images && !texts.is_empty(),
        _ => false,
    };
    (inputs, paired)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits/clip")
    }

    #[test]
    fn towers_of_siglip_call_their_embedding_otherwise() {
        let graph = Signature::read(&digits().join("model.onnx")).unwrap();
        let tower = |output: &str, input: &str| {
            let mut tower = graph.clone();
            tower.path = PathBuf::from(format!("{output}.onnx"));
            tower.inputs.retain(|port| port.name == input);
            tower.outputs.retain(|port| port.name == output);
            tower.outputs.iter_mut().for_each(|port| port.name = SIGLIP_EMBEDDING.to_owned());
            tower
        };
        let graphs = [tower("text_embeds", "input_ids"), tower("image_embeds", "pixel_values")];
        let of = |siglip| {
            let mut problems = Problems::default();
            let expected = Expected { length: Some(16), image: Some((32, 32)), siglip };
            let towers = towers(&graphs, &expected, &mut problems);
            towers.ok_or_else(|| problems.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (text, vision) = of(true).unwrap();
        assert_eq!([text.output.as_str(), vision.output.as_str()], [SIGLIP_EMBEDDING; 2]);
        assert_eq!(text.inputs, BTreeSet::from(["input_ids"]));
        assert_eq!(vision.inputs, BTreeSet::from(["pixel_values"]));
        let other = of(false).unwrap_err();
        assert_eq!(other, ["`text_embeds.onnx`: no output `text_embeds`; it has `pooler_output`"]);
    }

    #[test]
    fn graphs_in_the_original_precision_come_first() {
        for (names, expected) in [
            (&["model.onnx", "text_model.onnx", "vision_model.onnx"][..], &BOTH[..]),
            (&["onnx/model.onnx", "text_model.onnx", "vision_model.onnx"], &BOTH),
            (&["model_q4.onnx", "onnx/text_model.onnx", "onnx/vision_model.onnx"], &TOWERS),
            (&["model_q4.onnx", "text_model_q4.onnx", "vision_model_q4.onnx"], &BOTH),
            (&["text_model_q4.onnx", "vision_model_q4.onnx"], &TOWERS),
            (&["text_model.onnx"], &TOWERS),
            (&["config.json"], &BOTH),
        ] {
            assert_eq!(graph_names(names.iter().copied()), expected, "{names:?}");
        }
    }
}
