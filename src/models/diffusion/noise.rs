//! The random numbers of an image.
//!
//! By default noise depends on the seed alone: ChaCha8, keyed with the SHA-256 of a purpose and the seed, so that no
//! draw shifts another. Alternatively it is torch's, so that a seed gives the image that diffusers would generate.

use std::fmt::Debug;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::torch::TorchGenerator;

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The draw from the VAE's posterior.
    Posterior,
    /// The noise that is mixed into the latents.
    Noise,
    /// Noise that a stochastic scheduler adds after a timestep.
    Timestep,
}

/// The random numbers of one sample, draw by draw.
pub(crate) trait Normals: Debug + Send {
    /// Draws `count` standard normals.
    fn draw(&mut self, purpose: Purpose, count: usize) -> Vec<f32>;
}

/// Which generator draws the random numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum NoiseGenerator {
    /// A separate stream for each seed and purpose.
    #[default]
    Counter,
    /// `torch.randn` with `torch.Generator("cpu").manual_seed(seed)`, in diffusers' order of draws.
    Torch,
}

impl NoiseGenerator {
    /// Starts the stream of a seed.
    pub(super) fn start(self, seed: i64) -> Box<dyn Normals> {
        match self {
            Self::Counter => Box::new(Counter { seed, timesteps: keyed(Purpose::Timestep, seed) }),
            Self::Torch => Box::new(TorchGenerator::new(seed)),
        }
    }
}

#[derive(Debug)]
struct Counter {
    seed: i64,
    /// The only stream that is drawn from more than once.
    timesteps: ChaCha8Rng,
}

impl Normals for Counter {
    fn draw(&mut self, purpose: Purpose, count: usize) -> Vec<f32> {
        match purpose {
            Purpose::Timestep => standard(&mut self.timesteps, count),
            Purpose::Posterior | Purpose::Noise => standard(&mut keyed(purpose, self.seed), count),
        }
    }
}

impl Normals for TorchGenerator {
    /// Ignores the purpose: one generator serves all draws, and only their order counts.
    fn draw(&mut self, _: Purpose, count: usize) -> Vec<f32> {
        self.randn(count)
    }
}

/// Returns the stream of a purpose and a seed.
fn keyed(purpose: Purpose, seed: i64) -> ChaCha8Rng {
    let name = match purpose {
        Purpose::Posterior => "discl-pipe/img2img/posterior",
        Purpose::Noise => "discl-pipe/img2img/noise",
        Purpose::Timestep => "discl-pipe/img2img/timestep",
    };
    let key = Sha256::new().chain_update(name).chain_update(seed.to_le_bytes()).finalize();
    ChaCha8Rng::from_seed(key.into())
}

fn standard(generator: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| StandardNormal.sample(generator)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(purpose: Purpose, seed: i64, count: usize) -> Vec<f32> {
        NoiseGenerator::Counter.start(seed).draw(purpose, count)
    }

    #[test]
    fn a_seed_always_draws_the_same_numbers() {
        let drawn = normals(Purpose::Noise, 7, 1000);
        assert_eq!(drawn, normals(Purpose::Noise, 7, 1000));
        assert_eq!(drawn[..10], normals(Purpose::Noise, 7, 10)[..], "a shorter draw is a prefix");
        assert_ne!(drawn, normals(Purpose::Noise, 8, 1000));
        assert_ne!(drawn, normals(Purpose::Posterior, 7, 1000));
    }

    #[test]
    fn no_draw_shifts_another_except_that_of_the_next_timestep() {
        let mut normals = NoiseGenerator::Counter.start(7);
        let first = normals.draw(Purpose::Timestep, 4);
        assert_eq!(normals.draw(Purpose::Noise, 4), self::normals(Purpose::Noise, 7, 4));
        assert_ne!(normals.draw(Purpose::Timestep, 4), first);
    }

    /// If a new release of a dependency drew other numbers, every image would silently change.
    #[test]
    fn the_first_draws_are_pinned() {
        assert_eq!(normals(Purpose::Noise, 0, 3), [-0.99451643, -0.85222536, -0.041154344]);
    }

    #[test]
    fn draws_are_standard_normal() {
        let drawn = normals(Purpose::Posterior, -1, 100_000);
        let count = drawn.len() as f64;
        let mean = drawn.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = drawn.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
