//! Selects the files of a folder that make up a model. Others are never fetched: a repository often holds the same weights
//! for several frameworks.

use crate::models::diffusion::PARTS;

/// The file that marks a folder as a diffusion pipeline, of which only the known parts are fetched.
pub(super) const INDEX: &str = "model_index.json";

/// Extensions of weights for other frameworks. Some of these formats can run code when they are opened.
const OTHER_FRAMEWORKS: [&str; 9] =
    [".bin", ".safetensors", ".msgpack", ".h5", ".pt", ".pth", ".ckpt", ".pkl", ".safetensors.index.json"];

/// Whether the file at `path`, relative to the model's folder, is needed. The files of a diffusion pipeline are in the
/// folders of its parts; those of any other model are in one folder.
pub(super) fn is_needed(path: &str, is_pipeline: bool) -> bool {
    match path.rsplit_once('/') {
        None if is_pipeline => path == INDEX,
        None => is_model_file(path),
        Some((part, name)) => is_pipeline && PARTS.contains(&part) && is_model_file(name),
    }
}

/// Whether a name is that of a graph, its weights, a configuration or a vocabulary. A graph with another name than
/// `model.onnx` is a version in another precision and is not read.
fn is_model_file(name: &str) -> bool {
    let graph = name.starts_with("model.onnx") || name == "weights.pb";
    let weights = name.ends_with(".onnx_data") || name.ends_with(".data");
    let text = name.ends_with(".json") || name == "merges.txt";
    (graph || weights || text)
        && !name.starts_with('.')
        && !OTHER_FRAMEWORKS.iter().any(|extension| name.ends_with(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_a_model_are_needed() {
        let of_a_pipeline = [
            ("model_index.json", true),
            ("unet/model.onnx", true),
            ("unet/model.onnx_data", true),
            ("unet/weights.pb", true),
            ("unet/conv.data", true),
            ("scheduler/scheduler_config.json", true),
            ("tokenizer_2/merges.txt", true),
            ("tokenizer/vocab.json", true),
            ("README.md", false),
            ("sd_xl.safetensors", false),
            ("unet/model_fp16.onnx", false),
            ("unet/diffusion_pytorch_model.bin", false),
            ("unet/diffusion_pytorch_model.safetensors.index.json", false),
            ("unet/model.onnx.bin", false),
            ("unet/../model.onnx", false),
            ("safety_checker/model.onnx", false),
            ("clip/model.onnx", false),
        ];
        for (path, needed) in of_a_pipeline {
            assert_eq!(is_needed(path, true), needed, "{path}");
        }
        for (path, needed) in [
            ("model.onnx", true),
            ("preprocessor_config.json", true),
            ("tokenizer.json", true),
            ("pytorch_model.bin", false),
            ("flax_model.msgpack", false),
            ("onnx/model.onnx", false),
            ("vision_model.onnx", false),
        ] {
            assert_eq!(is_needed(path, false), needed, "{path}");
        }
    }
}
