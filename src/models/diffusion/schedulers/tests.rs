//! Against diffusers (`tests/fixtures/schedulers`), and against configurations that are refused.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::models::{
    diffusion::{DiffusionError, noise::Purpose},
    model_dir::FileError,
};

#[derive(Deserialize)]
struct Golden {
    latents: Vec<f32>,
    noise: Vec<f32>,
    draws: Vec<Vec<f32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: Value,
    name: Option<String>,
    timesteps: u32,
    run: usize,
    from_noise: bool,
    run_timesteps: Vec<f32>,
    /// The latents at the start, and after every timestep.
    steps: Vec<Vec<f32>>,
    drawn: usize,
}

/// Returns the recorded draws in order.
#[derive(Debug)]
struct Recorded {
    draws: Vec<Vec<f32>>,
    drawn: Arc<AtomicUsize>,
}

impl Normals for Recorded {
    fn draw(&mut self, purpose: Purpose, count: usize) -> Vec<f32> {
        assert_eq!((purpose, count), (Purpose::Timestep, 6));
        self.draws[self.drawn.fetch_add(1, Ordering::Relaxed)].clone()
    }
}

fn config(json: &Value, instead: Option<&str>) -> Result<SchedulerConfig, DiffusionError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json.to_string()).unwrap();
    SchedulerConfig::read(file.path(), instead.map(|name| name.parse().unwrap()), &[])
}

/// Returns the file of a class with one more key.
fn with(class: &str, key: &str, value: Value) -> Value {
    let mut config = json!({"_class_name": class, "skip_prk_steps": true});
    config[key] = value;
    config
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32], what: &str) {
    let largest = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let close = ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= 1e-5 * largest + 1e-5);
    assert!(ours.len() == theirs.len() && close, "{what}: {ours:?} for {theirs:?}");
}

/// Expects equal timesteps. Euler's with Karras' sigmas come from numpy's float32 logarithms, whose last bits depend on
/// the processor.
#[track_caller]
fn assert_timesteps(ours: &[f32], theirs: &[f32], what: &str) {
    let last_bits = |a: &f32, b: &f32| b.fract() != 0.0 && a.to_bits().abs_diff(b.to_bits()) <= 2;
    let same =
        ours == theirs || what.contains("karras") && ours.iter().zip(theirs).all(|(a, b)| a == b || last_bits(a, b));
    assert!(ours.len() == theirs.len() && same, "{what}: {ours:?} for {theirs:?}");
}

#[test]
fn schedules_are_diffusers() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schedulers/schedulers.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.cases.len(), 210);
    for case in &golden.cases {
        let what = format!("{} of {} with {:?} and {}", case.run, case.timesteps, case.name, case.config);
        let scheduler = config(&case.config, case.name.as_deref()).unwrap().build(case.timesteps).unwrap();
        let calls = scheduler.calls(case.run);
        assert_timesteps(calls, &case.run_timesteps, &what);
        let drawn = Arc::new(AtomicUsize::new(0));
        let normals = Box::new(Recorded { draws: golden.draws.clone(), drawn: Arc::clone(&drawn) });
        let latents = (!case.from_noise).then_some(&golden.latents[..]);
        let mut sample = scheduler.start(case.run, latents, &golden.noise, normals);
        let (start, steps) = case.steps.split_first().unwrap();
        assert_close(sample.latents(), start, &format!("start of {what}"));
        let mut input = vec![0.0; golden.latents.len()];
        for (timestep, after) in calls.iter().zip(steps) {
            assert_eq!(sample.timestep().as_ref(), Some(timestep), "{what}");
            sample.model_input(&mut input);
            let prediction: Vec<f32> = input.iter().map(|value| 0.5 * value - 0.1).collect();
            sample.advance(&prediction);
            assert_close(sample.latents(), after, &format!("after {timestep} of {what}"));
        }
        assert_eq!(sample.timestep(), None, "{what}");
        assert_eq!(drawn.load(Ordering::Relaxed), case.drawn, "{what}");
    }
}

#[test]
fn another_scheduler_keeps_the_keys_of_its_class() {
    let mut file = with("DDIMScheduler", "timestep_spacing", json!("trailing"));
    file["use_karras_sigmas"] = json!(true);
    file["thresholding"] = json!(true);
    let calls = |name: &str| config(&file, Some(name)).unwrap().build(8).unwrap().calls(8).to_vec();
    assert_eq!(calls("pndm").len(), 9, "one timestep is evaluated twice");
    assert_eq!(calls("euler_ancestral")[..2], [999.0, 874.0]);
    assert_ne!(calls("euler"), calls("euler_ancestral"), "only one of them has Karras' sigmas");
    assert!(config(&file, None).is_err(), "DDIM has thresholding");
    let unknown = json!({"_class_name": "HeunDiscreteScheduler"});
    assert_eq!(config(&unknown, Some("ddim")).unwrap().name(), SchedulerName::Ddim);
}

#[test]
fn what_python_writes_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}"#;
    std::fs::write(file.path(), text).unwrap();
    assert_eq!(SchedulerConfig::read(file.path(), None, &[]).unwrap().name().to_string(), "dpmpp_2m");
}

fn refusal(json: &Value) -> String {
    let text = config(json, None).unwrap_err().to_string();
    text.split_once("`: ").map_or(text.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn unsupported_values_are_reported() {
    let dpm = "DPMSolverMultistepScheduler";
    for (class, key, value, expected) in [
        ("DDIMScheduler", "thresholding", json!(true), "true; only false is supported"),
        ("DDIMScheduler", "num_train_timesteps", json!(1), "1; 2 to 10000 are supported"),
        ("DDIMScheduler", "trained_betas", json!([0.1]), "of another length; it needs one beta for each timestep"),
        ("DDIMScheduler", "steps_offset", json!(1000), "1000; 0 to 999 are supported"),
        ("DDIMScheduler", "clip_sample_range", json!(-1.5), "-1.5; 0 and more are supported"),
        ("PNDMScheduler", "skip_prk_steps", json!(false), "false; only true is supported"),
        ("EulerDiscreteScheduler", "use_beta_sigmas", json!(true), "true; only false is supported"),
        ("EulerDiscreteScheduler", "timestep_type", json!("continuous"), "`continuous`; only `discrete` is supported"),
        (dpm, "solver_order", json!(3), "3; only 2 is supported"),
        (dpm, "algorithm_type", json!("sde-dpmsolver++"), "`sde-dpmsolver++`; only `dpmsolver++` is supported"),
        (dpm, "lambda_min_clipped", json!(-5.1), "-5.1; only null is supported"),
        ("LCMScheduler", "original_inference_steps", json!(0), "0; 1 to 1000 are supported"),
    ] {
        assert_eq!(refusal(&with(class, key, value)), format!("`{key}` is {expected}"));
    }
    assert_eq!(
        refusal(&json!({"_class_name": "PNDMScheduler"})),
        "`skip_prk_steps` is false by default; only true is supported"
    );
    let broken = config(&with("DDIMScheduler", "prediction_type", json!("sample")), None).unwrap_err();
    assert!(matches!(&broken, DiffusionError::File(FileError::Config { .. })), "{broken}");
    let missing = SchedulerConfig::read(Path::new("/no/such"), None, &[]);
    assert!(matches!(missing, Err(DiffusionError::File(FileError::Io { .. }))));
}

#[test]
fn an_unknown_scheduler_is_rejected_with_the_known_ones() {
    let names = "`ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras`, `lcm`";
    assert_eq!(
        refusal(&json!({"_class_name": "HeunDiscreteScheduler"})),
        format!(
            "`_class_name` is `HeunDiscreteScheduler`; supported are `DDIMScheduler`, `PNDMScheduler`, \
             `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`, `DPMSolverMultistepScheduler`, \
             `LCMScheduler`; `spectrum.scheduler` can replace it with one of {names}"
        )
    );
    assert!(refusal(&json!({})).starts_with("`_class_name` is missing; supported are `DDIMScheduler`, "));
    assert_eq!(
        "heun".parse::<SchedulerName>().unwrap_err().to_string(),
        format!("unknown scheduler `heun`; valid schedulers are {names}")
    );
    assert_eq!("lcm".parse::<SchedulerName>().unwrap().to_string(), "lcm");
}

#[test]
fn too_many_timesteps_are_rejected() {
    for (class, offset, max) in [
        ("DDIMScheduler", 0, 1000),
        // The offset would move the first of 1000 timesteps past the last trained one.
        ("DDIMScheduler", 1, 999),
        ("PNDMScheduler", 0, 1000),
        ("EulerDiscreteScheduler", 0, 1000),
        ("EulerAncestralDiscreteScheduler", 1, 1000),
        // With 1000, two of the 1001 points are the same.
        ("DPMSolverMultistepScheduler", 0, 999),
        ("LCMScheduler", 0, 50),
    ] {
        let config = config(&with(class, "steps_offset", json!(offset)), None).unwrap();
        assert!(config.build(max).is_ok(), "{class}");
        for timesteps in [0, max + 1, u32::MAX] {
            let error = config.build(timesteps).unwrap_err().to_string();
            assert!(error.ends_with(&format!("valid are 1 to {max}")), "{class}: {error}");
        }
    }
}

#[test]
fn betas_without_a_schedule_are_rejected() {
    let refused = |key: &str, value: Value, expected: &str| {
        let error = config(&with("EulerDiscreteScheduler", key, value), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    for beta in [-0.5, 1.5, 1e300] {
        refused("beta_end", json!(beta), "`beta_end` is unusable with the other betas; every timestep must add noise");
    }
    refused("trained_betas", json!(vec![0.0; 1000]), "`trained_betas` is unusable");
    refused("trained_betas", json!(vec![1.0; 1000]), "`trained_betas` is unusable");
    refused("sigma_min", json!(-1.0), "`sigma_min` is -1e0; 0.000001 to 1000000 are supported");
    refused("sigma_max", json!(0.0), "`sigma_max` is 0e0; 0.000001 to 1000000 are supported");
    let error = config(&with("LCMScheduler", "timestep_scaling", json!(0.0)), None).unwrap_err().to_string();
    assert!(error.contains("`timestep_scaling` is 0; 0.001 to 1000000 are supported"), "{error}");
}

/// Trying each of 100,000 numbers of timesteps, with the whole schedule each time, would take minutes.
#[test]
fn no_more_timesteps_are_suggested_than_a_pipeline_may_request() {
    let mut file = with("DDIMScheduler", "num_train_timesteps", json!(10_000));
    file["beta_end"] = json!(0.00085);
    file["steps_offset"] = json!(9_999);
    let error = config(&file, None).unwrap().build(u32::MAX).unwrap_err().to_string();
    assert!(error.ends_with("valid are 1 to 1"), "{error}");
    file["num_train_timesteps"] = json!(10_001);
    let error = config(&file, None).unwrap_err().to_string();
    assert!(error.contains("`num_train_timesteps` is 10001; 2 to 10000 are supported"), "{error}");
}
