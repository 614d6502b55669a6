//! Describes what a model directory holds and whether it fits, for `models inspect`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::{self, Error, Result},
    models::{
        classifier::{self, ClassifierFiles},
        clip::{self, ClipFiles},
        diffusion,
        error::ModelError,
        hub::{self, FetchProgress},
        model_dir::read_config,
        onnx::{OnnxError, Port, Signature, check_versions},
        preprocess::Preprocess,
        tokenizer::Tokenizer,
    },
};

/// A description of a model.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    /// The local directory with its files.
    pub directory: PathBuf,
    /// What kind of model it is.
    pub kind: Kind,
    /// Facts from its files, by name; null if the files do not say.
    pub facts: Value,
    pub tokenizers: Vec<TokenizerFacts>,
    pub graphs: Vec<Graph>,
    /// Why it cannot be used; empty if it fits.
    pub problems: Vec<String>,
}

/// The kinds of models, told apart by the files in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Has a `model_index.json`: for `models.diffusion`.
    Diffusion,
    /// Has a tokenizer, or a graph that takes token ids: for `models.clip`.
    Clip,
    /// Anything else: for `models.classifiers`.
    Classifier,
}

/// A tokenizer.
#[derive(Debug, Serialize)]
pub(crate) struct TokenizerFacts {
    /// Its folder, relative to the model's; empty if it is the model's own.
    pub folder: String,
    /// Token ids per prompt.
    pub length: usize,
}

/// A graph.
#[derive(Debug, Serialize)]
pub(crate) struct Graph {
    /// Its file, relative to the model's folder.
    pub file: String,
    /// Size in bytes, including external weights.
    pub bytes: u64,
    /// The element type of most weights; `None` without weights.
    pub precision: Option<String>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
}

/// An input or output of a graph.
#[derive(Debug, Serialize)]
pub(crate) struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// Element type and shape, as in `float32 [batch, 4, height, width]`; `?` stands for any length.
    pub shape: String,
}

/// Describes the model at `location`, a directory or a URL as in `[models]`. Fetches it first if necessary. Does not load
/// weights.
///
/// # Errors
/// Returns an error if the location cannot be reached or does not hold a model.
pub(crate) async fn describe(location: &str, progress: &FetchProgress) -> Result<Description> {
    let fetched = hub::directory(location, progress).await;
    let directory = fetched.map_err(|error| Error::input(ModelError::from(error)))?;
    let dir = directory.as_path();
    let mut description = match kind(dir) {
        Some(Kind::Diffusion) => of_diffusion(dir),
        Some(Kind::Clip) => of_clip(dir),
        Some(Kind::Classifier) => of_classifier(dir),
        None => return Err(Error::input(ModelError::NotAModel { location: location.to_owned() })),
    };
    let graphs: Vec<PathBuf> = description.graphs.iter().map(|graph| dir.join(&graph.file)).collect();
    description.problems.extend(messages(&check_versions(&graphs, None)));
    Ok(description)
}

fn kind(dir: &Path) -> Option<Kind> {
    let has = |name: &str| dir.join(name).is_file();
    if has("model_index.json") {
        return Some(Kind::Diffusion);
    }
    let graphs = clip::graph_paths(dir);
    let is_model = matches!(graphs, Ok(_) | Err(OnnxError::SeveralGraphs { .. } | OnnxError::NotExported { .. }));
    if !is_model && !has("preprocessor_config.json") && !has("processor_config.json") {
        return None;
    }
    let text = graphs.ok().and_then(|graphs| Signature::read(graphs.first()?).ok());
    let has_prompts = text.map(|graph| graph.input("input_ids").is_some());
    let is_clip = has_prompts.unwrap_or_else(|| has("tokenizer_config.json") || has("tokenizer.json"));
    Some(if is_clip { Kind::Clip } else { Kind::Classifier })
}

fn of_diffusion(dir: &Path) -> Description {
    let found = diffusion::describe(dir);
    Description {
        directory: dir.to_owned(),
        kind: Kind::Diffusion,
        facts: json!(found.facts),
        tokenizers: found.tokenizers.iter().map(|(folder, length)| tokenizer(folder, *length)).collect(),
        graphs: found.graphs.iter().map(|(_, signature)| graph(dir, signature)).collect(),
        problems: messages(&found.problems),
    }
}

fn of_clip(dir: &Path) -> Description {
    let graphs = clip::graph_paths(dir).unwrap_or_default();
    let graphs: Vec<Signature> = graphs.iter().filter_map(|path| Signature::read(path).ok()).collect();
    let width = last_axis(graphs.last(), "image_embeds");
    let (size, mean, std) = preprocessing(dir);
    let tokenizer_of = |dir: &Path| Tokenizer::from_dir(dir, &dir.join("config.json"));
    let length = tokenizer_of(dir).ok().map(|tokenizer| tokenizer.length());
    Description {
        directory: dir.to_owned(),
        kind: Kind::Clip,
        facts: json!({
            "embedding_size": width.or_else(|| in_config(dir, "projection_dim")),
            "image_size": size,
            "mean": mean,
            "std": std,
        }),
        tokenizers: length.into_iter().map(|length| tokenizer("", length)).collect(),
        graphs: graphs.iter().map(|signature| graph(dir, signature)).collect(),
        problems: messages(&ClipFiles::inspect(dir, false).err().unwrap_or_default()),
    }
}

fn of_classifier(dir: &Path) -> Description {
    let signature = Signature::find(dir, classifier::GRAPH).ok();
    let classes = last_axis(signature.as_ref(), "logits");
    let (size, mean, std) = preprocessing(dir);
    Description {
        directory: dir.to_owned(),
        kind: Kind::Classifier,
        facts: json!({
            "classes": classes.or_else(|| in_config(dir, "id2label")),
            "image_size": size,
            "mean": mean,
            "std": std,
        }),
        tokenizers: Vec::new(),
        graphs: signature.iter().map(|signature| graph(dir, signature)).collect(),
        problems: messages(&ClassifierFiles::inspect(dir).err().unwrap_or_default()),
    }
}

fn messages(problems: &[impl std::error::Error]) -> Vec<String> {
    problems.iter().map(|problem| error::chain(problem)).collect()
}

fn tokenizer(folder: &str, length: usize) -> TokenizerFacts {
    TokenizerFacts { folder: folder.to_owned(), length }
}

fn graph(dir: &Path, signature: &Signature) -> Graph {
    let tensors =
        |ports: &[Port]| ports.iter().map(|port| Tensor { name: port.name.clone(), shape: port.to_string() }).collect();
    Graph {
        file: signature.path.strip_prefix(dir).unwrap_or(&signature.path).display().to_string(),
        bytes: signature.weights.size_with(&signature.path),
        precision: signature.weights.precision().map(|element| element.to_string()),
        inputs: tensors(&signature.inputs),
        outputs: tensors(&signature.outputs),
    }
}

/// Returns the length of an output's last axis if the graph fixes it.
fn last_axis(signature: Option<&Signature>, output: &str) -> Option<u64> {
    signature?.output(output)?.last_axis().map(|length| length as u64)
}

/// Returns a number of `config.json`, or the number of entries if the value is an object.
fn in_config(dir: &Path, key: &str) -> Option<u64> {
    let config: Value = read_config(&dir.join("config.json")).ok()?;
    let value = config.get(key)?;
    value.as_u64().or_else(|| Some(value.as_object()?.len() as u64))
}

/// Returns the width × height of the images that the model sees, and the mean and deviation by which values are
/// normalized.
fn preprocessing(dir: &Path) -> (Option<String>, Value, Value) {
    let read = Preprocess::file_in(dir).and_then(|file| Preprocess::read(&dir.join(file)));
    let Ok(preprocess) = read else { return (None, Value::Null, Value::Null) };
    let (mean, std) = preprocess.normalization();
    let size = preprocess.output().map(|(width, height)| format!("{width}×{height}"));
    (size, json!(mean), json!(std))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_a_folder_determine_the_kind() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(kind(&root.join("models/digits")), Some(Kind::Diffusion));
        assert_eq!(kind(&root.join("models/digits/clip")), Some(Kind::Clip));
        assert_eq!(kind(&root.join("src")), None);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("preprocessor_config.json"), "{}").unwrap();
        assert_eq!(kind(dir.path()), Some(Kind::Classifier));
        std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        assert_eq!(kind(dir.path()), Some(Kind::Clip), "the graph is missing, but there is a tokenizer");
    }
}
