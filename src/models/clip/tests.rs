//! Compares with transformers (`tests/fixtures/diffusers/digits.json`), and tests the engine's guarantees, on the model in
//! `models/digits/clip`.

#![expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use image::RgbImage;
use serde::Deserialize;
use serde_json::Value;

use super::{model::Clip, *};
use crate::{
    imaging::{Limits, decode, decode_on_white, encode_png, testing::base64},
    models::{
        onnx::{CudaOptions, Device, Loader, Provider, Runtime},
        preprocess::Preprocess,
    },
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn bundle() -> ClipFiles {
    ClipFiles::inspect(&root().join("models/digits/clip"), false).unwrap()
}

fn clip() -> Clip {
    let (runtime, busy) = (Runtime::open(None).unwrap(), Arc::default());
    let loader =
        Loader { runtime: &runtime, provider: Provider::Cpu, cuda: CudaOptions::default(), threads: 1, busy: &busy };
    Clip::load(&loader, &bundle()).unwrap()
}

fn embed_images(clip: &mut Clip, images: &[RgbImage]) -> Vec<Vec<f32>> {
    let tensors: Vec<_> = images.iter().map(|image| bundle().preprocess.apply(image).unwrap()).collect();
    clip.embed_tensors(&tensors).unwrap()
}

fn engine() -> ClipEngine {
    let runtime = Runtime::open(None).unwrap();
    ClipEngine::start(&runtime, &bundle(), ClipSettings::default(), &Device::Cpu).unwrap()
}

fn nth_image(number: u32) -> RgbImage {
    let value = |x: u32, y: u32, scale: u32| ((x * scale + y * (number + 1) * 3) % 256) as u8;
    RgbImage::from_fn(40, 30, |x, y| image::Rgb([value(x, y, 3), value(x, y, 5), value(x, y, 7)]))
}

fn file(number: u32) -> Arc<[u8]> {
    encode_png(&nth_image(number)).unwrap().into()
}

#[derive(Deserialize)]
struct Golden {
    clip: Embeddings,
    source_png: String,
}

#[derive(Deserialize)]
struct Embeddings {
    texts: Vec<String>,
    text_embeds: Vec<Vec<f32>>,
    image_embeds: Vec<f32>,
    pixel_values_first_50: Vec<f32>,
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-5, "off by {worst}");
}

#[test]
fn embeddings_equal_transformers() {
    let text = std::fs::read(root().join("tests/fixtures/diffusers/digits.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&text).unwrap();
    let mut clip = clip();
    let texts: Vec<&str> = golden.clip.texts.iter().map(String::as_str).collect();
    for (ours, theirs) in clip.embed_texts(&texts).unwrap().iter().zip(&golden.clip.text_embeds) {
        assert_close(ours, theirs);
    }
    let source = decode(&base64(&golden.source_png), &Limits::default()).unwrap();
    let pixels = bundle().preprocess.apply(&source).unwrap();
    assert_close(&pixels[..50], &golden.clip.pixel_values_first_50);
    assert_close(&embed_images(&mut clip, &[source])[0], &golden.clip.image_embeds);
}

#[derive(Deserialize)]
struct Images {
    text: String,
    positions: Vec<usize>,
    images: BTreeMap<String, Seen>,
}

#[derive(Deserialize)]
struct Seen {
    embedding: Vec<f32>,
    cosine: f32,
    means: [f32; 3],
    samples: Vec<f32>,
}

/// `tests/fixtures/clip`: grayscale, palettes, alpha, CMYK, other sizes. JPEG decoders differ by a few steps.
#[test]
fn images_are_embedded_as_in_transformers() {
    let folder = root().join("tests/fixtures/clip");
    let golden: Images = serde_json::from_slice(&std::fs::read(folder.join("clip.json")).unwrap()).unwrap();
    let mut clip = clip();
    let text = clip.embed_texts(&[&golden.text]).unwrap().remove(0);
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let b32 = Preprocess::read(&folder.join("preprocessor_b32.json")).unwrap();
    let l14 = Preprocess::read(&folder.join("preprocessor_l14.json")).unwrap();
    for (name, seen) in &golden.images {
        if name.starts_with("grey16") {
            continue; // Pillow clips 16-bit grayscale at 255, which turns it white; here it is scaled.
        }
        let image = decode_on_white(&std::fs::read(folder.join(name)).unwrap(), &Limits::default()).unwrap();
        let embedding = embed_images(&mut clip, std::slice::from_ref(&image)).remove(0);
        let allowed = if name.ends_with(".png") { 1e-3 } else { 3e-3 };
        let off = (cosine(&embedding, &text) - seen.cosine).abs();
        assert!(off <= allowed, "{name}: the cosine is off by {off}");
        let same = 1.0 - cosine(&embedding, &seen.embedding);
        assert!(same <= allowed, "{name}: the cosine to transformers is 1 - {same}");
        let tensor = b32.apply(&image).unwrap();
        assert_eq!(tensor, l14.apply(&image).unwrap(), "{name}");
        for (channel, mean) in tensor.chunks_exact(224 * 224).zip(seen.means) {
            let ours = channel.iter().sum::<f32>() / channel.len() as f32;
            assert!((ours - mean).abs() < 0.01, "{name}: {ours} for {mean}");
        }
        // A step of 1/255 is 0.015; JPEG decoders differ by up to four.
        let step = if name.ends_with(".png") { 2.1 * 0.0151 } else { 6.0 * 0.0151 };
        for (&at, sample) in golden.positions.iter().zip(&seen.samples) {
            assert!((tensor[at] - sample).abs() <= step, "{name} at {at}: {} for {sample}", tensor[at]);
        }
    }
}

#[test]
fn embeddings_are_batch_invariant() {
    let mut clip = clip();
    let images: Vec<RgbImage> = (0..19).map(nth_image).collect();
    let together = embed_images(&mut clip, &images);
    let texts: Vec<String> = (0..19).map(|number| format!("a photo of {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let texts_together = clip.embed_texts(&texts).unwrap();
    for index in 0..19 {
        assert_eq!(embed_images(&mut clip, &images[index..=index])[0], together[index], "image {index}");
        assert_eq!(clip.embed_texts(&texts[index..=index]).unwrap()[0], texts_together[index], "text {index}");
    }
    let length: f32 = together[0].iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn callers_share_one_model_and_equal_rows_are_embedded_once() {
    let engine = engine();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let engine = engine.clone();
        tasks.spawn(async move {
            let image = engine.embed_image(file(number)).await.unwrap();
            let text = engine.embed_text(["five", "nine", "three"][number as usize % 3]).await.unwrap();
            (number, image, text)
        });
    }
    let mut clip = clip();
    while let Some(done) = tasks.join_next().await {
        let (number, image, text) = done.unwrap();
        assert_eq!(embed_images(&mut clip, &[nth_image(number)])[0][..], image[..]);
        assert_eq!(clip.embed_texts(&[["five", "nine", "three"][number as usize % 3]]).unwrap()[0][..], text[..]);
    }
    let stats = engine.stats();
    assert_eq!((stats.images, stats.texts), (60, 3));
    assert!(!stats.busy.is_zero());
}

#[tokio::test]
async fn equal_images_in_flight_are_embedded_once_and_bad_ones_affect_no_others() {
    let engine = engine();
    let mut once = false;
    // On a busy machine the second of two may arrive after the first is finished; then they are tried again.
    for _ in 0..50 {
        let before = engine.stats().images;
        let (same, good): (Arc<[u8]>, Arc<[u8]>) = (file(1), file(2));
        let bad: Arc<[u8]> = good[..100].into();
        let (a, b, c, d) = tokio::join!(
            engine.embed_image(Arc::clone(&same)),
            engine.embed_image(same),
            engine.embed_image(bad),
            engine.embed_image(good)
        );
        assert_eq!(a.unwrap(), b.unwrap());
        assert!(matches!(c, Err(EmbedError::Image(reason)) if reason.starts_with("the `png` image is truncated")));
        assert!(d.is_ok());
        once |= engine.stats().images - before == 2;
        if once {
            break;
        }
    }
    assert!(once, "equal images are embedded separately");
}

#[test]
fn a_directory_that_does_not_fit_is_reported() {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("models/digits/clip")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let digest = || ClipFiles::inspect(copy.path(), false).unwrap().digest().unwrap();
    assert_eq!(digest(), bundle().digest().unwrap(), "the path does not matter");
    let path = copy.path().join("preprocessor_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["crop_size"] = serde_json::json!({"height": 24, "width": 32});
    std::fs::write(&path, config.to_string()).unwrap();
    let message = ClipFiles::inspect(copy.path(), false).unwrap_err()[0].to_string();
    assert!(
        message.ends_with(
            "input `pixel_values` is float32 [image_batch, 3, 32, 32]; expected float32 or float16 [images, 3, 24, 32]"
        ),
        "{message}"
    );
    std::fs::remove_file(copy.path().join("model.onnx")).unwrap();
    config["crop_size"] = serde_json::json!({"height": 32, "width": 32});
    std::fs::write(&path, config.to_string()).unwrap();
    let message = ClipFiles::inspect(copy.path(), false).unwrap_err()[0].to_string();
    let start =
        format!("`{}` does not exist; the folder has `config.json`, ", copy.path().join("model.onnx").display());
    assert!(message.starts_with(&start), "{message}");
}
