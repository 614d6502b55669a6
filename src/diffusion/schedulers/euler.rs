//! Euler's method: diffusers' `EulerDiscreteScheduler`, and Karras et al. 2022 (arXiv 2206.00364), algorithm 2
//! without churn.

use std::sync::Arc;

use super::config::{Prediction, SchedulerConfig, Spacing, to_f32};
use super::{Denoising, Scheduler};

/// A schedule of sigmas.
#[derive(Debug)]
pub(super) struct Euler {
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    timesteps: Vec<f32>,
    /// The sigma of each timestep, and that which its step leads to; the last leads to 0.
    sigmas: Vec<(f32, f32)>,
    prediction: Prediction,
}

impl Euler {
    /// `None` where a timestep lies outside the schedule.
    pub(super) fn new(config: &SchedulerConfig, timesteps: u32) -> Option<Self> {
        let trained: Vec<f64> =
            config.alphas_cumprod().into_iter().map(|alpha| f64::from(((1.0 - alpha) / alpha).sqrt())).collect();
        let timesteps: Vec<f32> = config.spaced(timesteps, Spacing::Linspace).into_iter().map(to_f32).collect();
        let sigmas = timesteps.iter().map(|&timestep| interpolate(&trained, timestep)).collect::<Option<Vec<_>>>()?;
        let next = sigmas.iter().skip(1).copied().chain([0.0]);
        let sigmas = sigmas.iter().copied().zip(next).collect();
        Some(Self { tables: Arc::new(Tables { timesteps, sigmas, prediction: config.prediction() }) })
    }
}

/// The sigma at a timestep that may lie between two trained ones.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and a few thousand at most")]
fn interpolate(trained: &[f64], timestep: f32) -> Option<f32> {
    let below = timestep.floor();
    let part = f64::from(timestep - below);
    let low = *trained.get(below as usize)?;
    let high = if part > 0.0 { *trained.get(below as usize + 1)? } else { low };
    Some(to_f32(low + (high - low) * part))
}

impl Scheduler for Euler {
    #[cfg(test)]
    fn timesteps(&self) -> &[f32] {
        &self.tables.timesteps
    }

    fn start(&self, run: usize, latents: &[f32], noise: &[f32]) -> Box<dyn Denoising> {
        let index = self.tables.timesteps.len().saturating_sub(run);
        let sigma = self.tables.sigmas.get(index).map_or(0.0, |(sigma, _)| *sigma);
        let latents = latents.iter().zip(noise).map(|(latent, noise)| latent + sigma * noise).collect();
        Box::new(Sample { tables: Arc::clone(&self.tables), index, latents })
    }
}

#[derive(Debug)]
struct Sample {
    tables: Arc<Tables>,
    index: usize,
    latents: Vec<f32>,
}

impl Denoising for Sample {
    fn timestep(&self) -> Option<f32> {
        self.tables.timesteps.get(self.index).copied()
    }

    fn model_input(&self, row: &mut [f32]) {
        let sigma = self.tables.sigmas.get(self.index).map_or(0.0, |(sigma, _)| *sigma);
        let scale = (sigma * sigma + 1.0).sqrt();
        for (row, latent) in row.iter_mut().zip(&self.latents) {
            *row = latent / scale;
        }
    }

    fn advance(&mut self, prediction: &[f32]) {
        let Some(&(sigma, next)) = self.tables.sigmas.get(self.index) else { return };
        let spread = sigma * sigma + 1.0;
        for (x, &predicted) in self.latents.iter_mut().zip(prediction) {
            let derivative = match self.tables.prediction {
                Prediction::Epsilon => predicted,
                Prediction::Velocity => {
                    let original = predicted * (-sigma / spread.sqrt()) + *x / spread;
                    (*x - original) / sigma
                }
            };
            *x += derivative * (next - sigma);
        }
        self.index += 1;
    }

    fn latents(&self) -> &[f32] {
        &self.latents
    }
}
