//! The known schedulers, with their names here and their classes in diffusers.

use std::{fmt, path::Path, str::FromStr};

use super::super::DiffusionError;
use crate::models::model_dir::FileError;

/// A known scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchedulerName {
    /// Denoising diffusion implicit models with eta 0.
    Ddim,
    /// Pseudo linear multistep.
    Pndm,
    /// Euler's method over sigmas.
    Euler,
    /// Euler's method with fresh noise after every timestep.
    EulerAncestral,
    /// Multistep DPM-Solver++ of second order.
    Dpmpp2m,
    /// The same with the sigmas of Karras et al., whatever the file says.
    Dpmpp2mKarras,
    /// Latent consistency models.
    Lcm,
}

use SchedulerName::{Ddim, Dpmpp2m, Dpmpp2mKarras, Euler, EulerAncestral, Lcm, Pndm};

/// Every scheduler. If two share a class, a file with that class means the first.
const ALL: [SchedulerName; 7] = [Ddim, Pndm, Euler, EulerAncestral, Dpmpp2m, Dpmpp2mKarras, Lcm];

impl SchedulerName {
    /// Returns the name in pipelines, and the class in diffusers.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Ddim => ("ddim", "DDIMScheduler"),
            Pndm => ("pndm", "PNDMScheduler"),
            Euler => ("euler", "EulerDiscreteScheduler"),
            EulerAncestral => ("euler_ancestral", "EulerAncestralDiscreteScheduler"),
            Dpmpp2m => ("dpmpp_2m", "DPMSolverMultistepScheduler"),
            Dpmpp2mKarras => ("dpmpp_2m_karras", "DPMSolverMultistepScheduler"),
            Lcm => ("lcm", "LCMScheduler"),
        }
    }

    /// Returns the scheduler of a file's `_class_name`.
    pub(super) fn from_class(class: Option<&str>, path: &Path) -> Result<Self, FileError> {
        let known = ALL.into_iter().find(|name| Some(name.names().1) == class);
        known.ok_or_else(|| {
            let mut classes = ALL.map(|name| name.names().1).to_vec();
            classes.dedup();
            let found = class.map_or("missing".to_owned(), |class| format!("`{class}`"));
            let allowed = format!(
                "supported are {}; `spectrum.scheduler` can replace it with one of {}",
                quoted(&classes),
                quoted(&ALL.map(|name| name.names().0))
            );
            FileError::unsupported(path, "_class_name", found, allowed)
        })
    }
}

impl FromStr for SchedulerName {
    type Err = DiffusionError;

    fn from_str(text: &str) -> Result<Self, DiffusionError> {
        let known = ALL.into_iter().find(|name| name.names().0 == text);
        known.ok_or_else(|| DiffusionError::UnknownScheduler {
            found: text.to_owned(),
            known: quoted(&ALL.map(|name| name.names().0)),
        })
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names().0)
    }
}

/// Joins words in backticks.
fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
