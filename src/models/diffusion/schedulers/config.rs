//! Reads `scheduler_config.json` and builds its scheduler.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    super::DiffusionError, Scheduler, SchedulerName, ddim, dpm_solver, euler, euler_ancestral, keys::Keys, lcm, pndm,
};
use crate::{
    limited_read::{self, from_python},
    models::model_dir::{FileError, read},
};

/// The largest number of timesteps that a message suggests. A pipeline cannot request more.
const MAX_SUGGESTED: u32 = 1000;

#[derive(Deserialize)]
struct File {
    #[serde(rename = "_class_name")]
    class: Option<String>,
    #[serde(flatten)]
    keys: Map<String, Value>,
}

/// A scheduler's configuration that was read and checked.
#[derive(Debug, Clone)]
pub(crate) struct SchedulerConfig {
    name: SchedulerName,
    keys: Keys,
}

impl SchedulerConfig {
    /// Reads `scheduler_config.json`. `instead` replaces the file's scheduler and takes the keys of its class from the
    /// file, as diffusers' `from_config` does. `corrections` override values of the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, if its class is unknown, or if a key that affects images has an
    /// unsupported value.
    pub(crate) fn read(
        path: &Path,
        instead: Option<SchedulerName>,
        corrections: &[(&str, Value)],
    ) -> Result<Self, DiffusionError> {
        let text = read(path, limited_read::CONFIGURATION)?;
        Ok(Self::parse(&text, path, instead, corrections)?)
    }

    /// Parses the file's text; `path` names it in messages.
    pub(crate) fn parse(
        text: &[u8],
        path: &Path,
        instead: Option<SchedulerName>,
        corrections: &[(&str, Value)],
    ) -> Result<Self, FileError> {
        // Python writes the default of `lambda_min_clipped` as `-Infinity`.
        let mut file: File = serde_json::from_slice(&from_python(text)).map_err(FileError::config(path))?;
        file.keys.extend(corrections.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let name = match instead {
            Some(name) => name,
            None => SchedulerName::from_class(file.class.as_deref(), path)?,
        };
        Ok(Self { name, keys: Keys::read(name, &file.keys, path)? })
    }

    /// Returns the scheduler's name.
    pub(crate) fn name(&self) -> SchedulerName {
        self.name
    }

    /// Returns what the UNet predicts, as diffusers calls it.
    pub(crate) fn prediction_type(&self) -> &'static str {
        self.keys.prediction.as_str()
    }

    /// Returns how timesteps are spaced, as diffusers calls it.
    pub(crate) fn timestep_spacing(&self) -> &'static str {
        self.keys.spacing.rule.as_str()
    }

    /// Builds the schedule with this many timesteps.
    ///
    /// # Errors
    /// Returns [`DiffusionError::Timesteps`] if there are none or more than the schedule has.
    pub(crate) fn build(&self, timesteps: u32) -> Result<Box<dyn Scheduler>, DiffusionError> {
        self.with_timesteps(timesteps).ok_or_else(|| {
            // Only fewer timesteps are worth suggesting, and each try computes the whole schedule.
            let below = timesteps.checked_sub(1).unwrap_or(u32::MAX);
            let max = MAX_SUGGESTED.min(self.keys.noise.num_train_timesteps).min(below);
            let possible = (1..=max).rev().find(|&fewer| self.with_timesteps(fewer).is_some());
            DiffusionError::Timesteps { found: timesteps, max: possible.unwrap_or(0) }
        })
    }

    /// Returns `None` if the schedule does not have that many.
    fn with_timesteps(&self, timesteps: u32) -> Option<Box<dyn Scheduler>> {
        if !(1..=self.keys.noise.num_train_timesteps).contains(&timesteps) {
            return None;
        }
        match self.name {
            SchedulerName::Ddim => ddim::with_timesteps(&self.keys, timesteps),
            SchedulerName::Pndm => pndm::with_timesteps(&self.keys, timesteps),
            SchedulerName::Euler => Some(euler::with_timesteps(&self.keys, timesteps)),
            SchedulerName::EulerAncestral => Some(euler_ancestral::with_timesteps(&self.keys, timesteps)),
            SchedulerName::Dpmpp2m | SchedulerName::Dpmpp2mKarras => dpm_solver::with_timesteps(&self.keys, timesteps),
            SchedulerName::Lcm => lcm::with_timesteps(&self.keys, timesteps),
        }
    }
}
