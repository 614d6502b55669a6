//! DPM-Solver++ (2M): diffusers' `DPMSolverMultistepScheduler` with `dpmsolver++`, order 2 and `midpoint`, and Lu et
//! al. 2022 (arXiv 2211.01095), algorithm 2. A step is that of DDIM, towards an image that is extrapolated from the last
//! two.

use super::{
    super::noise::Normals,
    Scheduler,
    discretized::{Discretized, Method},
    keys::{FinalSigma, Keys},
    noise_level::{NoiseLevel, Prediction},
    schedule::to_f32,
    sigmas::Sigmas,
    spacing::{Rule, float},
};

/// `lower_order_final` applies to schedules with fewer timesteps than this.
const SHORT: usize = 15;

#[derive(Debug)]
struct DpmSolver {
    prediction: Prediction,
}

#[derive(Debug)]
struct Coefficients {
    from: NoiseLevel,
    to: NoiseLevel,
    /// How far to extrapolate along the change between two predicted images: the paper's 1 / (2 r).
    extrapolation: f32,
}

/// Builds the schedule with `count` timesteps. Returns `None` if two timesteps are equal: diffusers then divides by 0.
pub(super) fn with_timesteps(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    let train = keys.noise.num_train_timesteps;
    // One more point, at 0, is not a timestep.
    let points = if keys.spacing.rule == Rule::Trailing { count } else { count + 1 };
    let mut spaced = keys.spacing.whole_timesteps(train, points);
    spaced.truncate(count as usize);
    let spaced = spaced.into_iter().map(|timestep| f64::from(float(timestep))).collect();
    let sigmas = Sigmas::new(keys, spaced, (f64::from(train - 1), 0.0));
    let round = if keys.noise.is_squared_cosine() { f64::trunc } else { f64::round_ties_even };
    let timesteps = sigmas.timesteps.iter().map(|&timestep| to_f32(round(timestep))).collect();
    Some(Discretized::boxed(DpmSolver { prediction: keys.prediction }, count, timesteps, steps(keys, &sigmas)?))
}

/// Returns the steps between sigmas.
fn steps(keys: &Keys, sigmas: &Sigmas) -> Option<Vec<Coefficients>> {
    let count = sigmas.timesteps.len();
    let first_order_final =
        keys.euler_at_final || (keys.lower_order_final && count < SHORT) || keys.final_sigmas_type == FinalSigma::Zero;
    let before = [None].into_iter().chain(sigmas.sigmas.iter().copied().map(Some));
    let steps = sigmas.pairs().zip(before).enumerate().map(|(index, ((sigma, next), before))| {
        let extrapolation = match before {
            Some(before) if !(first_order_final && index + 1 == count) => {
                // Half the ratio of this step to the last one, in log-SNR.
                let last = (before / sigma).ln();
                (last != 0.0).then(|| 0.5 * (sigma / next).ln() / last)?
            }
            _ => 0.0,
        };
        Some(Coefficients { from: NoiseLevel::of_sigma(sigma), to: NoiseLevel::of_sigma(next), extrapolation })
    });
    steps.collect()
}

impl Method for DpmSolver {
    type Coefficients = Coefficients;
    /// The last predicted image.
    type History = Vec<f32>;

    fn level(step: &Coefficients) -> NoiseLevel {
        step.from
    }

    fn step(
        &self,
        Coefficients { from, to, extrapolation }: &Coefficients,
        latents: &mut [f32],
        prediction: &[f32],
        last: &mut Vec<f32>,
        _: &mut dyn Normals,
    ) {
        let kept = to.noise / from.noise;
        let added = to.signal - from.signal * kept;
        let originals =
            latents.iter().zip(prediction).map(|(&x, &predicted)| from.split(self.prediction, x, predicted).0);
        let originals: Vec<f32> = originals.collect();
        if last.is_empty() {
            // There is nothing to extrapolate from: the first step has first order.
            last.clone_from(&originals);
        }
        for ((x, original), before) in latents.iter_mut().zip(&originals).zip(last.iter()) {
            *x = kept * *x + added * (original + extrapolation * (original - before));
        }
        *last = originals;
    }
}
