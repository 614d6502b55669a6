//! Models as tools write them: which folders and names are read, and what is said about those that are not.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Workspace, copy_all, root, stderr};

/// The small pipeline with its own copy of the models.
fn copied() -> Workspace {
    let mut workspace = Workspace::small();
    copy_all(&root().join("models/digits"), &workspace.path("models"));
    workspace.edit(&format!("models.diffusion={:?}", workspace.path("models")));
    workspace.edit(&format!("models.clip={:?}", workspace.path("models/clip")));
    workspace
}

/// Returns what `check` says about models that cannot be used. They must be found before any work.
#[track_caller]
fn refused(workspace: &Workspace) -> String {
    let output = workspace.command("check", &[]).output().unwrap();
    let said = stderr(&output).replace(workspace.path("").to_str().unwrap(), "DIR/");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!workspace.lake().exists(), "`check` wrote something");
    said
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Changes keys of a JSON file; null in `keys` is written.
fn set(path: &Path, keys: &Value) {
    let mut config = read_json(path);
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    fs::write(path, config.to_string()).unwrap();
}

fn remove(path: &Path, key: &str) {
    let mut config = read_json(path);
    config.as_object_mut().unwrap().remove(key).unwrap();
    fs::write(path, config.to_string()).unwrap();
}

/// Moves the processor's keys to where transformers 5 has them.
fn nest(clip: &Path) {
    let keys = read_json(&clip.join("preprocessor_config.json"));
    let nested = json!({"image_processor": keys, "processor_class": "CLIPProcessor"});
    fs::write(clip.join("processor_config.json"), nested.to_string()).unwrap();
    fs::remove_file(clip.join("preprocessor_config.json")).unwrap();
}

fn rename(folder: &Path, from: &str, to: &str) {
    fs::create_dir_all(folder.join(to).parent().unwrap()).unwrap();
    fs::rename(folder.join(from), folder.join(to)).unwrap();
}

type Edit = fn(&Path);

/// Edits of the folder of all models. None of them changes what the models compute.
const SAME_MODELS: &[(&str, Edit)] = &[
    ("image processor in processor_config.json", |models| nest(&models.join("clip"))),
    ("image processor with nulls", |models| {
        let nulls =
            json!({"do_convert_rgb": null, "do_rescale": null, "resample": null, "do_pad": null, "device": null});
        set(&models.join("clip/preprocessor_config.json"), &nulls);
    }),
    ("fast image processor", |models| {
        let fast = json!({"image_processor_type": "CLIPImageProcessorFast", "resample": "bicubic", "data_format": "channels_first"});
        set(&models.join("clip/preprocessor_config.json"), &fast);
    }),
    ("feature extractor with integers", |models| {
        let old = json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32});
        set(&models.join("clip/preprocessor_config.json"), &old);
        remove(&models.join("clip/preprocessor_config.json"), "image_processor_type");
    }),
    ("graph in onnx/", |models| rename(&models.join("clip"), "model.onnx", "onnx/model.onnx")),
    ("one version of the graph", |models| rename(&models.join("clip"), "model.onnx", "model_fp16.onnx")),
    ("one version of the UNet", |models| rename(&models.join("unet"), "model.onnx", "model_optimized.onnx")),
    ("two towers in onnx/", |models| {
        rename(&models.join("clip"), "model.onnx", "onnx/text_model.onnx");
        fs::copy(models.join("clip/onnx/text_model.onnx"), models.join("clip/onnx/vision_model.onnx")).unwrap();
    }),
    ("lengths of the text encoders' positions", |models| {
        remove(&models.join("clip/tokenizer_config.json"), "model_max_length");
        set(&models.join("tokenizer/tokenizer_config.json"), &json!({"model_max_length": 1e30}));
        set(&models.join("text_encoder/config.json"), &json!({"max_position_embeddings": 16}));
    }),
    ("numbers that only Python has", |models| {
        for file in ["scheduler/scheduler_config.json", "clip/preprocessor_config.json", "unet/config.json"] {
            let text = fs::read_to_string(models.join(file)).unwrap();
            fs::write(models.join(file), text.replacen('{', r#"{"a": NaN, "b": [-Infinity, Infinity], "#, 1)).unwrap();
        }
    }),
    ("files that have nothing to do with it", |models| {
        for file in
            ["unet/README.md", "unet/openvino_model.xml", "unet/._model.onnx", "tokenizer/notes.txt", "clip/.DS_Store"]
        {
            fs::write(models.join(file), "x").unwrap();
        }
    }),
    ("class of old versions of diffusers", |models| {
        set(&models.join("model_index.json"), &json!({"_class_name": "OnnxStableDiffusionPipeline"}));
    }),
];

#[test]
fn layouts_that_tools_write_are_read() {
    for (name, edit) in SAME_MODELS {
        let workspace = copied();
        edit(&workspace.path("models"));
        let output = workspace.command("check", &[]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
    }
    // The towers are run, too.
    let (mut towers, edit) = (copied(), SAME_MODELS.iter().find(|(name, _)| name.starts_with("two towers")).unwrap().1);
    edit(&towers.path("models"));
    let mut plain = copied();
    for workspace in [&mut plain, &mut towers] {
        workspace.edit("hard_samples.max_class_count=7");
    }
    let scores = |workspace: &Workspace| {
        workspace.run();
        workspace.query("SELECT sample_id, text_similarity, image_similarity FROM scores ORDER BY sample_id")
    };
    let (expected, found) = (scores(&plain), scores(&towers));
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

/// Edits of the folder of all models, with what is said about it.
const REFUSED: &[(&str, Edit)] = &[
    ("`DIR/models/clip` has no `model.onnx`, but `model_fp16.onnx` and `model_q4.onnx`\nhint: ", |models| {
        rename(&models.join("clip"), "model.onnx", "model_q4.onnx");
        fs::copy(models.join("clip/model_q4.onnx"), models.join("clip/model_fp16.onnx")).unwrap();
    }),
    ("`DIR/models/clip/vision_model.onnx` does not exist; the folder has `text_model.onnx`, ", |models| {
        rename(&models.join("clip"), "model.onnx", "text_model.onnx");
    }),
    (
        "`DIR/models/vae_encoder/model.onnx` does not exist; its folder does not exist either\nhint: `optimum-cli",
        |models| {
            fs::remove_dir_all(models.join("vae_encoder")).unwrap();
        },
    ),
    ("`DIR/models` is not exported: `unet/diffusion_pytorch_model.safetensors` holds weights of PyTorch", |models| {
        rename(&models.join("unet"), "model.onnx", "diffusion_pytorch_model.safetensors");
    }),
    ("`DIR/models/clip` is not exported: `pytorch_model.bin` holds weights of PyTorch", |models| {
        rename(&models.join("clip"), "model.onnx", "pytorch_model.bin");
    }),
    (
        "`DIR/models/clip` has neither `tokenizer.json` nor `vocab.json` with `merges.txt`, but a SentencePiece model",
        |models| {
            rename(&models.join("clip"), "tokenizer.json", "spiece.model");
            fs::remove_file(models.join("clip/vocab.json")).unwrap();
        },
    ),
    (
        "`model_max_length` is missing, expected 3 to 4096, and `DIR/models/clip/config.json` has no `max_position_embeddings`",
        |models| {
            remove(&models.join("clip/tokenizer_config.json"), "model_max_length");
            fs::remove_file(models.join("clip/config.json")).unwrap();
        },
    ),
    ("`image_processor_type` is `SamImageProcessor`; supported are `CLIPImageProcessor`, ", |models| {
        set(&models.join("clip/preprocessor_config.json"), &json!({"image_processor_type": "SamImageProcessor"}));
    }),
    (
        "needs version 99 of the ONNX format (IR); ONNX Runtime 1.24.4 supports up to 13\nhint: export it again",
        |models| {
            let mut graph = fs::read(models.join("unet/model.onnx")).unwrap();
            assert_eq!(graph[0], 0x08, "the version comes first");
            graph[1] = 99;
            fs::write(models.join("unet/model.onnx"), graph).unwrap();
        },
    ),
    ("`DIR/models/clip/model.onnx` needs opset 30 of `ai.onnx`; ONNX Runtime 1.24.4 supports up to 25\n", |models| {
        // One more set of operators, at the end of the file.
        let mut graph = fs::read(models.join("clip/model.onnx")).unwrap();
        graph.extend([0x42, 2, 0x10, 30]);
        fs::write(models.join("clip/model.onnx"), graph).unwrap();
    }),
];

#[test]
fn layouts_that_cannot_be_read_are_named_with_what_to_do() {
    for (expected, edit) in REFUSED {
        let workspace = copied();
        edit(&workspace.path("models"));
        let said = refused(&workspace);
        assert!(said.contains(expected), "{expected}:\n{said}");
        assert!(said.contains("\n1 problem; nothing was run"), "{said}");
    }
    let mut workspace = copied();
    workspace.edit(&format!("models.clip={:?}", workspace.path("models/clip/model.onnx")));
    let said = refused(&workspace);
    assert!(said.contains("`DIR/models/clip/model.onnx` is a file; a model is a folder\nhint: "), "{said}");
}

/// What is stored in place of a file, with what is said about it.
const STAND_INS: [(&str, &str); 4] = [
    (
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3438167534\n",
        "it is a Git LFS pointer, not the file",
    ),
    (
        "\n<!DOCTYPE html>\n<html lang=\"en\"><title>404</title>",
        "it is an HTML page, not the file itself\nhint: download",
    ),
    (
        "{\"error\":\"Invalid username or password.\"}",
        "it is the error message of a server, not the file itself\nhint: ",
    ),
    ("", "it is an empty file\nhint: download or copy the file again"),
];

#[test]
fn a_file_that_never_arrived_is_named_wherever_it_is() {
    let files = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/model.onnx",
        "vae_decoder/config.json",
        "vae_encoder/model.onnx",
        "clip/model.onnx",
        "clip/preprocessor_config.json",
        "clip/tokenizer.json",
    ];
    let mut workspace = copied();
    // Without a file, the scheduler is not read.
    workspace.edit("spectrum.scheduler=ddim");
    for (nth, file) in files.into_iter().enumerate() {
        let path = workspace.path("models").join(file);
        let original = fs::read(&path).unwrap();
        let (contents, expected) = STAND_INS[nth % STAND_INS.len()];
        fs::write(&path, contents).unwrap();
        let said = refused(&workspace);
        let line = said.lines().position(|line| line.contains(&format!("`DIR/models/{file}`")));
        let line = line.unwrap_or_else(|| panic!("`{file}` is not named:\n{said}"));
        let from_line: Vec<&str> = said.lines().skip(line).collect();
        assert!(from_line.join("\n").contains(expected), "{file}, {expected}:\n{said}");
        fs::write(&path, original).unwrap();
    }
    // The files of a vocabulary are read if there is no `tokenizer.json`.
    fs::remove_file(workspace.path("models/tokenizer/tokenizer.json")).unwrap();
    fs::write(workspace.path("models/tokenizer/merges.txt"), STAND_INS[0].0).unwrap();
    let said = refused(&workspace);
    assert!(said.contains("cannot read `DIR/models/tokenizer/merges.txt`: it is a Git LFS pointer"), "{said}");
}

/// Fills the weights called `name` in a graph with one value in half precision.
fn fill(graph: &Path, name: &str, value: [u8; 2]) {
    let mut bytes = fs::read(graph).unwrap();
    // The field after the name of a tensor has its values, behind their length in units of 7 bits.
    let field = [name.as_bytes(), &[0x4a]].concat();
    let mut at = bytes.windows(field.len()).position(|window| window == field).unwrap() + field.len();
    let (mut length, mut shift) = (0, 0);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << shift;
        shift += 7;
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            break;
        }
    }
    for pair in bytes[at..at + length].chunks_exact_mut(2) {
        pair.copy_from_slice(&value);
    }
    fs::write(graph, bytes).unwrap();
}

#[test]
fn an_image_of_one_color_from_the_vae_is_a_reject() {
    let mut workspace = copied();
    workspace.edit("hard_samples.max_class_count=7");
    // Only the bias is left, the same for each pixel.
    fill(&workspace.path("models/vae_decoder/model.onnx"), "module.decoder.conv_out.weight.f16", ZERO);
    let output = workspace.command("run", &[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let reason = "the generated image has one color, #";
    assert!(said.contains("error: step `spectrum`: ") && said.contains(reason), "{said}");
}

/// The last weights of the towers of the digits' CLIP.
const LAST: [(&str, &str); 2] = [("texts", "onnx::MatMul_483.f16"), ("images", "onnx::MatMul_493.f16")];
const NAN: [u8; 2] = [0x00, 0x7e];
const ZERO: [u8; 2] = [0, 0];

#[test]
fn a_clip_that_gives_no_numbers_ends_the_step() {
    for ((tower, weights), value) in LAST.into_iter().flat_map(|last| [(last, NAN), (last, ZERO)]) {
        let mut workspace = copied();
        workspace.edit("hard_samples.max_class_count=7");
        workspace.edit("filter.max_attempts=3");
        fill(&workspace.path("models/clip/model.onnx"), weights, value);
        let output = workspace.command("run", &[]).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{tower} {value:?}: {said}");
        let reason =
            "no `text_similarity`: the CLIP's embedding of the image or of its filter prompt is not finite or is zero";
        assert!(said.contains("error: step `scores`: ") && said.contains(reason), "{tower} {value:?}: {said}");
        let step = "SELECT count(*) FROM rejects WHERE step = 'scores' AND source_id IS NOT NULL";
        assert!(workspace.number(step) > 1.0, "{tower} {value:?}");
        // With a ceiling that is never reached, each slot still gets one image.
        workspace.edit("rejects.max_fraction=1.0");
        workspace.ok("run", &["--until", "scores"]);
        let [candidates, images, rejects] = ["SELECT count(*) FROM candidates", "SELECT count(*) FROM spectrum", step]
            .map(|query| workspace.number(query));
        assert!(candidates > 1.0 && candidates == images && candidates == rejects, "{candidates} {images} {rejects}");
        assert_eq!(workspace.number("SELECT max(attempt) FROM candidates"), 0.0);
        assert_eq!(workspace.number("SELECT count(*) FROM scores"), 0.0);
        let similarity = "cosine_similarity(clip_text('a'), clip_text('b'))";
        assert_eq!(workspace.query(&format!("SELECT {similarity} IS NULL AS none"))[0]["none"], tower == "texts");
    }
}
