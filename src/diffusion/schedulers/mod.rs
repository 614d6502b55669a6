//! Schedulers: which timesteps there are, and what a prediction does to a sample.
//!
//! A new one is a file with its [`Scheduler`], a line in [`SchedulerName`] and an arm in [`SchedulerConfig::build`].

mod config;
mod ddim;
mod euler;

use std::fmt::Debug;

pub(crate) use config::{SchedulerConfig, SchedulerName};

/// A schedule cut into a number of timesteps. Immutable, and shared by all samples.
pub(crate) trait Scheduler: Debug + Send + Sync {
    /// All timesteps, first to last, as the UNet takes them.
    #[cfg(test)]
    fn timesteps(&self) -> &[f32];

    /// Sets a sample on its way through the last `run` timesteps: `latents` are those of the source image,
    /// scaled, and `noise` has as many standard normals.
    fn start(&self, run: usize, latents: &[f32], noise: &[f32]) -> Box<dyn Denoising>;
}

/// One sample on its way. It has its own place in the schedule, so that samples of different strengths share a
/// batch.
pub(crate) trait Denoising: Debug + Send {
    /// The timestep of the next UNet call, or `None` when there is none left.
    fn timestep(&self) -> Option<f32>;

    /// Writes what the UNet takes at that timestep.
    fn model_input(&self, row: &mut [f32]);

    /// Takes the UNet's prediction (after classifier-free guidance) and moves to the next timestep.
    fn advance(&mut self, prediction: &[f32]);

    /// The latents as they are now.
    fn latents(&self) -> &[f32];
}

#[cfg(test)]
mod tests;
