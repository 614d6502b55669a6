//! Pseudo linear multistep: diffusers' `PNDMScheduler` with `skip_prk_steps`, and Liu et al. 2022 (arXiv 2202.09778),
//! equations 9 and 12.

use super::{
    super::noise::Normals,
    Scheduler,
    ddim::alphas,
    discretized::{Discretized, Method},
    keys::Keys,
    noise_level::{NoiseLevel, Prediction},
    spacing::float,
};

/// Weights of the predictions, newest first, by their number.
const WEIGHTS: [&[f32]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

#[derive(Debug)]
struct Pndm {
    prediction: Prediction,
}

/// Cumulative alphas around a call.
#[derive(Debug)]
struct Coefficients {
    /// One stride before the timestep.
    before: f32,
    at: f32,
    /// One stride after it.
    after: f32,
}

/// The predictions so far.
#[derive(Debug, Default)]
struct History {
    calls: usize,
    /// The latents before the first call.
    start: Vec<f32>,
    /// Predictions, newest first, without that of the second call.
    predictions: Vec<Vec<f32>>,
}

/// Builds the schedule with `count` timesteps. Returns `None` if a timestep is outside of training's.
pub(super) fn with_timesteps(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    let train = keys.noise.num_train_timesteps;
    let mut timesteps = keys.spacing.whole_timesteps(train, count);
    if let Some(&second) = timesteps.get(1) {
        timesteps.insert(1, second);
    }
    let alpha = alphas(keys);
    let stride = i64::from(train / count);
    let coefficients = timesteps.iter().map(|&timestep| {
        let at = alpha(timestep)?;
        // There may be no alpha before the first timestep. None is needed: it is never a sample's second call.
        let before = alpha(timestep + stride).unwrap_or(at);
        Some(Coefficients { before, at, after: alpha((timestep - stride).max(-1))? })
    });
    let coefficients = coefficients.collect::<Option<_>>()?;
    let method = Pndm { prediction: keys.prediction };
    Some(Discretized::boxed(method, count, timesteps.into_iter().map(float).collect(), coefficients))
}

impl Method for Pndm {
    type Coefficients = Coefficients;
    type History = History;

    fn level(around: &Coefficients) -> NoiseLevel {
        NoiseLevel::of_alpha(around.at)
    }

    fn step(
        &self,
        around: &Coefficients,
        latents: &mut [f32],
        prediction: &[f32],
        history: &mut History,
        _: &mut dyn Normals,
    ) {
        let (from, to, blended);
        if history.calls == 1 {
            // The second call repeats the first step with the mean of the predictions at its ends. Like diffusers, it
            // assumes that its timestep is one stride after the first, even if a sample starts later in the schedule.
            (from, to) = (around.before, around.at);
            let predictions = [prediction].into_iter().chain(history.predictions.iter().map(Vec::as_slice));
            blended = blend(predictions, &[0.5, 0.5]);
            latents.copy_from_slice(&history.start);
        } else {
            (from, to) = (around.at, around.after);
            if history.calls == 0 {
                history.start = latents.to_vec();
            }
            history.predictions.truncate(WEIGHTS.len() - 1);
            history.predictions.insert(0, prediction.to_vec());
            let weights = WEIGHTS.get(history.predictions.len() - 1).copied().unwrap_or_default();
            blended = blend(history.predictions.iter().map(Vec::as_slice), weights);
        }
        history.calls += 1;
        self.transfer(from, to, latents, &blended);
    }
}

impl Pndm {
    /// Applies equation 9, from one cumulative alpha to another. It is DDIM's step with another rounding, which matters
    /// when almost nothing is left of the image.
    fn transfer(&self, from: f32, to: f32, latents: &mut [f32], blended: &[f32]) {
        let level = NoiseLevel::of_alpha(from);
        let kept = (to / from).sqrt();
        let divisor = from * (1.0 - to).sqrt() + (from * (1.0 - from) * to).sqrt();
        for (x, &predicted) in latents.iter_mut().zip(blended) {
            let (_, noise) = level.split(self.prediction, *x, predicted);
            *x = kept * *x - (to - from) * noise / divisor;
        }
    }
}

/// Returns the weighted sum of predictions.
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
