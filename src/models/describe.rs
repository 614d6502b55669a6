//! Describes what a model directory holds and whether it fits, for `models inspect`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    error::{self, Error, Result},
    models::{
        classifier::ClassifierFiles,
        clip::ClipFiles,
        diffusion,
        error::ModelError,
        hub::{self, FetchProgress},
        onnx::{Port, Signature},
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
    match kind(dir) {
        Some(Kind::Diffusion) => Ok(of_diffusion(dir)),
        Some(Kind::Clip) => Ok(of_clip(dir)),
        Some(Kind::Classifier) => Ok(of_classifier(dir)),
        None => Err(Error::input(ModelError::NotAModel { location: location.to_owned() })),
    }
}

fn kind(dir: &Path) -> Option<Kind> {
    let has = |name: &str| dir.join(name).is_file();
    if has("model_index.json") {
        return Some(Kind::Diffusion);
    }
    if !has("model.onnx") && !has("preprocessor_config.json") {
        return None;
    }
    let graph = Signature::read(&dir.join("model.onnx")).ok();
    let has_prompts = graph.map(|graph| graph.input("input_ids").is_some());
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
        graphs: found.graphs.iter().map(|(part, signature)| graph(format!("{part}/model.onnx"), signature)).collect(),
        problems: messages(&found.problems),
    }
}

fn of_clip(dir: &Path) -> Description {
    let signature = Signature::read(&dir.join("model.onnx")).ok();
    let width = last_axis(signature.as_ref(), "image_embeds");
    let (size, mean, std) = preprocessing(dir);
    let length = Tokenizer::from_dir(dir).ok().map(|tokenizer| tokenizer.length());
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
        graphs: signature.iter().map(|signature| graph("model.onnx".to_owned(), signature)).collect(),
        problems: messages(&ClipFiles::inspect(dir, false).err().unwrap_or_default()),
    }
}

fn of_classifier(dir: &Path) -> Description {
    let signature = Signature::read(&dir.join("model.onnx")).ok();
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
        graphs: signature.iter().map(|signature| graph("model.onnx".to_owned(), signature)).collect(),
        problems: messages(&ClassifierFiles::inspect(dir).err().unwrap_or_default()),
    }
}

fn messages(problems: &[impl std::error::Error]) -> Vec<String> {
    problems.iter().map(|problem| error::chain(problem)).collect()
}

fn tokenizer(folder: &str, length: usize) -> TokenizerFacts {
    TokenizerFacts { folder: folder.to_owned(), length }
}

fn graph(file: String, signature: &Signature) -> Graph {
    let tensors =
        |ports: &[Port]| ports.iter().map(|port| Tensor { name: port.name.clone(), shape: port.to_string() }).collect();
    Graph {
        file,
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
    let value = in_json(&dir.join("config.json"), key)?;
    value.as_u64().or_else(|| Some(value.as_object()?.len() as u64))
}

fn in_json(path: &Path, key: &str) -> Option<Value> {
    let mut config: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    config.get_mut(key).map(Value::take)
}

/// Returns the width × height of the images that the model sees, and the mean and deviation by which values are
/// normalized, as the file writes them if it has them.
fn preprocessing(dir: &Path) -> (Option<String>, Value, Value) {
    let path = dir.join("preprocessor_config.json");
    let Ok(preprocess) = Preprocess::read(&path) else { return (None, Value::Null, Value::Null) };
    let (mean, std) = preprocess.normalization();
    let written = |key, used: [f32; 3]| {
        let same = |value: &Value| <[f32; 3]>::deserialize(value).is_ok_and(|written| written == used);
        in_json(&path, key).filter(same).unwrap_or_else(|| json!(used))
    };
    let size = preprocess.output().map(|(width, height)| format!("{width}×{height}"));
    (size, written("image_mean", mean), written("image_std", std))
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
