//! Where the random numbers of an image come from.
//!
//! By default noise depends on a seed and on nothing else: ChaCha8 keyed with the SHA-256 of a purpose and the seed, so
//! that no draw moves another. On request it is torch's, so that a seed makes diffusers' image.

use std::fmt::Debug;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::torch::TorchGenerator;

/// What a draw is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// `count` standard normals.
    fn draw(&mut self, purpose: Purpose, count: usize) -> Vec<f32>;
}

/// Which random numbers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NoiseSource {
    /// A stream for each seed and purpose.
    #[default]
    Counter,
    /// `torch.randn` with `torch.Generator("cpu").manual_seed(seed)`, in the order in which diffusers draws.
    Torch,
}

impl NoiseSource {
    /// Starts the numbers of a seed.
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
    /// The one stream that is drawn from more than once.
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
    /// One generator for all purposes: only the order counts.
    fn draw(&mut self, _: Purpose, count: usize) -> Vec<f32> {
        self.randn(count)
    }
}

/// The stream of a purpose and a seed.
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
        NoiseSource::Counter.start(seed).draw(purpose, count)
    }

    #[test]
    fn a_seed_always_draws_the_same() {
        let drawn = normals(Purpose::Noise, 7, 1000);
        assert_eq!(drawn, normals(Purpose::Noise, 7, 1000));
        assert_eq!(drawn[..10], normals(Purpose::Noise, 7, 10)[..], "a prefix is a prefix");
        assert_ne!(drawn, normals(Purpose::Noise, 8, 1000));
        assert_ne!(drawn, normals(Purpose::Posterior, 7, 1000));
    }

    #[test]
    fn no_draw_moves_another_but_that_of_the_next_timestep() {
        let mut normals = NoiseSource::Counter.start(7);
        let first = normals.draw(Purpose::Timestep, 4);
        assert_eq!(normals.draw(Purpose::Noise, 4), self::normals(Purpose::Noise, 7, 4));
        assert_ne!(normals.draw(Purpose::Timestep, 4), first);
    }

    /// A new release of a dependency that draws otherwise would silently change every image.
    #[test]
    fn the_first_draws_are_known() {
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
