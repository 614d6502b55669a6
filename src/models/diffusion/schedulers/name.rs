//! The schedulers that are known, by their names here and their classes in diffusers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::super::DiffusionError;

/// A scheduler that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchedulerName {
    /// Denoising diffusion implicit models with eta 0.
    Ddim,
    /// Pseudo linear multistep.
    Pndm,
    /// Euler's method over sigmas.
    Euler,
    /// Euler's method with fresh noise after every timestep.
    EulerAncestral,
    /// DPM-Solver++ of second order, multistep.
    Dpmpp2m,
    /// The same over the sigmas of Karras et al., whatever the file says.
    Dpmpp2mKarras,
    /// Latent consistency models.
    Lcm,
}

use SchedulerName::{Ddim, Dpmpp2m, Dpmpp2mKarras, Euler, EulerAncestral, Lcm, Pndm};

/// Every scheduler. Of two with one class, the first is what a file with that class means.
const ALL: [SchedulerName; 7] = [Ddim, Pndm, Euler, EulerAncestral, Dpmpp2m, Dpmpp2mKarras, Lcm];

impl SchedulerName {
    /// The name in a pipeline, and the class in diffusers.
    fn texts(self) -> (&'static str, &'static str) {
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

    /// The scheduler of a file's `_class_name`.
    pub(super) fn from_class(class: Option<&str>, path: &Path) -> Result<Self, DiffusionError> {
        let known = ALL.into_iter().find(|name| Some(name.texts().1) == class);
        known.ok_or_else(|| {
            let mut classes = ALL.map(|name| name.texts().1).to_vec();
            classes.dedup();
            DiffusionError::Unsupported {
                path: path.to_owned(),
                key: "_class_name",
                found: class.map_or("missing".to_owned(), |class| format!("`{class}`")),
                allowed: format!(
                    "supported are {}; `spectrum.scheduler` puts one of {} in its place",
                    quoted(&classes),
                    quoted(&ALL.map(|name| name.texts().0))
                ),
            }
        })
    }
}

impl FromStr for SchedulerName {
    type Err = DiffusionError;

    fn from_str(text: &str) -> Result<Self, DiffusionError> {
        let known = ALL.into_iter().find(|name| name.texts().0 == text);
        known.ok_or_else(|| DiffusionError::UnknownScheduler {
            found: text.to_owned(),
            known: quoted(&ALL.map(|name| name.texts().0)),
        })
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.texts().0)
    }
}

/// The words in backticks, for a message.
fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
