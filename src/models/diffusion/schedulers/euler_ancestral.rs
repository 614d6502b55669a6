//! Euler's method with fresh noise: diffusers' `EulerAncestralDiscreteScheduler`, after `sample_euler_ancestral` of
//! k-diffusion. Each step goes further down than to the next sigma, and noise brings it back up.

use super::super::noise::{Normals, Purpose};
use super::Scheduler;
use super::discretized::{Method, Plan};
use super::euler::{derivative, initial_sigma, input_divisor, level, sigmas};
use super::keys::Keys;
use super::noise_level::{Level, Prediction};

/// What all timesteps have in common.
#[derive(Debug)]
struct EulerAncestral {
    prediction: Prediction,
    initial_sigma: f32,
}

/// A step.
#[derive(Debug)]
struct Point {
    sigma: f32,
    /// Where it leads before noise is added.
    down: f32,
    /// The deviation of that noise.
    up: f32,
}

/// Cuts the schedule into timesteps.
pub(super) fn cut(keys: &Keys, count: u32) -> Box<dyn Scheduler> {
    let (timesteps, sigmas) = sigmas(keys, count);
    let points = sigmas.pairs().map(|(sigma, next)| {
        let (square, next) = (sigma * sigma, next * next);
        let up = (next * (square - next) / square).sqrt();
        Point { sigma, down: (next - up * up).sqrt(), up }
    });
    let method = EulerAncestral { prediction: keys.prediction, initial_sigma: initial_sigma(keys, &sigmas) };
    Plan::boxed(method, count, timesteps, points.collect())
}

impl Method for EulerAncestral {
    type Point = Point;
    type Memory = ();

    fn level(point: &Point) -> Level {
        level(point.sigma)
    }

    fn initial_sigma(&self) -> f32 {
        self.initial_sigma
    }

    fn input_divisor(point: &Point) -> f32 {
        input_divisor(point.sigma)
    }

    fn step(
        &self,
        &Point { sigma, down, up }: &Point,
        latents: &mut [f32],
        prediction: &[f32],
        (): &mut (),
        normals: &mut dyn Normals,
    ) {
        // diffusers draws also after the last timestep, where `up` is 0.
        let fresh = normals.draw(Purpose::Timestep, latents.len());
        for ((x, &predicted), fresh) in latents.iter_mut().zip(prediction).zip(fresh) {
            *x += derivative(sigma, self.prediction, *x, predicted) * (down - sigma);
            *x += up * fresh;
        }
    }
}
