//! Latent consistency models: diffusers' `LCMScheduler`, and Luo et al. 2023 (arXiv 2310.04378), algorithm 3.

use super::{
    super::noise::{Normals, Purpose},
    Scheduler,
    ddim::alphas,
    discretized::{Discretized, Method},
    keys::{Clip, Keys},
    noise_level::{NoiseLevel, Prediction},
    spacing::float,
};

/// The standard deviation of images that the boundary condition assumes.
const SIGMA_DATA: f32 = 0.5;

#[derive(Debug)]
struct Lcm {
    prediction: Prediction,
    clip: Clip,
}

#[derive(Debug)]
struct Coefficients {
    from: NoiseLevel,
    /// The weight of the sample (c_skip) and the weight of the predicted image (c_out).
    skip: f32,
    out: f32,
    /// The level to which fresh noise brings the image; `None` after the last timestep.
    to: Option<NoiseLevel>,
}

/// Builds the schedule with `count` timesteps. Returns `None` if the model was distilled with fewer.
pub(super) fn with_timesteps(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    if count > keys.original_inference_steps {
        return None;
    }
    let alpha = alphas(keys);
    let timesteps = timesteps(keys, count);
    let levels = timesteps.iter().map(|&timestep| alpha(timestep).map(NoiseLevel::of_alpha));
    let levels = levels.collect::<Option<Vec<_>>>()?;
    let timesteps: Vec<f32> = timesteps.into_iter().map(float).collect();
    let next = levels.iter().skip(1).copied().map(Some).chain([None]);
    let coefficients = levels.iter().zip(next).zip(&timesteps).map(|((&from, to), timestep)| {
        let scaled = timestep * keys.timestep_scaling;
        let sum = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        Coefficients { from, skip: SIGMA_DATA * SIGMA_DATA / sum, out: scaled / sum.sqrt(), to }
    });
    let coefficients = coefficients.collect();
    let method = Lcm { prediction: keys.prediction, clip: keys.clip() };
    Some(Discretized::boxed(method, count, timesteps, coefficients))
}

/// Returns timesteps spaced evenly among those of distillation, which are spaced evenly among those of training. The
/// file's spacing is ignored.
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
    type Coefficients = Coefficients;
    type History = ();

    fn level(at: &Coefficients) -> NoiseLevel {
        at.from
    }

    fn step(
        &self,
        &Coefficients { from, skip, out, to }: &Coefficients,
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
