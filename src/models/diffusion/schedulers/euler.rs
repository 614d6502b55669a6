//! Euler's method: diffusers' `EulerDiscreteScheduler`, and Karras et al. 2022 (arXiv 2206.00364), algorithm 2
//! without churn.

use super::{
    super::noise::Normals,
    Scheduler,
    discretized::{Discretized, Method},
    keys::Keys,
    noise_level::{NoiseLevel, Prediction},
    schedule::to_f32,
    sigmas::Sigmas,
    spacing::Rule,
};

#[derive(Debug)]
struct Euler {
    prediction: Prediction,
    initial_sigma: f32,
}

/// Builds the schedule with `count` timesteps.
pub(super) fn with_timesteps(keys: &Keys, count: u32) -> Box<dyn Scheduler> {
    let (timesteps, sigmas) = sigmas(keys, count);
    let method = Euler { prediction: keys.prediction, initial_sigma: initial_sigma(keys, &sigmas) };
    Discretized::boxed(method, count, timesteps, sigmas.pairs().collect())
}

/// Returns the timesteps, as the UNet expects them, and their sigmas.
pub(super) fn sigmas(keys: &Keys, count: u32) -> (Vec<f32>, Sigmas) {
    let spaced = keys.spacing.timesteps(keys.noise.num_train_timesteps, count);
    // diffusers rounds them to float32 before it interpolates.
    let spaced: Vec<f64> = spaced.into_iter().map(|timestep| f64::from(to_f32(timestep))).collect();
    let ends = (spaced.first().copied().unwrap_or_default(), spaced.last().copied().unwrap_or_default());
    let sigmas = Sigmas::new(keys, spaced, ends);
    (sigmas.timesteps.iter().map(|&timestep| to_f32(timestep)).collect(), sigmas)
}

/// Returns the standard deviation of the noise that a sample starts as.
pub(super) fn initial_sigma(keys: &Keys, sigmas: &Sigmas) -> f32 {
    let max = sigmas.sigmas.iter().copied().fold(0.0, f32::max);
    if keys.spacing.rule == Rule::Leading { (max * max + 1.0).sqrt() } else { max }
}

/// Returns the noise level of samples that keep the image unscaled and add noise.
pub(super) fn level(sigma: f32) -> NoiseLevel {
    NoiseLevel { signal: 1.0, noise: sigma }
}

/// Returns the divisor that gives such samples the variance that the UNet was trained with.
pub(super) fn input_divisor(sigma: f32) -> f32 {
    (sigma * sigma + 1.0).sqrt()
}

/// Returns the derivative of such a sample with respect to sigma: the noise that the prediction implies. It is computed
/// from the predicted image, with diffusers' rounding, which matters at sigmas in the thousands.
pub(super) fn derivative(sigma: f32, prediction: Prediction, sample: f32, predicted: f32) -> f32 {
    let original = match prediction {
        Prediction::Epsilon => sample - sigma * predicted,
        Prediction::Velocity => predicted * (-sigma / input_divisor(sigma)) + sample / (sigma * sigma + 1.0),
    };
    (sample - original) / sigma
}

impl Method for Euler {
    type Coefficients = (f32, f32);
    type History = ();

    fn level(&(sigma, _): &Self::Coefficients) -> NoiseLevel {
        level(sigma)
    }

    fn initial_sigma(&self) -> f32 {
        self.initial_sigma
    }

    fn input_divisor(&(sigma, _): &Self::Coefficients) -> f32 {
        input_divisor(sigma)
    }

    fn step(
        &self,
        &(sigma, next): &Self::Coefficients,
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
