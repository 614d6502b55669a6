//! Against diffusers (`tests/fixtures/schedulers`), and against configurations that are refused.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::diffusion::DiffusionError;

#[derive(Deserialize)]
struct Golden {
    latents: Vec<f32>,
    noise: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: Value,
    timesteps: u32,
    run: usize,
    run_timesteps: Vec<f32>,
    initial: Vec<f32>,
    #[serde(rename = "final")]
    last: Vec<f32>,
}

fn config(json: &Value, instead: Option<&str>) -> Result<SchedulerConfig, DiffusionError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json.to_string()).unwrap();
    SchedulerConfig::read(file.path(), instead.map(|name| name.parse().unwrap()))
}

fn ddim(key: &str, value: Value) -> Value {
    let mut config = json!({"_class_name": "DDIMScheduler", "clip_sample": false});
    config[key] = value;
    config
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32], what: &str) {
    let largest = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(ours.len() == theirs.len() && worst <= 1e-5 * largest + 1e-5, "{what}: {ours:?} for {theirs:?}");
}

#[test]
fn schedules_are_diffusers() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schedulers/schedulers.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.cases.len(), 36);
    for case in &golden.cases {
        let what = format!("{} of {} with {}", case.run, case.timesteps, case.config);
        let scheduler = config(&case.config, None).unwrap().build(case.timesteps).unwrap();
        let skipped = case.timesteps as usize - case.run;
        assert_eq!(scheduler.timesteps()[skipped..], case.run_timesteps, "{what}");
        let mut sample = scheduler.start(case.run, &golden.latents, &golden.noise);
        assert_close(sample.latents(), &case.initial, &format!("start of {what}"));
        let mut input = vec![0.0; golden.latents.len()];
        for timestep in &case.run_timesteps {
            assert_eq!(sample.timestep().as_ref(), Some(timestep), "{what}");
            sample.model_input(&mut input);
            let prediction: Vec<f32> = input.iter().map(|value| 0.5 * value - 0.1).collect();
            sample.advance(&prediction);
        }
        assert_eq!(sample.timestep(), None, "{what}");
        assert_close(sample.latents(), &case.last, &format!("end of {what}"));
    }
}

#[test]
fn another_scheduler_keeps_the_rest_of_the_file() {
    let file = ddim("timestep_spacing", json!("trailing"));
    let (own, other) = (config(&file, None).unwrap(), config(&file, Some("euler")).unwrap());
    assert_eq!((own.name(), other.name()), (SchedulerName::Ddim, SchedulerName::Euler));
    assert_eq!(own.build(8).unwrap().timesteps(), other.build(8).unwrap().timesteps());
    let unknown = json!({"_class_name": "PNDMScheduler", "clip_sample": false});
    assert!(config(&unknown, Some("ddim")).is_ok(), "a name from outside does without the file's class");
}

#[test]
fn what_is_not_supported_is_said() {
    let message = |json: &Value| {
        let text = config(json, None).unwrap_err().to_string();
        text.split_once("`: ").map_or(text.clone(), |(_, rest)| rest.to_owned())
    };
    assert_eq!(
        message(&ddim("clip_sample", json!(true))),
        "`clip_sample` is true, which is also its default; only false is supported"
    );
    assert_eq!(message(&ddim("thresholding", json!(true))), "`thresholding` is true; only false is supported");
    assert_eq!(
        message(&ddim("num_train_timesteps", json!(1))),
        "`num_train_timesteps` is 1; 2 to 100000 are supported"
    );
    assert_eq!(
        message(&ddim("trained_betas", json!([0.1]))),
        "`trained_betas` is of another length; there is one for each timestep"
    );
    assert_eq!(
        message(&json!({"_class_name": "PNDMScheduler"})),
        "`_class_name` is `PNDMScheduler`; supported are `DDIMScheduler` and `EulerDiscreteScheduler`; \
         `spectrum.scheduler` puts `ddim` or `euler` in its place"
    );
    assert_eq!(
        "heun".parse::<SchedulerName>().unwrap_err().to_string(),
        "unknown scheduler `heun`; valid schedulers are `ddim`, `euler`"
    );
    let broken = config(&ddim("prediction_type", json!("sample")), None).unwrap_err();
    assert!(matches!(&broken, DiffusionError::Config { .. }), "{broken}");
    assert!(matches!(SchedulerConfig::read(Path::new("/no/such"), None), Err(DiffusionError::Read { .. })));
}

#[test]
fn too_many_timesteps_are_refused_and_not_run_past_the_end() {
    let plain = config(&ddim("steps_offset", json!(0)), None).unwrap();
    assert!(plain.build(1000).is_ok());
    for timesteps in [0, 1001] {
        let error = plain.build(timesteps).unwrap_err().to_string();
        assert!(error.ends_with("valid are 1 to 1000"), "{error}");
    }
    // With an offset, as many timesteps as were trained would reach one past the last.
    assert!(config(&ddim("steps_offset", json!(1)), None).unwrap().build(1000).is_err());
}
