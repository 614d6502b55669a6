//! Euler's method: diffusers' `EulerDiscreteScheduler`, and Karras et al. 2022 (arXiv 2206.00364), algorithm 2
//! without churn.

use super::super::noise::Normals;
use super::Scheduler;
use super::discretized::{Method, Plan};
use super::keys::Keys;
use super::noise_level::{Level, Prediction};
use super::schedule::to_f32;
use super::sigmas::Sigmas;
use super::spacing::Rule;

/// What all timesteps have in common.
#[derive(Debug)]
struct Euler {
    prediction: Prediction,
    initial_sigma: f32,
}

/// Cuts the schedule into timesteps.
pub(super) fn cut(keys: &Keys, count: u32) -> Box<dyn Scheduler> {
    let (timesteps, sigmas) = sigmas(keys, count);
    let method = Euler { prediction: keys.prediction, initial_sigma: initial_sigma(keys, &sigmas) };
    Plan::boxed(method, count, timesteps, sigmas.pairs().collect())
}

/// The timesteps as the UNet takes them, and their sigmas.
pub(super) fn sigmas(keys: &Keys, count: u32) -> (Vec<f32>, Sigmas) {
    let spaced = keys.spacing.timesteps(keys.noise.num_train_timesteps, count);
    // diffusers keeps them in float32, and interpolates at those.
    let spaced: Vec<f64> = spaced.into_iter().map(|timestep| f64::from(to_f32(timestep))).collect();
    let ends = (spaced.first().copied().unwrap_or_default(), spaced.last().copied().unwrap_or_default());
    let sigmas = Sigmas::new(keys, spaced, ends);
    (sigmas.timesteps.iter().map(|&timestep| to_f32(timestep)).collect(), sigmas)
}

/// The deviation of the noise that a sample is at first.
pub(super) fn initial_sigma(keys: &Keys, sigmas: &Sigmas) -> f32 {
    let most = sigmas.sigmas.iter().copied().fold(0.0, f32::max);
    if keys.spacing.rule == Rule::Leading { (most * most + 1.0).sqrt() } else { most }
}

/// The level of samples that keep the image as it is and add noise.
pub(super) fn level(sigma: f32) -> Level {
    Level { signal: 1.0, spread: sigma }
}

/// What such samples are divided by to have the variance that the UNet was trained with.
pub(super) fn input_divisor(sigma: f32) -> f32 {
    (sigma * sigma + 1.0).sqrt()
}

/// The change of such a sample with sigma, which is the noise that a prediction sees in it. By way of the image, as
/// diffusers rounds: at sigmas of thousands, that shows.
pub(super) fn derivative(sigma: f32, prediction: Prediction, sample: f32, predicted: f32) -> f32 {
    let original = match prediction {
        Prediction::Epsilon => sample - sigma * predicted,
        Prediction::Velocity => predicted * (-sigma / input_divisor(sigma)) + sample / (sigma * sigma + 1.0),
    };
    (sample - original) / sigma
}

impl Method for Euler {
    type Point = (f32, f32);
    type Memory = ();

    fn level(&(sigma, _): &Self::Point) -> Level {
        level(sigma)
    }

    fn initial_sigma(&self) -> f32 {
        self.initial_sigma
    }

    fn input_divisor(&(sigma, _): &Self::Point) -> f32 {
        input_divisor(sigma)
    }

    fn step(
        &self,
        &(sigma, next): &Self::Point,
        latents: &mut [f32],
        prediction: &[f32],
        (): &mut (),
        _: &mut dyn Normals,
    ) {
        for (x, &predicted) in latents.iter_mut().zip(prediction) {
            *x += derivative(sigma, self.prediction, *x, predicted) * (next - sigma);
        }
    }
}
