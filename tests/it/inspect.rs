//! `models inspect`: it describes a model, and lists everything that makes it unusable.

use std::{path::Path, process::Output};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{copy_all, program, root, stderr};

/// Runs `models inspect` on a directory.
fn inspected(location: &str, arguments: &[&str]) -> Output {
    program().args(["models", "inspect", location]).args(arguments).output().unwrap()
}

fn in_words(output: &Output, dir: &Path) -> String {
    let said = String::from_utf8_lossy(&output.stdout).replace(dir.to_str().unwrap(), "DIR");
    format!("exit code {}\n{said}{}", output.status.code().unwrap(), stderr(output))
}

#[test]
fn a_model_is_explained() {
    assert_snapshot!(in_words(&inspected("models/digits", &[]), root()), @r"
    exit code 0
    `models/digits`: a diffusion pipeline, for `models.diffusion`
      family            Stable Diffusion, with 64 values per token
      prediction type   epsilon
      scheduler         ddim
      timestep spacing  leading
      timestep          one for each sample
      vae scale         1.02793
      vae factor        4
      sample size       8
      image size        32
      side multiple     8
      tokenizer         16 tokens per prompt
    text_encoder/model.onnx: 247.8 KiB, weights float16
      in   input_ids          int64 [batch, sequence]
      out  last_hidden_state  float32 [batch, sequence, 64]
      out  pooler_output      float32 [batch, 64]
    unet/model.onnx: 3.5 MiB, weights float16
      in   sample                 float32 [batch, 4, height, width]
      in   timestep               float32 [batch]
      in   encoder_hidden_states  float32 [batch, sequence, 64]
      out  out_sample             float32 [batch, 4, height, width]
    vae_decoder/model.onnx: 597.2 KiB, weights float16
      in   latent_sample  float32 [batch, 4, latent_height, latent_width]
      out  sample         float32 [batch, 3, height, width]
    vae_encoder/model.onnx: 387.9 KiB, weights float16
      in   sample             float32 [batch, 3, height, width]
      out  latent_parameters  float32 [batch, 8, latent_height, latent_width]
    fits
    ");
    assert_snapshot!(in_words(&inspected("models/digits/clip", &[]), root()), @r"
    exit code 0
    `models/digits/clip`: a CLIP, for `models.clip`
      embedding size    64
      image size        32×32
      mean              0.48145466, 0.4578275, 0.40821073
      std               0.26862954, 0.26130258, 0.27577711
      tokenizer         16 tokens per prompt
    model.onnx: 625.6 KiB, weights float16
      in   input_ids         int64 [text_batch, sequence]
      in   pixel_values      float32 [image_batch, 3, 32, 32]
      in   attention_mask    int64 [text_batch, sequence]
      out  logits_per_image  float32 [image_batch, text_batch]
      out  logits_per_text   float32 [text_batch, image_batch]
      out  text_embeds       float32 [text_batch, Divtext_embeds_dim_1]
      out  image_embeds      float32 [image_batch, Divimage_embeds_dim_1]
    fits
    ");
    assert_snapshot!(in_words(&inspected("tests/fixtures/classifier", &[]), root()), @r"
    exit code 0
    `tests/fixtures/classifier`: a classifier, for `models.classifiers`
      classes           10
      image size        8×8
      mean              0.5, 0.5, 0.5
      std               0.5, 0.5, 0.5
    model.onnx: 7.7 KiB, weights float32
      in   pixel_values  float32 [batch_size, 3, 8, 8]
      out  logits        float32 [batch_size, 10]
    fits
    ");
    assert_snapshot!(in_words(&inspected("src", &[]), root()), @r"
    exit code 2
    error: `src` is not a model: it has no `model_index.json`, `model.onnx` or `preprocessor_config.json`
    hint: name a directory that `optimum-cli export onnx` has written
    ");
    let output = inspected("models/digits", &["--format", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["fits"], &found["kind"]), (&json!(true), &json!("diffusion")));
    assert_eq!((&found["facts"]["image_size"], &found["facts"]["side_multiple"]), (&json!(32), &json!(8)));
    assert_eq!(found["graphs"].as_array().unwrap().len(), 4);
}

#[test]
fn a_model_that_does_not_fit_says_all_that_is_wrong() {
    let copy = tempfile::tempdir().unwrap();
    copy_all(&root().join("models/digits"), copy.path());
    let dir = copy.path();
    // The decoder replaces the UNet, and the tokenizer is missing.
    std::fs::copy(dir.join("vae_decoder/model.onnx"), dir.join("unet/model.onnx")).unwrap();
    std::fs::remove_dir_all(dir.join("tokenizer")).unwrap();
    assert_snapshot!(in_words(&inspected(dir.to_str().unwrap(), &[]), dir), @r"
    exit code 2
    `DIR`: a diffusion pipeline, for `models.diffusion`
      family            Stable Diffusion, with 64 values per token
      prediction type   epsilon
      scheduler         ddim
      timestep spacing  leading
      timestep          not stated
      vae scale         1.02793
      vae factor        4
      sample size       8
      image size        32
      side multiple     not stated
    text_encoder/model.onnx: 247.8 KiB, weights float16
      in   input_ids          int64 [batch, sequence]
      out  last_hidden_state  float32 [batch, sequence, 64]
      out  pooler_output      float32 [batch, 64]
    unet/model.onnx: 597.2 KiB, weights float16
      in   latent_sample  float32 [batch, 4, latent_height, latent_width]
      out  sample         float32 [batch, 3, height, width]
    vae_decoder/model.onnx: 597.2 KiB, weights float16
      in   latent_sample  float32 [batch, 4, latent_height, latent_width]
      out  sample         float32 [batch, 3, height, width]
    vae_encoder/model.onnx: 387.9 KiB, weights float16
      in   sample             float32 [batch, 3, height, width]
      out  latent_parameters  float32 [batch, 8, latent_height, latent_width]
    does not fit: cannot read `DIR/tokenizer/tokenizer_config.json`: No such file or directory (os error 2)
    does not fit: `DIR/unet/model.onnx`: no input `sample`; it has `latent_sample`
    does not fit: `DIR/unet/model.onnx`: no input `encoder_hidden_states`; it has `latent_sample`
    does not fit: `DIR/unet/model.onnx`: unknown input `latent_sample`; known are `sample`, `timestep`, `encoder_hidden_states`
    does not fit: `DIR/unet/model.onnx`: no input `timestep`; it has `latent_sample`
    does not fit: `DIR/unet/model.onnx`: no output `out_sample`; it has `sample`
    ");
    std::fs::remove_file(dir.join("clip/tokenizer_config.json")).unwrap();
    std::fs::remove_file(dir.join("clip/preprocessor_config.json")).unwrap();
    assert_snapshot!(in_words(&inspected(dir.join("clip").to_str().unwrap(), &[]), dir), @r"
    exit code 2
    `DIR/clip`: a CLIP, for `models.clip`
      embedding size    64
      image size        not stated
      mean              not stated
      std               not stated
    model.onnx: 625.6 KiB, weights float16
      in   input_ids         int64 [text_batch, sequence]
      in   pixel_values      float32 [image_batch, 3, 32, 32]
      in   attention_mask    int64 [text_batch, sequence]
      out  logits_per_image  float32 [image_batch, text_batch]
      out  logits_per_text   float32 [text_batch, image_batch]
      out  text_embeds       float32 [text_batch, Divtext_embeds_dim_1]
      out  image_embeds      float32 [image_batch, Divimage_embeds_dim_1]
    does not fit: cannot read `DIR/clip/preprocessor_config.json`: No such file or directory (os error 2)
    does not fit: cannot read `DIR/clip/tokenizer_config.json`: No such file or directory (os error 2)
    ");
}
