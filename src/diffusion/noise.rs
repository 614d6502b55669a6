//! Noise that depends on a seed and on nothing else.
//!
//! ChaCha8 keyed with the SHA-256 of a domain and the seed: no global stream, so that a picture's noise is the
//! same whatever was drawn before it. The numbers are not torch's.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// What a draw is for. Each has a stream of its own, so that one more draw here moves none there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// The draw from the VAE's posterior.
    Posterior,
    /// The noise that is mixed into the latents.
    Noise,
}

impl Domain {
    fn name(self) -> &'static str {
        match self {
            Self::Posterior => "discl-pipe/img2img/posterior",
            Self::Noise => "discl-pipe/img2img/noise",
        }
    }
}

/// `count` standard normals for one purpose and seed.
pub(super) fn normals(domain: Domain, seed: i64, count: usize) -> Vec<f32> {
    let key = Sha256::new().chain_update(domain.name()).chain_update(seed.to_le_bytes()).finalize();
    let mut generator = ChaCha8Rng::from_seed(key.into());
    (0..count).map(|_| StandardNormal.sample(&mut generator)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same() {
        let drawn = normals(Domain::Noise, 7, 1000);
        assert_eq!(drawn, normals(Domain::Noise, 7, 1000));
        assert_eq!(drawn[..10], normals(Domain::Noise, 7, 10)[..], "a prefix is a prefix");
        assert_ne!(drawn, normals(Domain::Noise, 8, 1000));
        assert_ne!(drawn, normals(Domain::Posterior, 7, 1000));
    }

    /// A new release of a dependency that draws otherwise would silently change every picture.
    #[test]
    fn the_first_draws_are_known() {
        assert_eq!(normals(Domain::Noise, 0, 3), [-0.99451643, -0.85222536, -0.041154344]);
    }

    #[test]
    fn draws_are_standard_normal() {
        let drawn = normals(Domain::Posterior, -1, 100_000);
        let count = drawn.len() as f64;
        let mean = drawn.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = drawn.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
