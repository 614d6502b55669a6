//! Pseudo linear multistep: diffusers' `PNDMScheduler` with `skip_prk_steps`, and Liu et al. 2022 (arXiv 2202.09778),
//! equations 9 and 12.

use super::super::noise::Normals;
use super::Scheduler;
use super::ddim::alphas;
use super::discretized::{Method, Plan};
use super::keys::Keys;
use super::noise_level::{Level, Prediction};
use super::spacing::float;

/// Weights of the predictions, newest first, by how many there are.
const WEIGHTS: [&[f32]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// What all timesteps have in common.
#[derive(Debug)]
struct Pndm {
    prediction: Prediction,
}

/// The cumulative alphas around a call.
#[derive(Debug)]
struct Point {
    /// A stride before the timestep.
    before: f32,
    at: f32,
    /// A stride after it.
    after: f32,
}

/// What was predicted so far.
#[derive(Debug, Default)]
struct Memory {
    calls: usize,
    /// The latents before the first call.
    start: Vec<f32>,
    /// Predictions, newest first, without that of the second call.
    history: Vec<Vec<f32>>,
}

/// `None` where a timestep lies outside the schedule.
pub(super) fn cut(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    let train = keys.noise.num_train_timesteps;
    let mut timesteps = keys.spacing.whole_timesteps(train, count);
    if let Some(&second) = timesteps.get(1) {
        timesteps.insert(1, second);
    }
    let alpha = alphas(keys);
    let stride = i64::from(train / count);
    let points = timesteps.iter().map(|&timestep| {
        let at = alpha(timestep)?;
        // Before the first timestep there may be no alpha, and none is needed: it is never a sample's second call.
        let before = alpha(timestep + stride).unwrap_or(at);
        Some(Point { before, at, after: alpha((timestep - stride).max(-1))? })
    });
    let points = points.collect::<Option<_>>()?;
    let method = Pndm { prediction: keys.prediction };
    Some(Plan::boxed(method, count, timesteps.into_iter().map(float).collect(), points))
}

impl Method for Pndm {
    type Point = Point;
    type Memory = Memory;

    fn level(point: &Point) -> Level {
        Level::of_alpha(point.at)
    }

    fn step(&self, point: &Point, latents: &mut [f32], prediction: &[f32], memory: &mut Memory, _: &mut dyn Normals) {
        let (from, to, blended);
        if memory.calls == 1 {
            // The second call repeats the first step with the mean of the predictions at its ends. It takes for
            // granted that its timestep is one stride past the first's, as diffusers does, also where a sample starts
            // later in the schedule.
            (from, to) = (point.before, point.at);
            let predictions = [prediction].into_iter().chain(memory.history.iter().map(Vec::as_slice));
            blended = blend(predictions, &[0.5, 0.5]);
            latents.copy_from_slice(&memory.start);
        } else {
            (from, to) = (point.at, point.after);
            if memory.calls == 0 {
                memory.start = latents.to_vec();
            }
            memory.history.truncate(WEIGHTS.len() - 1);
            memory.history.insert(0, prediction.to_vec());
            let weights = WEIGHTS.get(memory.history.len() - 1).copied().unwrap_or_default();
            blended = blend(memory.history.iter().map(Vec::as_slice), weights);
        }
        memory.calls += 1;
        self.transfer(from, to, latents, &blended);
    }
}

impl Pndm {
    /// Equation 9, from one cumulative alpha to another. It is the step of DDIM, and rounded otherwise: where nearly
    /// nothing is left of the image, that shows.
    fn transfer(&self, from: f32, to: f32, latents: &mut [f32], blended: &[f32]) {
        let level = Level::of_alpha(from);
        let kept = (to / from).sqrt();
        let divisor = from * (1.0 - to).sqrt() + (from * (1.0 - from) * to).sqrt();
        for (x, &predicted) in latents.iter_mut().zip(blended) {
            let (_, noise) = level.split(self.prediction, *x, predicted);
            *x = kept * *x - (to - from) * noise / divisor;
        }
    }
}

/// The weighted sum of predictions.
fn blend<'a>(predictions: impl Iterator<Item = &'a [f32]>, weights: &[f32]) -> Vec<f32> {
    let mut sum = Vec::new();
    for (prediction, weight) in predictions.zip(weights) {
        sum.resize(prediction.len(), 0.0);
        for (sum, value) in sum.iter_mut().zip(prediction) {
            *sum += weight * value;
        }
    }
    sum
}
