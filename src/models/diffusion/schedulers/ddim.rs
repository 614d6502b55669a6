//! DDIM with eta 0: diffusers' `DDIMScheduler`, and Song et al. 2020 (arXiv 2010.02502), equation 12.

use super::super::noise::Normals;
use super::Scheduler;
use super::discretized::{Method, Plan};
use super::keys::{Clip, Keys};
use super::noise_level::{Level, Prediction};
use super::spacing::float;

/// What all timesteps have in common.
#[derive(Debug)]
struct Ddim {
    prediction: Prediction,
    clip: Clip,
}

/// `None` where a timestep lies outside the schedule.
pub(super) fn cut(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    let train = keys.noise.num_train_timesteps;
    let timesteps = keys.spacing.whole_timesteps(train, count);
    let alpha = alphas(keys);
    let level = |timestep| alpha(timestep).map(Level::of_alpha);
    // Training timesteps are whole, so the next one is a whole stride away, whatever the spacing.
    let stride = i64::from(train / count);
    let points = timesteps.iter().map(|&timestep| Some((level(timestep)?, level((timestep - stride).max(-1))?)));
    let points = points.collect::<Option<_>>()?;
    let method = Ddim { prediction: keys.prediction, clip: keys.clip() };
    Some(Plan::boxed(method, count, timesteps.into_iter().map(float).collect(), points))
}

/// The cumulative alphas of whole timesteps. Timestep -1 is after the last, and there are none beyond.
pub(super) fn alphas(keys: &Keys) -> impl Fn(i64) -> Option<f32> {
    let mut alphas = keys.noise.alphas_cumprod();
    let after_last = if keys.set_alpha_to_one { Some(1.0) } else { alphas.first().copied() };
    alphas.splice(..0, after_last);
    move |timestep| alphas.get(usize::try_from(timestep + 1).ok()?).copied()
}

impl Method for Ddim {
    type Point = (Level, Level);
    type Memory = ();

    fn level(point: &Self::Point) -> Level {
        point.0
    }

    fn step(
        &self,
        (from, to): &Self::Point,
        latents: &mut [f32],
        prediction: &[f32],
        (): &mut (),
        _: &mut dyn Normals,
    ) {
        for (x, &predicted) in latents.iter_mut().zip(prediction) {
            let (original, noise) = from.split(self.prediction, *x, predicted);
            *x = to.mix(self.clip.apply(original), noise);
        }
    }
}
