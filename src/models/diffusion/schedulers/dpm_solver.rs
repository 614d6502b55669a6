//! DPM-Solver++ (2M): diffusers' `DPMSolverMultistepScheduler` with `dpmsolver++`, order 2 and `midpoint`, and Lu et
//! al. 2022 (arXiv 2211.01095), algorithm 2. A step is that of DDIM, to an image that is extrapolated from the last two.

use super::super::noise::Normals;
use super::Scheduler;
use super::discretized::{Method, Plan};
use super::keys::{FinalSigma, Keys};
use super::noise_level::{Level, Prediction};
use super::schedule::to_f32;
use super::sigmas::Sigmas;
use super::spacing::{Rule, float};

/// Below this many timesteps, `lower_order_final` is for them.
const SHORT: usize = 15;

/// What all timesteps have in common.
#[derive(Debug)]
struct DpmSolver {
    prediction: Prediction,
}

/// A step.
#[derive(Debug)]
struct Point {
    from: Level,
    to: Level,
    /// How far to extrapolate along the change between two predicted images: 1 / (2 r) of the paper.
    beyond: f32,
}

/// `None` where two timesteps are the same: diffusers then divides by 0.
pub(super) fn cut(keys: &Keys, count: u32) -> Option<Box<dyn Scheduler>> {
    let train = keys.noise.num_train_timesteps;
    // There is one more point, at 0, that is no timestep.
    let points = if keys.spacing.rule == Rule::Trailing { count } else { count + 1 };
    let mut spaced = keys.spacing.whole_timesteps(train, points);
    spaced.truncate(count as usize);
    let spaced = spaced.into_iter().map(|timestep| f64::from(float(timestep))).collect();
    let sigmas = Sigmas::new(keys, spaced, (f64::from(train - 1), 0.0));
    let whole = if keys.noise.is_squared_cosine() { f64::trunc } else { f64::round_ties_even };
    let timesteps = sigmas.timesteps.iter().map(|&timestep| to_f32(whole(timestep))).collect();
    Some(Plan::boxed(DpmSolver { prediction: keys.prediction }, count, timesteps, steps(keys, &sigmas)?))
}

/// The steps between sigmas.
fn steps(keys: &Keys, sigmas: &Sigmas) -> Option<Vec<Point>> {
    let count = sigmas.timesteps.len();
    let first_order_final =
        keys.euler_at_final || (keys.lower_order_final && count < SHORT) || keys.final_sigmas_type == FinalSigma::Zero;
    let before = [None].into_iter().chain(sigmas.sigmas.iter().copied().map(Some));
    let steps = sigmas.pairs().zip(before).enumerate().map(|(index, ((sigma, next), before))| {
        let beyond = match before {
            Some(before) if !(first_order_final && index + 1 == count) => {
                // Half the ratio of this step to the last, in log-SNR.
                let last = (before / sigma).ln();
                (last != 0.0).then(|| 0.5 * (sigma / next).ln() / last)?
            }
            _ => 0.0,
        };
        Some(Point { from: Level::of_sigma(sigma), to: Level::of_sigma(next), beyond })
    });
    steps.collect()
}

impl Method for DpmSolver {
    type Point = Point;
    /// The image that was last predicted.
    type Memory = Vec<f32>;

    fn level(point: &Point) -> Level {
        point.from
    }

    fn step(&self, point: &Point, latents: &mut [f32], prediction: &[f32], memory: &mut Vec<f32>, _: &mut dyn Normals) {
        let Point { from, to, beyond } = point;
        let kept = to.spread / from.spread;
        let added = to.signal - from.signal * kept;
        let originals =
            latents.iter().zip(prediction).map(|(&x, &predicted)| from.split(self.prediction, x, predicted).0);
        let originals: Vec<f32> = originals.collect();
        if memory.is_empty() {
            // Nothing to extrapolate from: the first step is of first order.
            memory.clone_from(&originals);
        }
        for ((x, original), before) in latents.iter_mut().zip(&originals).zip(memory.iter()) {
            *x = kept * *x + added * (original + beyond * (original - before));
        }
        *memory = originals;
    }
}
