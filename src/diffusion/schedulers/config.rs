//! `scheduler_config.json`, and the schedule of noise that it describes.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::super::DiffusionError;
use super::Scheduler;
use super::ddim::Ddim;
use super::euler::Euler;

/// A scheduler that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchedulerName {
    /// Denoising diffusion implicit models with eta 0 (diffusers' `DDIMScheduler`).
    Ddim,
    /// Euler's method over sigmas (diffusers' `EulerDiscreteScheduler`).
    Euler,
}

/// Every scheduler with its name in a pipeline and its class in diffusers.
const SCHEDULERS: [(SchedulerName, &str, &str); 2] =
    [(SchedulerName::Ddim, "ddim", "DDIMScheduler"), (SchedulerName::Euler, "euler", "EulerDiscreteScheduler")];

impl SchedulerName {
    fn from_class(class: &str, path: &Path) -> Result<Self, DiffusionError> {
        let known = SCHEDULERS.iter().find(|(_, _, other)| *other == class);
        known.map(|(name, _, _)| *name).ok_or_else(|| DiffusionError::Unsupported {
            path: path.to_owned(),
            key: "_class_name",
            found: format!("`{class}`"),
            allowed: format!(
                "supported are {}; `spectrum.scheduler` puts {} in its place",
                SCHEDULERS.map(|(_, _, class)| format!("`{class}`")).join(" and "),
                SCHEDULERS.map(|(_, name, _)| format!("`{name}`")).join(" or ")
            ),
        })
    }
}

impl FromStr for SchedulerName {
    type Err = DiffusionError;

    fn from_str(text: &str) -> Result<Self, DiffusionError> {
        let known = SCHEDULERS.iter().find(|(_, name, _)| *name == text);
        known.map(|(name, _, _)| *name).ok_or_else(|| DiffusionError::UnknownScheduler {
            found: text.to_owned(),
            known: SCHEDULERS.map(|(_, name, _)| format!("`{name}`")).join(", "),
        })
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ddim => "ddim",
            Self::Euler => "euler",
        })
    }
}

/// A bound on the tables; models are trained with 1000 timesteps.
const MOST_TIMESTEPS: u32 = 100_000;

/// How noise grows over the training timesteps.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// How a number of timesteps is spread over the training timesteps.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise.
    #[serde(rename = "epsilon")]
    Epsilon,
    /// The velocity.
    #[serde(rename = "v_prediction")]
    Velocity,
}

/// The keys of the file that matter. Where a key is missing, diffusers' default for the scheduler's class holds.
#[derive(Clone, Debug, Deserialize)]
struct Keys {
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default = "one_thousand")]
    num_train_timesteps: u32,
    #[serde(default = "beta_start")]
    beta_start: f64,
    #[serde(default = "beta_end")]
    beta_end: f64,
    #[serde(default = "linear")]
    beta_schedule: BetaSchedule,
    trained_betas: Option<Vec<f32>>,
    #[serde(default = "epsilon")]
    prediction_type: Prediction,
    timestep_spacing: Option<Spacing>,
    #[serde(default)]
    steps_offset: u32,
    set_alpha_to_one: Option<bool>,
    clip_sample: Option<bool>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn one_thousand() -> u32 {
    1000
}
fn beta_start() -> f64 {
    0.0001
}
fn beta_end() -> f64 {
    0.02
}
fn linear() -> BetaSchedule {
    BetaSchedule::Linear
}
fn epsilon() -> Prediction {
    Prediction::Epsilon
}

/// A scheduler's configuration, read and understood.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerConfig {
    path: PathBuf,
    keys: Keys,
    name: SchedulerName,
}

impl SchedulerConfig {
    /// Reads `scheduler_config.json`. Another scheduler than the file's keeps the rest of the file, as diffusers'
    /// `from_config` does.
    ///
    /// # Errors
    /// [`DiffusionError::Unsupported`] lists the known classes, or names a key whose value would change
    /// the pictures and is not supported.
    pub(crate) fn read(path: &Path, instead: Option<SchedulerName>) -> Result<Self, DiffusionError> {
        let text = fs::read(path).map_err(|source| DiffusionError::Read { path: path.to_owned(), source })?;
        let keys: Keys =
            serde_json::from_slice(&text).map_err(|source| DiffusionError::Config { path: path.to_owned(), source })?;
        let name = match instead {
            Some(name) => name,
            None => SchedulerName::from_class(&keys.class, path)?,
        };
        let config = Self { path: path.to_owned(), keys, name };
        config.check()?;
        Ok(config)
    }

    /// Which scheduler this makes.
    pub(crate) fn name(&self) -> SchedulerName {
        self.name
    }

    /// Cuts the schedule into timesteps.
    ///
    /// # Errors
    /// [`DiffusionError::Timesteps`] for none, or for more than the schedule has.
    pub(crate) fn build(&self, timesteps: u32) -> Result<Box<dyn Scheduler>, DiffusionError> {
        let most = self.keys.num_train_timesteps;
        let refused = DiffusionError::Timesteps { found: timesteps, most };
        if timesteps == 0 || timesteps > most {
            return Err(refused);
        }
        let scheduler: Option<Box<dyn Scheduler>> = match self.name {
            SchedulerName::Ddim => Ddim::new(self, timesteps).map(|scheduler| Box::new(scheduler) as _),
            SchedulerName::Euler => Euler::new(self, timesteps).map(|scheduler| Box::new(scheduler) as _),
        };
        scheduler.ok_or(refused)
    }

    /// Refuses what would silently change pictures.
    fn check(&self) -> Result<(), DiffusionError> {
        let unsupported = |key, found: String, allowed: &str| {
            Err(DiffusionError::Unsupported { path: self.path.clone(), key, found, allowed: allowed.to_owned() })
        };
        if self.name == SchedulerName::Ddim && self.keys.clip_sample.unwrap_or(true) {
            return unsupported("clip_sample", "true, which is also its default".to_owned(), "only false is supported");
        }
        let train = self.keys.num_train_timesteps;
        if !(2..=MOST_TIMESTEPS).contains(&train) {
            return unsupported("num_train_timesteps", train.to_string(), "2 to 100000 are supported");
        }
        if self.keys.trained_betas.as_ref().is_some_and(|betas| betas.len() as u64 != u64::from(train)) {
            return unsupported("trained_betas", "of another length".to_owned(), "there is one for each timestep");
        }
        let on = |key: &str| self.keys.rest.get(key).and_then(serde_json::Value::as_bool).unwrap_or(false);
        const OFF: [&str; 5] = [
            "rescale_betas_zero_snr",
            "thresholding",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
        ];
        match OFF.into_iter().find(|key| on(key)) {
            Some(key) => unsupported(key, "true".to_owned(), "only false is supported"),
            None => Ok(()),
        }
    }

    pub(super) fn train_timesteps(&self) -> u32 {
        self.keys.num_train_timesteps
    }

    pub(super) fn prediction(&self) -> Prediction {
        self.keys.prediction_type
    }

    /// Whether alpha is 1 after the last timestep, and not that of timestep 0.
    pub(super) fn set_alpha_to_one(&self) -> bool {
        self.keys.set_alpha_to_one.unwrap_or(true)
    }

    /// Cumulative products of 1 - beta, in f32 as torch keeps them; one for each training timestep.
    pub(super) fn alphas_cumprod(&self) -> Vec<f32> {
        let mut product = 1.0_f64;
        let alpha = |beta: f32| {
            // torch accumulates a float32 product in float64.
            product *= f64::from(1.0 - beta);
            to_f32(product)
        };
        self.betas().into_iter().map(alpha).collect()
    }

    fn betas(&self) -> Vec<f32> {
        if let Some(betas) = &self.keys.trained_betas {
            return betas.clone();
        }
        let (start, end, count) = (self.keys.beta_start, self.keys.beta_end, self.keys.num_train_timesteps);
        match self.keys.beta_schedule {
            BetaSchedule::Linear => linspace(to_f32(start), to_f32(end), count),
            BetaSchedule::ScaledLinear => {
                let roots = linspace(to_f32(start.sqrt()), to_f32(end.sqrt()), count);
                roots.into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredCosine => {
                let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |step: u32| f64::from(step) / f64::from(count);
                (0..count).map(|step| to_f32((1.0 - bar(at(step + 1)) / bar(at(step))).min(0.999))).collect()
            }
        }
    }

    /// The timesteps, first to last, before they are rounded: whole numbers but for `linspace`. `default` holds
    /// where the file names no spacing.
    pub(super) fn spaced(&self, timesteps: u32, default: Spacing) -> Vec<f64> {
        let train = self.keys.num_train_timesteps;
        let count = f64::from(timesteps);
        match self.keys.timestep_spacing.unwrap_or(default) {
            Spacing::Linspace => {
                let step = if timesteps > 1 { f64::from(train - 1) / (count - 1.0) } else { 0.0 };
                (0..timesteps).rev().map(|index| f64::from(index) * step).collect()
            }
            Spacing::Leading => {
                let step = train / timesteps;
                let offset = f64::from(self.keys.steps_offset);
                (0..timesteps).rev().map(|index| f64::from(index * step) + offset).collect()
            }
            Spacing::Trailing => {
                let step = f64::from(train) / count;
                let at = |index: u32| (f64::from(train) - f64::from(index) * step).round_ties_even() - 1.0;
                (0..timesteps).map(at).collect()
            }
        }
    }
}

/// As torch's `linspace`: from both ends towards the middle.
#[expect(clippy::cast_precision_loss, reason = "a few thousand timesteps")]
fn linspace(start: f32, end: f32, count: u32) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    let value = |index: u32| {
        if index < count / 2 { start + step * index as f32 } else { end - step * (count - 1 - index) as f32 }
    };
    (0..count).map(value).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest, as torch does")]
pub(super) fn to_f32(value: f64) -> f32 {
    value as f32
}
