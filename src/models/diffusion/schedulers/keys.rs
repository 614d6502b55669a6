//! The keys of `scheduler_config.json`: what each class of diffusers knows, its defaults, and what is supported.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::DiffusionError;
use super::SchedulerName;
use super::noise_level::Prediction;
use super::schedule::NoiseSchedule;
use super::spacing::Spacing;

/// A bound on the tables, which are computed for each length that is tried; models are trained with 1000 timesteps.
const MOST_TIMESTEPS: u32 = 10_000;

/// Which sigma follows the last timestep.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinalSigma {
    /// None: the image is free of noise.
    #[default]
    Zero,
    /// The smallest that was trained.
    SigmaMin,
}

/// The values of a scheduler's keys. What its class does not have is left at a value without meaning.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Keys {
    /// How noise grows over the training timesteps.
    #[serde(flatten)]
    pub(super) noise: NoiseSchedule,
    /// How timesteps are spread.
    #[serde(flatten)]
    pub(super) spacing: Spacing,
    /// What the UNet predicts.
    #[serde(rename = "prediction_type")]
    pub(super) prediction: Prediction,
    /// Whether alpha is 1 after the last timestep, and not that of timestep 0.
    #[serde(default)]
    pub(super) set_alpha_to_one: bool,
    /// Whether the predicted image is clamped.
    #[serde(default)]
    clip_sample: bool,
    /// To which magnitude.
    #[serde(default)]
    clip_sample_range: f32,
    /// Whether sigmas are spread as Karras et al. do.
    #[serde(default)]
    pub(super) use_karras_sigmas: bool,
    /// The least of those, where it is not the schedule's.
    pub(super) sigma_min: Option<f64>,
    /// The greatest of those, where it is not the schedule's.
    pub(super) sigma_max: Option<f64>,
    /// Which sigma follows the last timestep.
    #[serde(default)]
    pub(super) final_sigmas_type: FinalSigma,
    /// Whether a short schedule ends with a step of first order.
    #[serde(default)]
    pub(super) lower_order_final: bool,
    /// Whether every schedule does.
    #[serde(default)]
    pub(super) euler_at_final: bool,
    /// The timesteps that a consistency model was distilled with.
    #[serde(default)]
    pub(super) original_inference_steps: u32,
    /// What timesteps are multiplied with in a consistency model's boundary condition.
    #[serde(default)]
    pub(super) timestep_scaling: f32,
}

impl Keys {
    /// Takes from a file what the scheduler's class has. diffusers ignores all other keys, and so does this.
    ///
    /// # Errors
    /// [`DiffusionError::Unsupported`] or [`DiffusionError::Config`] for a value that cannot be used.
    pub(super) fn read(name: SchedulerName, file: &Map<String, Value>, path: &Path) -> Result<Self, DiffusionError> {
        let mut values = defaults(name);
        for (key, value) in &mut values {
            if let Some(given) = file.get(key) {
                value.clone_from(given);
            }
        }
        let mut keys: Self = serde_json::from_value(Value::Object(values))
            .map_err(|source| DiffusionError::Config { path: path.to_owned(), source })?;
        keys.use_karras_sigmas |= name == SchedulerName::Dpmpp2mKarras;
        match refused(name, file).or_else(|| keys.out_of_range(name)) {
            Some((key, found, allowed)) => {
                Err(DiffusionError::Unsupported { path: path.to_owned(), key, found, allowed })
            }
            None => Ok(keys),
        }
    }

    /// A number that makes no schedule.
    fn out_of_range(&self, name: SchedulerName) -> Option<Refusal> {
        let train = self.noise.num_train_timesteps;
        let (offset, original) = (self.spacing.steps_offset, self.original_inference_steps);
        if !(2..=MOST_TIMESTEPS).contains(&train) {
            return Some(("num_train_timesteps", train.to_string(), format!("2 to {MOST_TIMESTEPS} are supported")));
        }
        if self.noise.trained_betas.as_ref().is_some_and(|betas| betas.len() as u64 != u64::from(train)) {
            return Some(("trained_betas", "of another length".into(), "there is one for each timestep".into()));
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

    /// A number from which a schedule would follow that has no number in some place.
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
        let allowed = "every timestep must add noise and leave some of the image: betas above 0 and below 1";
        Some((key, "unusable with the other betas".into(), allowed.into()))
    }

    /// The bound on a predicted image.
    pub(super) fn clip(&self) -> Clip {
        Clip(if self.clip_sample { self.clip_sample_range } else { f32::INFINITY })
    }
}

/// A bound on a predicted image, not negative.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clip(f32);

impl Clip {
    /// The value within the bound.
    pub(super) fn apply(self, value: f32) -> f32 {
        value.clamp(-self.0, self.0)
    }
}

/// A key with its value and what is allowed.
type Refusal = (&'static str, String, String);

/// A value that would change images and is not supported.
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

/// A value in a message.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`"))
}

/// The entries of an object.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(entries) = value { entries } else { Map::new() }
}

/// The keys that [`Keys`] takes, with the defaults of a class in diffusers.
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
            // No keys of the class, but diffusers reads them where a file has them.
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

/// The keys that change images and of which only some values are supported, with the default of the class.
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
            // What other classes' files say, diffusers takes for midpoint.
            ("solver_type", json!("midpoint"), ["midpoint", "logrho", "bh1", "bh2"].map(Value::from).to_vec()),
            ("lambda_min_clipped", Value::Null, vec![Value::Null]),
            // Those of DDPM's that leave the prediction as it is.
            ("variance_type", Value::Null, vec![Value::Null, json!("fixed_small"), json!("fixed_large")]),
        ],
    }
}
