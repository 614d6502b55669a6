//! Finds the file of a graph among those of a model, by the names that exporters give it.

use std::path::{Path, PathBuf};

use super::OnnxError;
use crate::{
    error::text,
    models::model_dir::{FileError, file_names},
};

/// transformers.js and many repositories of the hub have graphs in this folder of a model, and its configurations above.
const FOLDER: &str = "onnx/";

/// Extensions of weights of other frameworks. Some of these formats can run code when they are opened, so none is read.
const OTHER_FRAMEWORKS: [&str; 10] =
    [".safetensors", ".bin", ".safetensors.index.json", ".msgpack", ".h5", ".pt", ".pth", ".ckpt", ".pkl", ".gguf"];

/// The most names of files that a message lists.
const MAX_LISTED: usize = 6;

/// What a folder has for the name of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    One(&'a str),
    /// Only versions of the graph, such as `model_fp16.onnx` and `model_q4.onnx`.
    Several(Vec<&'a str>),
    None,
}

/// Chooses the graph called `stem` among the files of a model, as paths relative to its folder: `<stem>.onnx`, otherwise
/// the one in `onnx/`, otherwise the only version in another precision, such as `<stem>_fp16.onnx`.
pub(crate) fn choose<'a>(paths: impl Iterator<Item = &'a str> + Clone, stem: &str) -> Choice<'a> {
    let exact = [format!("{stem}.onnx"), format!("{FOLDER}{stem}.onnx")];
    if let Some(path) = exact.iter().find_map(|exact| paths.clone().find(|path| path == exact)) {
        return Choice::One(path);
    }
    let is_version = |path: &&str| {
        let name = path.strip_prefix(FOLDER).unwrap_or(path).strip_suffix(".onnx");
        name.and_then(|name| name.strip_prefix(stem)).is_some_and(|rest| rest.starts_with(['_', '-', '.']))
    };
    let mut versions: Vec<&str> = paths.filter(is_version).collect();
    versions.sort_unstable();
    match versions.as_slice() {
        [] => Choice::None,
        [one] => Choice::One(one),
        _ => Choice::Several(versions),
    }
}

/// Whether a file has weights of another framework.
pub(crate) fn is_of_another_framework(name: &str) -> bool {
    OTHER_FRAMEWORKS.iter().any(|extension| name.ends_with(extension))
}

/// Returns the first file with weights of another framework, those of PyTorch first.
pub(crate) fn foreign_weights<'a>(paths: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rank = |path: &str| OTHER_FRAMEWORKS.iter().position(|extension| path.ends_with(extension));
    paths.filter_map(|path| Some((rank(path)?, path))).min().map(|(_, path)| path)
}

/// Returns the files in the folder of a model and in its `onnx/`, as paths relative to the folder.
///
/// # Errors
/// Returns an error if the folder cannot be listed.
pub(crate) fn paths_in(dir: &Path) -> Result<Vec<String>, FileError> {
    let mut paths = file_names(dir)?;
    if let Ok(below) = file_names(&dir.join(FOLDER)) {
        paths.extend(below.into_iter().map(|name| format!("{FOLDER}{name}")));
    }
    paths.retain(|path| !path.trim_start_matches(FOLDER).starts_with('.'));
    Ok(paths)
}

/// Returns the path of the graph called `stem` in the folder of a model.
///
/// # Errors
/// Returns an error if the folder cannot be listed, [`OnnxError::SeveralGraphs`] if it has only several versions of the
/// graph, [`OnnxError::NotExported`] if it has weights of another framework instead, and [`OnnxError::NoGraph`] otherwise.
pub(crate) fn find(dir: &Path, stem: &str) -> Result<PathBuf, OnnxError> {
    let missing = |found: String| OnnxError::NoGraph { path: dir.join(stem).with_extension("onnx"), found };
    if !dir.exists() {
        return Err(missing("its folder does not exist either".to_owned()));
    }
    let paths = paths_in(dir)?;
    match choose(paths.iter().map(String::as_str), stem) {
        Choice::One(path) => Ok(dir.join(path)),
        Choice::Several(versions) => Err(several(&dir.display().to_string(), stem, &versions)),
        Choice::None => match foreign_weights(paths.iter().map(String::as_str)) {
            Some(weights) => Err(not_exported(&dir.display().to_string(), &dir.display().to_string(), weights)),
            None => Err(missing(format!("the folder has {}", listed(&paths)))),
        },
    }
}

/// Returns [`OnnxError::SeveralGraphs`].
pub(crate) fn several(location: &str, stem: &str, versions: &[&str]) -> OnnxError {
    let (location, found) = (location.to_owned(), text::list(versions, "and"));
    OnnxError::SeveralGraphs { location, name: format!("{stem}.onnx"), found }
}

/// Returns [`OnnxError::NotExported`]. `model` is what optimum calls it: a directory or a repository of the hub.
pub(crate) fn not_exported(location: &str, model: &str, weights: &str) -> OnnxError {
    OnnxError::NotExported { location: location.to_owned(), weights: weights.to_owned(), model: model.to_owned() }
}

/// Lists the files in a folder, graphs first.
fn listed(paths: &[String]) -> String {
    let (graphs, others): (Vec<&String>, Vec<&String>) = paths.iter().partition(|path| path.ends_with(".onnx"));
    let names: Vec<&str> = graphs.into_iter().chain(others).map(String::as_str).collect();
    match names.get(..MAX_LISTED) {
        Some(first) if names.len() > MAX_LISTED => {
            format!(
                "{} and {} more",
                first.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
                names.len() - MAX_LISTED
            )
        }
        _ => text::list(&names, "and"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&'static str], stem: &str) -> Choice<'static> {
        choose(paths.iter().copied(), stem)
    }

    #[test]
    fn a_graph_has_several_names() {
        use Choice::{None, One, Several};
        for (paths, expected) in [
            (&["model.onnx", "onnx/model.onnx", "model_fp16.onnx"][..], One("model.onnx")),
            (&["config.json", "onnx/model.onnx", "onnx/model_q4.onnx"], One("onnx/model.onnx")),
            (&["model_fp16.onnx", "model_fp16.onnx_data"], One("model_fp16.onnx")),
            (&["onnx/model-int8.onnx"], One("onnx/model-int8.onnx")),
            (&["onnx/model_q4.onnx", "model.fp16.onnx"], Several(vec!["model.fp16.onnx", "onnx/model_q4.onnx"])),
            (&["decoder_model.onnx", "text_model.onnx", "models.onnx", "old/model.onnx"], None),
        ] {
            assert_eq!(chosen(paths, "model"), expected, "{paths:?}");
        }
        assert_eq!(
            chosen(&["onnx/text_model_fp16.onnx", "onnx/model_fp16.onnx"], "text_model"),
            One("onnx/text_model_fp16.onnx")
        );
    }

    #[test]
    fn a_graph_that_is_missing_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let message =
            || find(dir.path(), "model").unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR");
        let write = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        assert!(
            message().starts_with("`DIR/model.onnx` does not exist; the folder has nothing\nhint: "),
            "{}",
            message()
        );
        for name in ["config.json", "text_model.onnx", "._model.onnx"] {
            write(name);
        }
        assert!(message().contains("; the folder has `text_model.onnx` and `config.json`\n"), "{}", message());
        write("model.safetensors");
        assert!(message().starts_with("`DIR` is not exported: `model.safetensors` holds weights"), "{}", message());
        write("model_fp16.onnx");
        write("model_q4.onnx");
        assert!(
            message().starts_with("`DIR` has no `model.onnx`, but `model_fp16.onnx` and `model_q4.onnx`\n"),
            "{}",
            message()
        );
    }
}
