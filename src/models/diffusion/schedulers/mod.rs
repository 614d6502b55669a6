//! Schedulers: which timesteps there are, and what a prediction does to a sample.
//!
//! A new one is a file with its [`plan::Method`], a variant of [`SchedulerName`], its keys in `keys.rs` and an arm in
//! [`SchedulerConfig::build`].

mod config;
mod ddim;
mod discretized;
mod dpm_solver;
mod euler;
mod euler_ancestral;
mod keys;
mod lcm;
mod name;
mod noise_level;
mod pndm;
mod schedule;
mod sigmas;
mod spacing;

use std::fmt::Debug;

use super::noise::Normals;

pub(crate) use config::SchedulerConfig;
pub(crate) use name::SchedulerName;

/// A schedule cut into a number of timesteps. Immutable, and shared by all samples.
pub(crate) trait Scheduler: Debug + Send + Sync {
    /// The timesteps of the UNet's calls for a sample that runs the last `run` timesteps of the schedule, first to
    /// last, as the UNet takes them. As many as `run`, but for a scheduler that evaluates a timestep twice (PNDM:
    /// diffusers' img2img slices its n+1 entries, so run+1 calls).
    fn calls(&self, run: usize) -> &[f32];

    /// Sets a sample on its way through the last `run` timesteps. `latents` are those of the source image, scaled, or
    /// `None` where the sample starts from noise alone (then `noise` times diffusers' `init_noise_sigma`, and all
    /// timesteps are run); `noise` has as many standard normals as there are latents. What a stochastic scheduler
    /// draws after that comes from `normals`.
    fn start(
        &self,
        run: usize,
        latents: Option<&[f32]>,
        noise: &[f32],
        normals: Box<dyn Normals>,
    ) -> Box<dyn Denoising>;
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
