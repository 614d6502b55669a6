//! Schedulers: which timesteps run, and how a prediction changes a sample.
//!
//! A new scheduler is a file that implements [`discretized::Method`], a variant of [`SchedulerName`], its keys in
//! `keys.rs`, and an arm in `SchedulerConfig::with_timesteps`.

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

/// A schedule with a fixed number of timesteps. Immutable, and shared by all samples.
pub(crate) trait Scheduler: Debug + Send + Sync {
    /// Returns the timesteps of the UNet's calls, in order, for a sample that runs the last `run` timesteps of the
    /// schedule. There are `run` of them, or more if the scheduler evaluates a timestep twice (PNDM: diffusers' img2img
    /// slices its n+1 entries, so run+1 calls).
    fn calls(&self, run: usize) -> &[f32];

    /// Starts a sample that runs the last `run` timesteps.
    ///
    /// `latents` are the scaled latents of the source image. If `None`, the sample starts from noise alone: `noise` times
    /// diffusers' `init_noise_sigma`, and all timesteps run. `noise` has one standard normal for each latent. Stochastic
    /// schedulers draw from `normals` afterwards.
    fn start(
        &self,
        run: usize,
        latents: Option<&[f32]>,
        noise: &[f32],
        normals: Box<dyn Normals>,
    ) -> Box<dyn Denoising>;
}

/// One sample during denoising. It has its own position in the schedule, so that samples of different strengths can
/// share a batch.
pub(crate) trait Denoising: Debug + Send {
    /// Returns the timestep of the next UNet call, or `None` if the sample is finished.
    fn timestep(&self) -> Option<f32>;

    /// Writes the UNet's input for that timestep.
    fn model_input(&self, row: &mut [f32]);

    /// Applies the UNet's prediction (after classifier-free guidance) and moves to the next timestep.
    fn advance(&mut self, prediction: &[f32]);

    /// Returns the current latents.
    fn latents(&self) -> &[f32];
}

#[cfg(test)]
mod tests;
