//! DDIM with eta 0: diffusers' `DDIMScheduler`, and Song et al. 2020 (arXiv 2010.02502), equation 12.

use std::sync::Arc;

use super::config::{Prediction, SchedulerConfig, Spacing, to_f32};
use super::{Denoising, Scheduler};

/// A schedule of DDIM. `alphas` has one more entry than there are timesteps: that after the last.
#[derive(Debug)]
pub(super) struct Ddim {
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    timesteps: Vec<f32>,
    /// The cumulative alpha of each timestep, and that which its step leads to.
    alphas: Vec<(f32, f32)>,
    prediction: Prediction,
}

impl Ddim {
    /// `None` where a timestep lies outside the schedule.
    pub(super) fn new(config: &SchedulerConfig, timesteps: u32) -> Option<Self> {
        let cumulative = config.alphas_cumprod();
        let after_last = if config.set_alpha_to_one() { 1.0 } else { *cumulative.first()? };
        let stride = i64::from(config.train_timesteps() / timesteps);
        let spaced = config.spaced(timesteps, Spacing::Leading);
        let whole: Vec<i64> = spaced.into_iter().map(round).collect();
        let at = |timestep: i64| usize::try_from(timestep).ok().and_then(|index| cumulative.get(index).copied());
        let alphas = whole.iter().map(|&timestep| {
            // Training timesteps are whole, so the previous one is a whole stride away, whatever the spacing.
            let previous = timestep - stride;
            Some((at(timestep)?, if previous < 0 { after_last } else { at(previous)? }))
        });
        let alphas = alphas.collect::<Option<Vec<_>>>()?;
        let timesteps = whole.iter().map(|&timestep| float(timestep)).collect();
        Some(Self { tables: Arc::new(Tables { timesteps, alphas, prediction: config.prediction() }) })
    }
}

impl Scheduler for Ddim {
    #[cfg(test)]
    fn timesteps(&self) -> &[f32] {
        &self.tables.timesteps
    }

    fn start(&self, run: usize, latents: &[f32], noise: &[f32]) -> Box<dyn Denoising> {
        let index = self.tables.timesteps.len().saturating_sub(run);
        let alpha = self.tables.alphas.get(index).map_or(1.0, |(alpha, _)| *alpha);
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let latents = latents.iter().zip(noise).map(|(latent, noise)| signal * latent + spread * noise).collect();
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
        row.copy_from_slice(&self.latents);
    }

    fn advance(&mut self, prediction: &[f32]) {
        let Some(&(alpha, previous)) = self.tables.alphas.get(self.index) else { return };
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (to_signal, to_spread) = (previous.sqrt(), (1.0 - previous).sqrt());
        for (x, &predicted) in self.latents.iter_mut().zip(prediction) {
            let (original, epsilon) = match self.tables.prediction {
                Prediction::Epsilon => ((*x - spread * predicted) / signal, predicted),
                Prediction::Velocity => (signal * *x - spread * predicted, signal * predicted + spread * *x),
            };
            *x = to_signal * original + to_spread * epsilon;
        }
        self.index += 1;
    }

    fn latents(&self) -> &[f32] {
        &self.latents
    }
}

/// numpy rounds halves to even.
#[expect(clippy::cast_possible_truncation, reason = "timesteps are a few thousand at most")]
fn round(timestep: f64) -> i64 {
    timestep.round_ties_even() as i64
}

#[expect(clippy::cast_precision_loss, reason = "timesteps are a few thousand at most")]
fn float(timestep: i64) -> f32 {
    to_f32(timestep as f64)
}
