//! `scheduler_config.json`, and the scheduler that it makes.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::DiffusionError;
use super::keys::Keys;
use super::{Scheduler, SchedulerName, ddim, dpm_solver, euler, euler_ancestral, lcm, pndm};
use crate::limited_read;

/// Most timesteps that a message offers: a pipeline cannot ask for more.
const MOST_TRIED: u32 = 1000;

/// The file as it is written.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "_class_name")]
    class: Option<String>,
    #[serde(flatten)]
    keys: Map<String, Value>,
}

/// A scheduler's configuration, read and understood.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerConfig {
    name: SchedulerName,
    keys: Keys,
}

impl SchedulerConfig {
    /// Reads `scheduler_config.json`. Another scheduler than the file's takes from the file the keys that its class
    /// has, as diffusers' `from_config` does. `corrections` are values that the pipeline puts in the file's place.
    ///
    /// # Errors
    /// [`DiffusionError::Unsupported`] lists the known classes, or names a key whose value would change
    /// the images and is not supported.
    pub(crate) fn read(
        path: &Path,
        instead: Option<SchedulerName>,
        corrections: &[(&str, Value)],
    ) -> Result<Self, DiffusionError> {
        let text = limited_read::read_text(path, limited_read::CONFIGURATION)
            .map_err(|source| DiffusionError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path, instead, corrections)
    }

    /// Understands the file's text; `path` names it in messages.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        instead: Option<SchedulerName>,
        corrections: &[(&str, Value)],
    ) -> Result<Self, DiffusionError> {
        // Python writes the default of `lambda_min_clipped` as what no JSON has.
        let mut file: File = serde_json::from_str(&text.replace("-Infinity", "null"))
            .map_err(|source| DiffusionError::Config { path: path.to_owned(), source })?;
        file.keys.extend(corrections.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let name = match instead {
            Some(name) => name,
            None => SchedulerName::from_class(file.class.as_deref(), path)?,
        };
        Ok(Self { name, keys: Keys::read(name, &file.keys, path)? })
    }

    /// Which scheduler this makes.
    pub(crate) fn name(&self) -> SchedulerName {
        self.name
    }

    /// What the UNet predicts, in diffusers' word.
    pub(crate) fn prediction_type(&self) -> &'static str {
        self.keys.prediction.as_str()
    }

    /// How timesteps are spread, in diffusers' word.
    pub(crate) fn timestep_spacing(&self) -> &'static str {
        self.keys.spacing.rule.as_str()
    }

    /// Cuts the schedule into timesteps.
    ///
    /// # Errors
    /// [`DiffusionError::Timesteps`] for none, or for more than the schedule has.
    pub(crate) fn build(&self, timesteps: u32) -> Result<Box<dyn Scheduler>, DiffusionError> {
        self.cut(timesteps).ok_or_else(|| {
            // More than failed is no advice, and each try computes the whole schedule.
            let below = timesteps.checked_sub(1).unwrap_or(u32::MAX);
            let most = MOST_TRIED.min(self.keys.noise.num_train_timesteps).min(below);
            let possible = (1..=most).rev().find(|&fewer| self.cut(fewer).is_some());
            DiffusionError::Timesteps { found: timesteps, most: possible.unwrap_or(0) }
        })
    }

    /// `None` where the schedule does not have that many.
    fn cut(&self, timesteps: u32) -> Option<Box<dyn Scheduler>> {
        if !(1..=self.keys.noise.num_train_timesteps).contains(&timesteps) {
            return None;
        }
        match self.name {
            SchedulerName::Ddim => ddim::cut(&self.keys, timesteps),
            SchedulerName::Pndm => pndm::cut(&self.keys, timesteps),
            SchedulerName::Euler => Some(euler::cut(&self.keys, timesteps)),
            SchedulerName::EulerAncestral => Some(euler_ancestral::cut(&self.keys, timesteps)),
            SchedulerName::Dpmpp2m | SchedulerName::Dpmpp2mKarras => dpm_solver::cut(&self.keys, timesteps),
            SchedulerName::Lcm => lcm::cut(&self.keys, timesteps),
        }
    }
}
