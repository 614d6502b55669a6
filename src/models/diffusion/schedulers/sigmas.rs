//! The sigmas of a schedule's timesteps: interpolated, or spaced as in Karras et al. 2022 (arXiv 2206.00364), equation 5.

use super::{
    keys::{FinalSigma, Keys},
    schedule::to_f32,
    spacing::linspace,
};

/// Timesteps and their sigmas.
#[derive(Debug)]
pub(super) struct Sigmas {
    /// The timesteps, which may lie between those of training.
    pub(super) timesteps: Vec<f64>,
    /// One sigma for each timestep, and one after the last.
    pub(super) sigmas: Vec<f32>,
}

impl Sigmas {
    /// Returns the sigmas of these timesteps. If the file asks for Karras' sigmas, spaces as many of them from that of
    /// timestep `ends.0` to that of `ends.1`, and returns their timesteps.
    pub(super) fn new(keys: &Keys, timesteps: Vec<f64>, ends: (f64, f64)) -> Self {
        let trained = keys.noise.sigmas();
        let at = |timestep: f64| interpolate(&trained, timestep);
        let (timesteps, mut sigmas): (Vec<_>, Vec<_>) = if keys.use_karras_sigmas {
            let (max, min) = (keys.sigma_max.unwrap_or(at(ends.0)), keys.sigma_min.unwrap_or(at(ends.1)));
            let logs: Vec<f32> = trained.iter().map(|sigma| sigma.ln()).collect();
            let count = u32::try_from(timesteps.len()).unwrap_or(u32::MAX);
            karras(max, min, count).map(|sigma| (timestep(&logs, sigma), to_f32(sigma))).unzip()
        } else {
            timesteps.into_iter().map(|timestep| (timestep, to_f32(at(timestep)))).unzip()
        };
        sigmas.push(match keys.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => trained.first().copied().unwrap_or_default(),
        });
        Self { timesteps, sigmas }
    }

    /// Returns the sigma of each timestep with the sigma that its step leads to.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (f32, f32)> {
        self.sigmas.iter().copied().zip(self.sigmas.iter().skip(1).copied())
    }
}

/// Returns the sigma at a timestep, which may lie between two trained ones or, as with numpy's `interp`, outside.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand timesteps, from 0")]
fn interpolate(trained: &[f32], timestep: f64) -> f64 {
    let below = timestep.floor();
    let sigma = |index: usize| trained.get(index).or(trained.last()).copied().map_or(0.0, f64::from);
    let (low, high) = (sigma(below as usize), sigma(below as usize + 1));
    low + (high - low) * (timestep - below)
}

/// Returns sigmas from the largest to the smallest, with the paper's rho of 7.
fn karras(max: f64, min: f64, count: u32) -> impl Iterator<Item = f64> {
    let (max, min) = (max.powf(1.0 / 7.0), min.powf(1.0 / 7.0));
    linspace(1.0, count).into_iter().map(move |part| (max + part * (min - max)).powf(7.0))
}

/// Returns the timestep of a sigma, interpolated between trained ones by the logarithms of their sigmas.
#[expect(clippy::cast_precision_loss, reason = "a few thousand timesteps")]
fn timestep(logs: &[f32], sigma: f64) -> f64 {
    let log = sigma.max(1e-10).ln();
    let below = logs.iter().rposition(|&trained| log >= f64::from(trained)).unwrap_or(0);
    let below = below.min(logs.len().saturating_sub(2));
    let (Some(&low), Some(&high)) = (logs.get(below), logs.get(below + 1)) else { return 0.0 };
    let part = ((f64::from(low) - log) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - part) * below as f64 + part * (below + 1) as f64
}
