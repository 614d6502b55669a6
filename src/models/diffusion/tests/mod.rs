//! Compares with diffusers number by number (`tests/fixtures/diffusers/digits.json`), and tests the engine's guarantees,
//! on the models in `models/digits`.

#![expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;

use super::{
    batch::{Batch, Guidance, Sample},
    decoder::Decoder,
    denoiser::Denoiser,
    encoders::Encoders,
    img2img::{latents, prepare},
    latents::Size,
    noise::{Normals, Purpose},
    request::Generated,
    schedulers::SchedulerConfig,
    stats::Counters,
    *,
};
use crate::{
    config::timesteps_run,
    imaging::{Limits, decode, encode_png, from_chw, testing::base64},
    models::onnx::{CudaOptions, Device, Loader, Provider, Runtime},
};

mod batch_invariance;
mod oracle;

#[derive(Deserialize)]
struct Golden {
    num_inference_steps: u32,
    guidance_scale: f64,
    prompt: String,
    negative_prompt: String,
    source_png: String,
    posterior_noise: Vec<f32>,
    noise: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    timesteps: Vec<f32>,
    image_rgb: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn bundle() -> DiffusionFiles {
    DiffusionFiles::inspect(&root().join("models/digits")).unwrap()
}

/// Returns a copy of a model with the graphs of `tests/fixtures/opset23/NAME` over its own, in which their weights stand.
fn by_opset_23(name: &str, older: &Path) -> TempDir {
    let (copy, graphs) = (tempfile::tempdir().unwrap(), root().join("tests/fixtures/opset23").join(name));
    copy_dir(older, copy.path());
    for part in std::fs::read_dir(&graphs).unwrap() {
        let part = copy.path().join(part.unwrap().file_name());
        std::fs::rename(part.join("model.onnx"), part.join("model.onnx_data")).unwrap();
    }
    copy_dir(&graphs, copy.path());
    copy
}

fn golden() -> Golden {
    let text = std::fs::read(root().join("tests/fixtures/diffusers/digits.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn on_cpu(files: &DiffusionFiles, settings: Settings) -> Engine {
    let runtime = Runtime::open(None).unwrap();
    let chosen = Device::Cpu.choose(&runtime).unwrap();
    Engine::start(&runtime, files, settings, chosen).unwrap()
}

fn load(files: &DiffusionFiles) -> (Encoders, Denoiser, Decoder) {
    load_on(files, 1)
}

fn load_on(files: &DiffusionFiles, threads: usize) -> (Encoders, Denoiser, Decoder) {
    let (runtime, counters) = (Runtime::open(None).unwrap(), Arc::new(Counters::default()));
    let (provider, cuda) = (Provider::Cpu, CudaOptions::default());
    let loader = Loader { runtime: &runtime, provider, cuda, threads, busy: &counters.busy };
    let encoders = Encoders::load(&loader, files).unwrap();
    let denoiser = Denoiser::load(&loader, files, Arc::clone(&counters)).unwrap();
    (encoders, denoiser, Decoder::load(&loader, files, Arc::clone(&counters)).unwrap())
}

/// Allows 1e-5 of the largest value plus 1e-5.
#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let tolerance = 1e-5 * largest + 1e-5;
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: off by {worst}, allowed {tolerance}");
}

/// Allows one value in a thousand to differ by more than 1/255.
#[track_caller]
fn assert_same_image(ours: &[u8], theirs: &[u8], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let off = ours.iter().zip(theirs).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert!(off * 1000 <= ours.len(), "{what}: {off} of {} values", ours.len());
}

/// Draws recorded from another implementation.
#[derive(Debug)]
struct Recorded(VecDeque<Vec<f32>>);

impl Normals for Recorded {
    fn draw(&mut self, _: Purpose, count: usize) -> Vec<f32> {
        let draw = self.0.pop_front().unwrap();
        assert_eq!(draw.len(), count);
        draw
    }
}

#[tokio::test]
async fn the_engine_generates_diffusers_images_with_the_digits() {
    generate_digits(&bundle()).await;
    let copy = by_opset_23("digits", &root().join("models/digits"));
    generate_digits(&DiffusionFiles::inspect(copy.path()).unwrap()).await;
}

async fn generate_digits(files: &DiffusionFiles) {
    let golden = golden();
    for name in ["ddim", "euler"] {
        let settings = Settings {
            scheduler: Some(name.parse().unwrap()),
            timesteps: NonZeroU32::new(golden.num_inference_steps).unwrap(),
            guidance_scale: golden.guidance_scale,
            negative_prompt: Some(golden.negative_prompt.clone()),
            batch_size: Some(4),
            ..Settings::default()
        };
        let engine = on_cpu(files, settings);
        for case in golden.cases.iter().filter(|case| case.scheduler == name) {
            let request = Request {
                image: base64(&golden.source_png).into(),
                prompt: golden.prompt.clone().into(),
                image_guidance: 0,
                seed: 0,
            };
            let draws = [golden.posterior_noise.clone(), golden.noise.clone()];
            let run = u32::try_from(case.timesteps.len()).unwrap();
            let draws = Box::new(Recorded(draws.into()));
            let generated = engine.submit(request, run, draws).await.unwrap();
            assert_eq!((generated.timesteps, generated.unet_evaluations), (run, 2 * u64::from(run)));
            let image = decode(&generated.png, &Limits::default()).unwrap();
            assert_same_image(image.as_raw(), &base64(&case.image_rgb), name);
        }
    }
}

/// Panics where it is used or, if nothing uses it, where it is dropped.
#[derive(Debug)]
struct Faulty;

impl Normals for Faulty {
    fn draw(&mut self, _: Purpose, _: usize) -> Vec<f32> {
        panic!("a bug in a worker")
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a bug in the encode stage")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_any_thread_stops_the_engine() {
    for image in [base64(&golden().source_png), b"no image".to_vec()] {
        let settings = Settings { timesteps: NonZeroU32::new(2).unwrap(), ..Settings::default() };
        let engine = on_cpu(&bundle(), settings);
        let request = Request { image: image.into(), prompt: "a".into(), image_guidance: 0, seed: 0 };
        // The first request may have its response before the panic.
        let _ = engine.submit(request.clone(), 2, Box::new(Faulty)).await;
        let later = tokio::time::timeout(Duration::from_secs(60), engine.img2img(request)).await;
        let stopped = EngineError::Stopped("a thread of the diffusion engine panicked".to_owned());
        assert_eq!(later.expect("the engine hangs"), Err(stopped));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_image_of_one_color_is_an_image() {
    let settings = Settings { timesteps: NonZeroU32::new(4).unwrap(), ..Settings::default() };
    let engine = on_cpu(&bundle(), settings);
    let image: Arc<[u8]> = encode_png(&image::RgbImage::new(32, 32)).unwrap().into();
    for image_guidance in [50, 100] {
        let request = Request { image: Arc::clone(&image), prompt: "a".into(), image_guidance, seed: 0 };
        let png = engine.img2img(request).await.unwrap().png;
        assert_eq!(png == *image, image_guidance == 100);
    }
}

#[test]
fn a_directory_that_does_not_fit_is_reported() {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&root().join("models/digits"), copy.path());
    let message = |dir: &Path| {
        let error = DiffusionFiles::inspect(dir).unwrap_err()[0].to_string();
        error.replace(&dir.display().to_string(), "DIR")
    };
    let replace = |name: &str, from: &str, to: &str| {
        let path = copy.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    DiffusionFiles::inspect(copy.path()).unwrap();

    replace("unet/config.json", "\"in_channels\": 4", "\"in_channels\": 9");
    let inpainting = message(copy.path());
    assert_eq!(
        inpainting,
        "`DIR/unet/config.json`: `in_channels` is 9; the VAE has 4 latent channels, and the UNet must take the same number"
    );
    replace("unet/config.json", "\"in_channels\": 9", "\"in_channels\": 4");

    replace("scheduler/scheduler_config.json", "DDIMScheduler", "UniPCMultistepScheduler");
    let files = DiffusionFiles::inspect(copy.path()).unwrap();
    let unknown = files.scheduler_name().unwrap_err().to_string();
    assert!(unknown.contains("`_class_name` is `UniPCMultistepScheduler`; supported are `DDIMScheduler`"), "{unknown}");
    files.scheduler(Some(SchedulerName::Ddim), 10).unwrap();
    replace("scheduler/scheduler_config.json", "UniPCMultistepScheduler", "DDIMScheduler");

    std::fs::copy(copy.path().join("vae_encoder/model.onnx"), copy.path().join("unet/model.onnx")).unwrap();
    assert_eq!(
        message(copy.path()),
        "`DIR/unet/model.onnx`: input `sample` is float32 [batch, 3, height, width]; \
         expected float32 or float16 [batch, 4, height, width]"
    );

    replace("model_index.json", "StableDiffusionPipeline", "StableDiffusionXLPipeline");
    let xl = message(copy.path());
    assert!(xl.ends_with("no output `hidden_states.0`; it has `last_hidden_state`, `pooler_output`"), "{xl}");
    replace("model_index.json", "StableDiffusionXLPipeline", "FluxPipeline");
    let other = message(copy.path());
    assert!(
        other.starts_with("`DIR/model_index.json`: `_class_name` is `FluxPipeline`; supported are `Stable"),
        "{other}"
    );
}

#[test]
fn the_digest_covers_every_file_that_affects_an_image() {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&root().join("models/digits"), copy.path());
    let digest = || DiffusionFiles::inspect(copy.path()).unwrap().digest().unwrap();
    let original = digest();
    assert_eq!(original, bundle().digest().unwrap(), "the path does not matter");
    for other in ["README.md", "unet/README.md", "unet/openvino_model.bin", "tokenizer/notes.txt"] {
        std::fs::write(copy.path().join(other), "notes").unwrap();
    }
    assert_eq!(digest(), original);
    let path = copy.path().join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"steps_offset\": 1", "\"steps_offset\": 0")).unwrap();
    assert_ne!(digest(), original);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
