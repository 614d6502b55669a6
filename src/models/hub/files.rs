//! Selects the files of a folder that make up a model. Others are never fetched: a repository often holds the same weights
//! for several frameworks and in several precisions.

use std::collections::BTreeSet;

use crate::models::{
    clip::graph_names,
    diffusion::{FAST_UNET, PARTS},
    onnx::{
        OnnxError,
        graph_file::{self, Choice, is_of_another_framework},
    },
};

/// The file that marks a folder as a diffusion pipeline, of which only the known parts are fetched.
pub(super) const INDEX: &str = "model_index.json";

/// The folders in which a model that is not a pipeline may have files, in addition to its root.
pub(super) const FOLDERS: [&str; 1] = ["onnx"];

/// Returns those of `paths`, relative to the folder of a model, that are needed. The files of a diffusion pipeline are in
/// the folders of its parts; those of any other model are in one folder, except that its graphs may be in `onnx/`. `location` and
/// `model` name it in messages.
///
/// # Errors
/// Returns [`OnnxError::NotExported`] if there are weights of another framework and no graph, and
/// [`OnnxError::SeveralGraphs`] if there are only several versions of a graph.
pub(super) fn needed<'a>(paths: &[&'a str], location: &str, model: &str) -> Result<BTreeSet<&'a str>, OnnxError> {
    let is_pipeline = paths.contains(&INDEX);
    let folders: &[&str] = if is_pipeline { &PARTS } else { &[""] };
    let mut needed = BTreeSet::new();
    for folder in folders {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below: Vec<(&str, &'a str)> =
            paths.iter().filter_map(|path| Some((path.strip_prefix(&prefix)?, *path))).collect();
        let names: Vec<&str> = below.iter().map(|(name, _)| *name).collect();
        let graphs = graphs(&names, &format!("{location}/{folder}"))?;
        let is_fast = |name: &str| *folder == "unet" && name == FAST_UNET;
        let is_needed = |name: &str| {
            is_configuration(name) || is_fast(name) || graphs.iter().any(|graph| belongs(name, graph, &names))
        };
        needed.extend(below.iter().filter(|(name, _)| is_needed(name)).map(|(_, path)| *path));
    }
    // Parts that no model here has, such as a safety checker, do not make a pipeline of PyTorch.
    let is_part =
        |path: &str| !is_pipeline || path.split('/').next().is_some_and(|part| part == "vae" || PARTS.contains(&part));
    let has_graph = paths.iter().any(|path| path.ends_with(".onnx"));
    let weights = graph_file::foreign_weights(paths.iter().copied().filter(|path| is_part(path)));
    if let Some(weights) = weights.filter(|_| !has_graph) {
        return Err(graph_file::not_exported(location, model, weights));
    }
    if is_pipeline {
        needed.insert(INDEX);
    }
    Ok(needed)
}

/// Returns the graphs of a model, or of a part of a pipeline, by the names of its files.
fn graphs<'a>(names: &[&'a str], location: &str) -> Result<Vec<&'a str>, OnnxError> {
    let visible = names.iter().copied().filter(|name| !name.starts_with('.'));
    let mut graphs = Vec::new();
    for stem in graph_names(visible.clone()) {
        match graph_file::choose(visible.clone(), stem) {
            Choice::One(graph) => graphs.push(graph),
            Choice::Several(versions) => {
                return Err(graph_file::several(location.trim_end_matches('/'), stem, &versions));
            }
            Choice::None => {}
        }
    }
    Ok(graphs)
}

/// Whether a file is a graph or has its weights. They may have any name, so all files that look like weights belong to
/// it, except those that begin with the name of another graph.
fn belongs(name: &str, graph: &str, names: &[&str]) -> bool {
    let folder = graph.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_folder = name.rsplit_once('/').map_or("", |(folder, _)| folder) == folder;
    if name.starts_with(graph) {
        return in_folder && !is_of_another_framework(name);
    }
    let stem_of = |other: &str| other.strip_suffix("onnx").map(str::to_owned);
    let of_another = || {
        names
            .iter()
            .filter(|other| **other != graph)
            .filter_map(|other| stem_of(other))
            .any(|stem| name.starts_with(&stem))
    };
    let weights = name.ends_with(".onnx_data") || name.ends_with(".data") || name.ends_with("weights.pb");
    in_folder && weights && !name.starts_with('.') && !of_another()
}

/// Whether a file is a configuration or a vocabulary.
fn is_configuration(name: &str) -> bool {
    let text = name.ends_with(".json") || name == "merges.txt";
    text && !name.contains('/') && !name.starts_with('.') && !is_of_another_framework(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed_of(paths: &[&'static str]) -> Vec<&'static str> {
        needed(paths, "hf://a/b", "a/b").unwrap().into_iter().collect()
    }

    #[test]
    fn only_the_parts_of_a_pipeline_are_needed() {
        let wanted = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer_2/merges.txt",
            "unet/conv.data",
            "unet/model.onnx",
            "unet/model.onnx_data",
            "unet/weights.pb",
            "vae_decoder/model_optimized.onnx",
        ];
        let others = [
            "README.md",
            "clip/model.onnx",
            "safety_checker/model.onnx",
            "sd_xl.safetensors",
            "unet/../model.onnx",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "unet/model.onnx.bin",
            "unet/model_fp16.onnx",
            "unet/model_fp16.onnx_data",
        ];
        assert_eq!(needed_of(&[&wanted[..], &others[..]].concat()), wanted);
    }

    #[test]
    fn only_the_graphs_that_are_read_are_needed() {
        for (wanted, others) in [
            (
                &["model.onnx", "model.onnx_data", "preprocessor_config.json", "tokenizer.json"][..],
                &["flax_model.msgpack", "onnx/model.onnx", "pytorch_model.bin", "vision_model.onnx"][..],
            ),
            (
                &["config.json", "onnx/model.onnx", "onnx/model.onnx_data"],
                &[
                    "onnx/config.json",
                    "onnx/model_q4.onnx",
                    "onnx/model_q4.onnx_data",
                    "onnx/text_model.onnx",
                    "x/model.onnx",
                ],
            ),
            (&["onnx/text_model.onnx", "onnx/vision_model.onnx"], &["onnx/text_model_fp16.onnx", "model.safetensors"]),
            (&["onnx/model_quantized.onnx"], &["onnx/._model.onnx"]),
        ] {
            assert_eq!(needed_of(&[wanted, others].concat()), wanted);
        }
    }

    #[test]
    fn a_repository_without_a_graph_to_read_says_what_to_do() {
        let message = |paths: &[&str]| needed(paths, "hf://a/b@main", "a/b").unwrap_err().to_string();
        let pytorch = message(&["config.json", "model.safetensors"]);
        assert!(pytorch.starts_with("`hf://a/b@main` is not exported: `model.safetensors` holds"), "{pytorch}");
        assert!(pytorch.contains("`optimum-cli export onnx --model a/b --task TASK DIRECTORY`"), "{pytorch}");
        let pipeline = message(&["model_index.json", "vae/diffusion_pytorch_model.bin", "unet/config.json"]);
        assert!(pipeline.contains("`vae/diffusion_pytorch_model.bin` holds"), "{pipeline}");
        let several = message(&["onnx/model_fp16.onnx", "onnx/model_q4.onnx"]);
        assert!(
            several.starts_with("`hf://a/b@main` has no `model.onnx`, but `onnx/model_fp16.onnx` and"),
            "{several}"
        );
        assert!(needed(&["README.md"], "hf://a/b", "a/b").unwrap().is_empty());
    }
}
