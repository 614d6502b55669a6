//! Euler's method with fresh noise: diffusers' `EulerAncestralDiscreteScheduler`, after `sample_euler_ancestral` of
//! k-diffusion. Each step goes down past the next sigma, and fresh noise brings it back up.

use super::{
    super::noise::{Normals, Purpose},
    Scheduler,
    discretized::{Discretized, Method},
    euler::{derivative, initial_sigma, input_divisor, level, sigmas},
    keys::Keys,
    noise_level::{NoiseLevel, Prediction},
};

#[derive(Debug)]
struct EulerAncestral {
    prediction: Prediction,
    initial_sigma: f32,
}

#[derive(Debug)]
struct Coefficients {
    sigma: f32,
    /// The sigma that the step reaches before noise is added.
    down: f32,
    /// The standard deviation of that noise.
    up: f32,
}

/// Builds the schedule with `count` timesteps.
pub(super) fn with_timesteps(keys: &Keys, count: u32) -> Box<dyn Scheduler> {
    let (timesteps, sigmas) = sigmas(keys, count);
    let coefficients = sigmas.pairs().map(|(sigma, next)| {
        let (square, next) = (sigma * sigma, next * next);
        let up = (next * (square - next) / square).sqrt();
        Coefficients { sigma, down: (next - up * up).sqrt(), up }
    });
    let method = EulerAncestral { prediction: keys.prediction, initial_sigma: initial_sigma(keys, &sigmas) };
    Discretized::boxed(method, count, timesteps, coefficients.collect())
}

impl Method for EulerAncestral {
    type Coefficients = Coefficients;
    type History = ();

    fn level(at: &Coefficients) -> NoiseLevel {
        level(at.sigma)
    }

    fn initial_sigma(&self) -> f32 {
        self.initial_sigma
    }

    fn input_divisor(at: &Coefficients) -> f32 {
        input_divisor(at.sigma)
    }

    fn step(
        &self,
        &Coefficients { sigma, down, up }: &Coefficients,
        latents: &mut [f32],
        prediction: &[f32],
        (): &mut (),
        normals: &mut dyn Normals,
    ) {
        // diffusers also draws after the last timestep, where `up` is 0.
        let fresh = normals.draw(Purpose::Timestep, latents.len());
        for ((x, &predicted), fresh) in latents.iter_mut().zip(prediction).zip(fresh) {
            *x += derivative(sigma, self.prediction, *x, predicted) * (down - sigma);
            *x += up * fresh;
        }
    }
}
