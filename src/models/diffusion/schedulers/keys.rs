//! The keys of `scheduler_config.json`: those that each class of diffusers reads, their defaults, and what is supported.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{SchedulerName, noise_level::Prediction, schedule::NoiseSchedule, spacing::Spacing};
use crate::models::model_dir::FileError;

/// A limit on the tables, which are computed for each number of timesteps that is tried. Models are trained with 1000.
const MAX_TRAIN_TIMESTEPS: u32 = 10_000;

/// The sigma after the last timestep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinalSigma {
    /// Zero: the image is free of noise.
    #[default]
    Zero,
    /// The smallest sigma of training.
    SigmaMin,
}

/// The values of a scheduler's keys. Keys that its class does not have keep a placeholder.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Keys {
    #[serde(flatten)]
    pub(super) noise: NoiseSchedule,
    #[serde(flatten)]
    pub(super) spacing: Spacing,
    #[serde(rename = "prediction_type")]
    pub(super) prediction: Prediction,
    /// Whether alpha is 1 after the last timestep, instead of that of timestep 0.
    #[serde(default)]
    pub(super) set_alpha_to_one: bool,
    /// Whether the predicted image is clamped to `clip_sample_range`.
    #[serde(default)]
    clip_sample: bool,
    #[serde(default)]
    clip_sample_range: f32,
    /// Whether sigmas are spaced as in Karras et al.
    #[serde(default)]
    pub(super) use_karras_sigmas: bool,
    /// Overrides the smallest of those.
    pub(super) sigma_min: Option<f64>,
    /// Overrides the largest of those.
    pub(super) sigma_max: Option<f64>,
    #[serde(default)]
    pub(super) final_sigmas_type: FinalSigma,
    /// Whether a short schedule ends with a first-order step.
    #[serde(default)]
    pub(super) lower_order_final: bool,
    /// Whether every schedule ends with a first-order step.
    #[serde(default)]
    pub(super) euler_at_final: bool,
    /// The number of timesteps that a consistency model was distilled with.
    #[serde(default)]
    pub(super) original_inference_steps: u32,
    /// The factor of timesteps in a consistency model's boundary condition.
    #[serde(default)]
    pub(super) timestep_scaling: f32,
}

impl Keys {
    /// Takes the keys that the scheduler's class has from a file. Like diffusers, ignores all others.
    ///
    /// # Errors
    /// Returns an error if a value has the wrong type or is not supported.
    pub(super) fn read(name: SchedulerName, file: &Map<String, Value>, path: &Path) -> Result<Self, FileError> {
        let mut values = defaults(name);
        for (key, value) in &mut values {
            if let Some(given) = file.get(key) {
                value.clone_from(given);
            }
        }
        let mut keys: Self = serde_json::from_value(Value::Object(values)).map_err(FileError::config(path))?;
        keys.use_karras_sigmas |= name == SchedulerName::Dpmpp2mKarras;
        match refused(name, file).or_else(|| keys.out_of_range(name)) {
            Some((key, found, allowed)) => Err(FileError::unsupported(path, key, found, allowed)),
            None => Ok(keys),
        }
    }

    /// Returns the first number that cannot make a schedule.
    fn out_of_range(&self, name: SchedulerName) -> Option<Refusal> {
        let train = self.noise.num_train_timesteps;
        let (offset, original) = (self.spacing.steps_offset, self.original_inference_steps);
        if !(2..=MAX_TRAIN_TIMESTEPS).contains(&train) {
            let allowed = format!("2 to {MAX_TRAIN_TIMESTEPS} are supported");
            return Some(("num_train_timesteps", train.to_string(), allowed));
        }
        if self.noise.trained_betas.as_ref().is_some_and(|betas| betas.len() as u64 != u64::from(train)) {
            let allowed = "it needs one beta for each timestep";
            return Some(("trained_betas", "of another length".into(), allowed.into()));
        }
        if offset >= train {
            return Some(("steps_offset", offset.to_string(), format!("0 to {} are supported", train - 1)));
        }
        if self.clip_sample_range.is_sign_negative() {
            let found = self.clip_sample_range.to_string();
            return Some(("clip_sample_range", found, "0 and more are supported".into()));
        }
        if name == SchedulerName::Lcm && !(1..=train).contains(&original) {
            let allowed = format!("1 to {train} are supported");
            return Some(("original_inference_steps", original.to_string(), allowed));
        }
        self.no_schedule(name)
    }

    /// Returns the first number from which values that are not finite would follow.
    fn no_schedule(&self, name: SchedulerName) -> Option<Refusal> {
        let scaling = self.timestep_scaling;
        if name == SchedulerName::Lcm && !(1e-3..=1e6).contains(&scaling) {
            return Some(("timestep_scaling", scaling.to_string(), "0.001 to 1000000 are supported".into()));
        }
        for (key, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma.filter(|sigma| !(1e-6..=1e6).contains(sigma)) {
                return Some((key, format!("{sigma:e}"), "0.000001 to 1000000 are supported".into()));
            }
        }
        if self.noise.sigmas().iter().all(|sigma| sigma.is_finite() && *sigma > 0.0) {
            return None;
        }
        let key = if self.noise.trained_betas.is_some() { "trained_betas" } else { "beta_end" };
        let allowed = "every timestep must add noise and keep some of the image, with betas above 0 and below 1";
        Some((key, "unusable with the other betas".into(), allowed.into()))
    }

    /// Returns the bound on a predicted image.
    pub(super) fn clip(&self) -> Clip {
        Clip(if self.clip_sample { self.clip_sample_range } else { f32::INFINITY })
    }
}

/// A non-negative bound on a predicted image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clip(f32);

impl Clip {
    /// Clamps a value.
    pub(super) fn apply(self, value: f32) -> f32 {
        value.clamp(-self.0, self.0)
    }
}

/// A key with its value and what is allowed.
type Refusal = (&'static str, String, String);

/// Returns the first value that would change images and is not supported.
fn refused(name: SchedulerName, file: &Map<String, Value>) -> Option<Refusal> {
    fixed(name).into_iter().find_map(|(key, default, allowed)| {
        let given = file.get(key);
        if allowed.contains(given.unwrap_or(&default)) {
            return None;
        }
        let found = given.map_or_else(|| format!("{} by default", shown(&default)), shown);
        let allowed = allowed.iter().map(shown).collect::<Vec<_>>().join(" or ");
        Some((key, found, format!("only {allowed} is supported")))
    })
}

/// Formats a value for a message.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`"))
}

/// Returns the entries of an object.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(entries) = value { entries } else { Map::new() }
}

/// Returns the keys that [`Keys`] has, with the defaults of the class in diffusers.
fn defaults(name: SchedulerName) -> Map<String, Value> {
    let mut keys = object(json!({
        "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
        "trained_betas": null, "prediction_type": "epsilon", "timestep_spacing": "linspace", "steps_offset": 0,
    }));
    let own = object(match name {
        SchedulerName::Ddim => json!({
            "timestep_spacing": "leading", "rescale_betas_zero_snr": false, "set_alpha_to_one": true,
            "clip_sample": true, "clip_sample_range": 1.0,
        }),
        SchedulerName::Pndm => json!({"timestep_spacing": "leading", "set_alpha_to_one": false}),
        SchedulerName::Euler => json!({
            "rescale_betas_zero_snr": false, "use_karras_sigmas": false, "final_sigmas_type": "zero",
            "sigma_min": null, "sigma_max": null,
        }),
        SchedulerName::EulerAncestral => json!({"rescale_betas_zero_snr": false}),
        SchedulerName::Dpmpp2m | SchedulerName::Dpmpp2mKarras => json!({
            "rescale_betas_zero_snr": false, "use_karras_sigmas": false, "final_sigmas_type": "zero",
            "lower_order_final": true, "euler_at_final": false,
            // The class does not declare these, but diffusers reads them if a file has them.
            "sigma_min": null, "sigma_max": null,
        }),
        SchedulerName::Lcm => json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "rescale_betas_zero_snr": false, "clip_sample": false, "clip_sample_range": 1.0,
            "original_inference_steps": 50, "timestep_scaling": 10.0,
        }),
    });
    keys.extend(own);
    keys
}

/// Returns the keys that change images and support only some values, with the class's defaults.
fn fixed(name: SchedulerName) -> Vec<(&'static str, Value, Vec<Value>)> {
    let off = |key| (key, json!(false), vec![json!(false)]);
    let only = |key, value: &str| (key, json!(value), vec![json!(value)]);
    match name {
        SchedulerName::Ddim | SchedulerName::Lcm => vec![off("thresholding")],
        SchedulerName::Pndm => vec![("skip_prk_steps", json!(false), vec![json!(true)])],
        SchedulerName::Euler => vec![
            off("use_exponential_sigmas"),
            off("use_beta_sigmas"),
            only("interpolation_type", "linear"),
            only("timestep_type", "discrete"),
        ],
        SchedulerName::EulerAncestral => vec![],
        SchedulerName::Dpmpp2m | SchedulerName::Dpmpp2mKarras => vec![
            off("thresholding"),
            off("use_exponential_sigmas"),
            off("use_beta_sigmas"),
            off("use_lu_lambdas"),
            off("use_flow_sigmas"),
            ("solver_order", json!(2), vec![json!(2)]),
            only("algorithm_type", "dpmsolver++"),
            // diffusers treats the values of other classes' files as midpoint.
            ("solver_type", json!("midpoint"), ["midpoint", "logrho", "bh1", "bh2"].map(Value::from).to_vec()),
            ("lambda_min_clipped", Value::Null, vec![Value::Null]),
            // Values for DDPM that leave the prediction unchanged.
            ("variance_type", Value::Null, vec![Value::Null, json!("fixed_small"), json!("fixed_large")]),
        ],
    }
}
