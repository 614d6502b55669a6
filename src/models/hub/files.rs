//! Which files of a folder make a model. Others are never asked for: a repository of models often holds the same
//! weights for several frameworks.

use crate::models::diffusion::PARTS;

/// The file that makes a folder a diffusion pipeline, of which only the known parts are taken.
pub(super) const INDEX: &str = "model_index.json";

/// Endings of weights for other frameworks, some of which can run code when they are opened.
const NEVER: [&str; 9] =
    [".bin", ".safetensors", ".msgpack", ".h5", ".pt", ".pth", ".ckpt", ".pkl", ".safetensors.index.json"];

/// Whether the file at `path` below the model's folder is needed. Those of a diffusion pipeline are in its parts;
/// every other model lies in one folder.
pub(super) fn is_needed(path: &str, is_pipeline: bool) -> bool {
    match path.rsplit_once('/') {
        None if is_pipeline => path == INDEX,
        None => is_of_a_model(path),
        Some((part, name)) => is_pipeline && PARTS.contains(&part) && is_of_a_model(name),
    }
}

/// Graphs with their weights, configurations and vocabularies. A graph by another name than `model.onnx` is another
/// precision of it, and is not read.
fn is_of_a_model(name: &str) -> bool {
    let graph = name.starts_with("model.onnx") || name == "weights.pb";
    let weights = name.ends_with(".onnx_data") || name.ends_with(".data");
    let text = name.ends_with(".json") || name == "merges.txt";
    (graph || weights || text) && !name.starts_with('.') && !NEVER.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_a_model_is_needed() {
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
