//! Random streams: ChaCha8, keyed on the SHA-256 of what a stream is for, so that no draw affects another.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The initial weights; keyed on the learner's seed.
    Weights,
    /// The rows of one batch; keyed on the learner's seed, the epoch, and the iteration in the epoch.
    Batch,
}

/// Returns the stream for a purpose and a key.
pub(super) fn keyed(purpose: Purpose, key: &[u64]) -> ChaCha8Rng {
    let name = match purpose {
        Purpose::Weights => "discl-pipe/learner/weights",
        Purpose::Batch => "discl-pipe/learner/batch",
    };
    let mut digest = Sha256::new().chain_update(name);
    for number in key {
        digest.update(number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(digest.finalize().into())
}

/// Draws a uniform index below `bound`, or 0 if `bound` is 0. It is the high half of a product, whose bias is below
/// `bound` / 2^64.
#[expect(clippy::cast_possible_truncation, reason = "the high half is below `bound`")]
pub(super) fn below(generator: &mut ChaCha8Rng, bound: usize) -> usize {
    let product = u128::from(generator.next_u64()) * bound as u128;
    (product >> 64) as usize
}

/// Draws a uniform number in [0, 1), a multiple of 2^-24.
#[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
pub(super) fn unit(generator: &mut ChaCha8Rng) -> f32 {
    (generator.next_u32() >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_purpose_and_key_alone() {
        let first = |purpose, key: &[u64]| keyed(purpose, key).next_u64();
        let known = first(Purpose::Batch, &[1, 2, 3]);
        assert_eq!(known, first(Purpose::Batch, &[1, 2, 3]));
        for other in [first(Purpose::Weights, &[1, 2, 3]), first(Purpose::Batch, &[1, 3, 2])] {
            assert_ne!(known, other);
        }
    }

    /// Otherwise a new release of a dependency could silently change every result.
    #[test]
    fn the_first_draws_are_pinned() {
        let mut generator = keyed(Purpose::Weights, &[0]);
        let drawn = [(); 3].map(|()| below(&mut generator, 1_000_000));
        assert_eq!((drawn, unit(&mut generator)), ([677_723, 83_026, 646_728], 0.914_772_9));
    }

    #[test]
    fn draws_are_uniform() {
        let mut generator = keyed(Purpose::Batch, &[7]);
        let mut seen = [0; 5];
        let mut sum = 0.0;
        for _ in 0..50_000 {
            seen[below(&mut generator, 5)] += 1;
            let drawn = unit(&mut generator);
            assert!((0.0..1.0).contains(&drawn));
            sum += f64::from(drawn);
        }
        // Five standard deviations are about 450 and 0.0065.
        assert!(seen.iter().all(|count| (9_550..10_450).contains(count)), "{seen:?}");
        assert!((sum / 50_000.0 - 0.5).abs() < 0.0065, "{sum}");
    }
}
