//! Latent consistency models: diffusers' `LCMScheduler`, and Luo et al. 2023 (arXiv 2310.04378), algorithm 3.

use super::super::noise::{Normals, Purpose};
use super::Scheduler;
use super::ddim::alphas;
use super::discretized::{Method, Plan};
use super::keys::{Clip, Keys};
use super::noise_level::{Level, Prediction};
use super::spacing::float;

/// The deviation of images that the boundary condition assumes.
const SIGMA_DATA: f32 = 0.5;

/// What all timesteps have in common.
#[derive(Debug)]
struct Lcm {
    prediction: Prediction,
    clip: Clip,
}

/// A step.
#[derive(Debug)]
struct Point {
    from: Level,
    /// How much of the sample is kept (c_skip), and how much of the predicted image is taken (c_out).
    skip: f32,
    out: f32,
    /// Where fresh noise brings the image, but after the last timestep.
    to: Option<Level>,
}

/// `None` where the model was distilled with fewer timesteps.
pub(super) fn cut(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    if count > keys.original_inference_steps {
        return None;
    }
    let alpha = alphas(keys);
    let timesteps = timesteps(keys, count);
    let levels = timesteps.iter().map(|&timestep| alpha(timestep).map(Level::of_alpha));
    let levels = levels.collect::<Option<Vec<_>>>()?;
    let timesteps: Vec<f32> = timesteps.into_iter().map(float).collect();
    let next = levels.iter().skip(1).copied().map(Some).chain([None]);
    let points = levels.iter().zip(next).zip(&timesteps).map(|((&from, to), timestep)| {
        let scaled = timestep * keys.timestep_scaling;
        let sum = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        Point { from, skip: SIGMA_DATA * SIGMA_DATA / sum, out: scaled / sum.sqrt(), to }
    });
    let points = points.collect();
    let method = Lcm { prediction: keys.prediction, clip: keys.clip() };
    Some(Plan::boxed(method, count, timesteps, points))
}

/// Timesteps evenly among those of distillation, which are evenly among those of training. Spacing is not asked for.
fn timesteps(keys: &Keys, count: u32) -> Vec<i64> {
    let original = keys.original_inference_steps;
    let stride = i64::from(keys.noise.num_train_timesteps / original);
    let skipped = f64::from(original) / f64::from(count);
    (0..count).map(|index| (i64::from(original) - floor(f64::from(index) * skipped)) * stride - 1).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "a few thousand timesteps")]
fn floor(index: f64) -> i64 {
    index.floor() as i64
}

impl Method for Lcm {
    type Point = Point;
    type Memory = ();

    fn level(point: &Point) -> Level {
        point.from
    }

    fn step(
        &self,
        &Point { from, skip, out, to }: &Point,
        latents: &mut [f32],
        prediction: &[f32],
        (): &mut (),
        normals: &mut dyn Normals,
    ) {
        for (x, &predicted) in latents.iter_mut().zip(prediction) {
            let (original, _) = from.split(self.prediction, *x, predicted);
            *x = out * self.clip.apply(original) + skip * *x;
        }
        if let Some(to) = to {
            let fresh = normals.draw(Purpose::Timestep, latents.len());
            for (x, fresh) in latents.iter_mut().zip(fresh) {
                *x = to.mix(*x, fresh);
            }
        }
    }
}
