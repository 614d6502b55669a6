//! DDIM with eta 0: diffusers' `DDIMScheduler`, and Song et al. 2020 (arXiv 2010.02502), equation 12.

use super::{
    super::noise::Normals,
    Scheduler,
    discretized::{Discretized, Method},
    keys::{Clip, Keys},
    noise_level::{NoiseLevel, Prediction},
    spacing::float,
};

#[derive(Debug)]
struct Ddim {
    prediction: Prediction,
    clip: Clip,
}

/// Builds the schedule with `count` timesteps. Returns `None` if a timestep is outside of training's.
pub(super) fn with_timesteps(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    let train = keys.noise.num_train_timesteps;
    let timesteps = keys.spacing.whole_timesteps(train, count);
    let alpha = alphas(keys);
    let level = |timestep| alpha(timestep).map(NoiseLevel::of_alpha);
    // Training timesteps are integers, so the next one is an integer stride away, whatever the spacing.
    let stride = i64::from(train / count);
    let levels = timesteps.iter().map(|&timestep| Some((level(timestep)?, level((timestep - stride).max(-1))?)));
    let levels = levels.collect::<Option<_>>()?;
    let method = Ddim { prediction: keys.prediction, clip: keys.clip() };
    Some(Discretized::boxed(method, count, timesteps.into_iter().map(float).collect(), levels))
}

/// Returns the cumulative alphas by integer timestep. Timestep -1 is after the last; there is none beyond.
pub(super) fn alphas(keys: &Keys) -> impl Fn(i64) -> Option<f32> {
    let mut alphas = keys.noise.alphas_cumprod();
    let after_last = if keys.set_alpha_to_one { Some(1.0) } else { alphas.first().copied() };
    alphas.splice(..0, after_last);
    move |timestep| alphas.get(usize::try_from(timestep + 1).ok()?).copied()
}

impl Method for Ddim {
    type Coefficients = (NoiseLevel, NoiseLevel);
    type History = ();

    fn level((from, _): &Self::Coefficients) -> NoiseLevel {
        *from
    }

    fn step(
        &self,
        (from, to): &Self::Coefficients,
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
