//! Compares with diffusers' pipelines number by number, from the seed alone (`tests/fixtures/pipelines`): SD 1.x, SD 2.x
//! with the graphs of an old export, SDXL base, and the SDXL refiner, written by `tests/oracle/make.py`; three unchanged
//! exports of `optimum-cli`, written by `tests/oracle/make_optimum.py`; and the first four with the graphs of
//! `tools/export_models.py`, written by `tests/oracle/make_opset23.py`.

use serde_json::{Map, Value, json};

use super::*;
use crate::models::tokenizer::Tokenizer;

const PIPELINES: [&str; 7] =
    ["sd1", "sd2", "sdxl_base", "sdxl_refiner", "optimum_sd1", "optimum_sdxl_base", "optimum_sdxl_refiner"];

/// Returns a copy of each recorded pipeline with its name, and one with graphs by opset 23 where there are such.
fn copies() -> impl Iterator<Item = (&'static str, TempDir)> {
    PIPELINES.into_iter().flat_map(|name| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&folder(name), copy.path());
        let newer = (!name.starts_with("optimum")).then(|| (name, by_opset_23(name, &folder(name))));
        [Some((name, copy)), newer].into_iter().flatten()
    })
}

#[derive(Deserialize)]
struct Oracle {
    sources: BTreeMap<String, Source>,
    texts: Vec<Text>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Source {
    png: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: BTreeMap<String, Vec<i64>>,
    prompt_embeds: String,
    pooled_prompt_embeds: Option<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    scheduler: Map<String, Value>,
    num_inference_steps: u32,
    strength: String,
    guidance_scale: f64,
    prompt: String,
    negative_prompt: Option<String>,
    source: String,
    seed: i64,
    z0: String,
    initial: String,
    timesteps: Vec<f32>,
    after_step: Vec<String>,
    image: Image,
    time_ids: Option<Vec<f32>>,
    negative_time_ids: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct Image {
    rgb: String,
}

impl Case {
    fn image_guidance(&self) -> u8 {
        100 - (self.strength.parse::<f64>().unwrap() * 100.0).round() as u8
    }

    fn run(&self) -> u32 {
        timesteps_run(self.num_inference_steps, self.image_guidance())
    }

    fn scheduler(&self) -> Box<dyn Scheduler> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json!(self.scheduler).to_string()).unwrap();
        SchedulerConfig::read(file.path(), None, &[]).unwrap().build(self.num_inference_steps).unwrap()
    }

    fn guidance(&self, encoders: &mut Encoders) -> Option<Guidance> {
        let negative = encoders.encode_negative(self.negative_prompt.as_deref()).unwrap();
        (self.guidance_scale > 1.0).then_some(Guidance { scale: self.guidance_scale as f32, negative })
    }
}

fn folder(pipeline: &str) -> PathBuf {
    root().join("tests/fixtures/pipelines").join(pipeline)
}

fn oracle(pipeline: &str) -> Oracle {
    // Python writes an infinity into a scheduler's configuration, which is not JSON.
    let text = std::fs::read_to_string(folder(pipeline).join("golden.json")).unwrap();
    serde_json::from_str(&text.replace("-Infinity", "null")).unwrap()
}

fn floats(text: &str) -> Vec<f32> {
    base64(text).chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn prompts_are_encoded_as_in_diffusers() {
    for (pipeline, copy) in copies() {
        let (mut encoders, ..) = load(&DiffusionFiles::inspect(copy.path()).unwrap());
        for text in oracle(pipeline).texts {
            let what = format!("{pipeline}: {:?}", text.text);
            for (tokenizer, ids) in &text.ids {
                let tokenizer = Tokenizer::from_dir(&folder(pipeline).join(tokenizer), Path::new("none")).unwrap();
                assert_eq!(&tokenizer.encode(&text.text).unwrap().ids, ids, "{what}");
            }
            let prompt = encoders.encode_prompt(&text.text).unwrap();
            assert_close(&prompt.hidden, &floats(&text.prompt_embeds), &what);
            let pooled = text.pooled_prompt_embeds.as_deref().map(floats);
            assert_close(&prompt.pooled, &pooled.unwrap_or_default(), &what);
        }
    }
}

#[test]
fn every_timestep_and_image_equals_diffusers_from_the_seed_alone() {
    for (pipeline, copy) in copies() {
        let files = DiffusionFiles::inspect(copy.path()).unwrap();
        let (oracle, mut models) = (oracle(pipeline), load(&files));
        assert!(oracle.cases.len() >= if pipeline.starts_with("optimum") { 2 } else { 12 }, "{pipeline}");
        for case in &oracle.cases {
            follow(&files, &mut models, case, &oracle.sources[&case.source], pipeline);
        }
    }
}

/// Follows diffusers through a case.
fn follow(
    files: &DiffusionFiles,
    (encoders, denoiser, decoder): &mut (Encoders, Denoiser, Decoder),
    case: &Case,
    source: &Source,
    pipeline: &str,
) {
    let what = format!("{pipeline}: {}", case.name);
    let (scheduler, guidance, run) = (case.scheduler(), case.guidance(encoders), case.run() as usize);
    assert_eq!(scheduler.calls(run).len(), case.timesteps.len(), "{what}");
    for (ours, theirs) in scheduler.calls(run).iter().zip(&case.timesteps) {
        // Identical, unless they come from numpy's logarithm in single precision, whose last bits depend on the
        // processor.
        let ulps = if case.name.contains("karras") && theirs.fract() != 0.0 { 2 } else { 0 };
        assert!(ours.to_bits().abs_diff(theirs.to_bits()) <= ulps, "{what}: {ours} for {theirs}");
    }
    let source = decode(&base64(&source.png), &Limits::default()).unwrap();
    let posterior = encoders.encode_image(prepare(&source, files.sides).unwrap()).unwrap();
    let mut normals = NoiseGenerator::Torch.start(case.seed);
    let z0 = latents(&files.scaling, &posterior, &mut *normals);
    assert_close(&z0, &floats(&case.z0), &format!("latents of {what}"));
    let ids = |conditional| files.time_ids.of(posterior.size, files.sides.pixels_per_latent, conditional);
    assert_eq!(ids(true), case.time_ids.clone().unwrap_or_default(), "{what}");
    assert_eq!(ids(false), case.negative_time_ids.clone().unwrap_or_default(), "{what}");

    let noise = normals.draw(Purpose::Noise, z0.len());
    let denoising = scheduler.start(run, Some(&z0), &noise, normals);
    assert_close(denoising.latents(), &floats(&case.initial), &format!("start of {what}"));
    let prompt = encoders.encode_prompt(&case.prompt).unwrap();
    let mut batch = Batch::new(denoiser, posterior.size, 2, guidance.as_ref()).unwrap();
    batch.admit(Sample { denoising, prompt, ticket: () });
    let mut done = Vec::new();
    for (step, theirs) in case.after_step.iter().enumerate() {
        done = batch.step(denoiser).unwrap();
        let ours = done.first().map(|sample| sample.denoising.latents().to_vec());
        let ours = ours.unwrap_or_else(|| batch.latents(0).unwrap().to_vec());
        assert_close(&ours, &floats(theirs), &format!("{what}, step {step}"));
    }
    let planes = decoder.decode(done.pop().unwrap().denoising.latents(), posterior.size).unwrap();
    let image = from_chw(&planes.values, planes.width, planes.height).unwrap();
    assert_same_image(image.as_raw(), &base64(&case.image.rgb), &what);
}

#[tokio::test]
async fn the_engine_generates_the_image_of_a_seed() {
    for (pipeline, copy) in copies() {
        generate_images(copy.path(), pipeline).await;
    }
}

#[tokio::test]
async fn a_unet_in_half_precision_generates_the_same_images() {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&folder("sd1"), copy.path());
    copy_dir(&folder("sd1").join("unet_f16"), &copy.path().join("unet"));
    generate_images(copy.path(), "sd1").await;
}

/// Generates the images of a pipeline's oracle, with a directory into which schedulers can be written.
async fn generate_images(dir: &Path, pipeline: &str) {
    let oracle = oracle(pipeline);
    for case in oracle.cases.iter().filter(|case| case.strength == "0.5") {
        let scheduler = dir.join("scheduler/scheduler_config.json");
        std::fs::write(scheduler, json!(case.scheduler).to_string()).unwrap();
        let settings = Settings {
            timesteps: NonZeroU32::new(case.num_inference_steps).unwrap(),
            guidance_scale: case.guidance_scale,
            negative_prompt: case.negative_prompt.clone(),
            noise: NoiseGenerator::Torch,
            batch_size: Some(2),
            ..Settings::default()
        };
        let files = DiffusionFiles::inspect(dir).unwrap();
        let engine = on_cpu(&files, settings);
        let request = Request {
            image: base64(&oracle.sources[&case.source].png).into(),
            prompt: case.prompt.clone().into(),
            image_guidance: case.image_guidance(),
            seed: case.seed,
        };
        let generated = engine.img2img(request).await.unwrap();
        let rows = if case.guidance_scale > 1.0 { 2 } else { 1 };
        assert_eq!((generated.timesteps, generated.unet_evaluations), (case.run(), rows * case.timesteps.len() as u64));
        let image = decode(&generated.png, &Limits::default()).unwrap();
        assert_same_image(image.as_raw(), &base64(&case.image.rgb), &case.name);
    }
}

#[test]
fn what_a_directory_lacks_is_reported() {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&folder("sdxl_refiner"), copy.path());
    let message = || {
        let error = DiffusionFiles::inspect(copy.path()).unwrap_err()[0].to_string();
        error.replace(&copy.path().display().to_string(), "DIR")
    };
    let index = copy.path().join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("\"requires_aesthetics_score\": true", "\"requires_aesthetics_score\": false"))
        .unwrap();
    let ids = message();
    assert!(ids.starts_with("`DIR/unet/model.onnx`: input `time_ids` is float32 ["), "{ids}");
    assert!(ids.ends_with("expected float32 or float16 [batch, 6]"), "{ids}");
    std::fs::write(&index, text).unwrap();
    std::fs::copy(folder("sdxl_base").join("text_encoder/model.onnx"), copy.path().join("text_encoder_2/model.onnx"))
        .unwrap();
    let text = message();
    assert!(text.contains("text_encoder_2/model.onnx`: "), "{text}");
}
