//! Standard normals as torch's CPU generator draws them.
//!
//! Follows torch's `mt19937` engine and its CPU kernel of `normal_`. On x86-64 with AVX2 or AVX-512 that kernel uses the
//! single-precision logarithm, sine and cosine of Cephes; multiplications and additions are fused here wherever the
//! compiler of torch's wheels fuses them. The float32 numbers are bit-identical to those of torch 2.15.0. On a machine
//! without AVX2, torch's own numbers differ by up to 3e-6.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI, TAU};

use rand_mt::Mt;

/// From this many numbers on, torch draws blocks in single precision.
const BLOCK: usize = 16;

/// Pairs of numbers in a block: one number of each is in the first half, the other in the second.
const PAIRS: usize = BLOCK / 2;

/// pi / 4 in three parts, whose products with a small integer are exact.
const QUARTER_PI: [f32; 3] = [0.785_156_25, 2.418_756_5e-4, 3.774_895e-8];

/// Cephes' minimax polynomials, highest power first: the sine's odd powers from the 7th, the cosine's even ones from
/// the 8th, the logarithm of 1 + x from the 11th.
const SINE: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
const COSINE: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
const LOGARITHM: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_84e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

/// ln 2 in two parts: the larger has few bits, the smaller corrects it.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// A seeded CPU generator of torch.
#[derive(Debug, Clone)]
pub(crate) struct TorchGenerator {
    engine: Mt,
    /// The second number of a pair that was drawn for a short tensor. Blocks neither use nor discard it.
    spare: Option<f64>,
}

impl TorchGenerator {
    /// Creates the generator of `torch.Generator("cpu").manual_seed(seed)`, which uses only the low 32 bits of a seed.
    pub(crate) fn new(seed: i64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits")]
        let low = seed as u32;
        Self { engine: Mt::new(low), spare: None }
    }

    /// Draws `torch.randn(count)` in float32. A tensor of any shape draws as many numbers as it has elements.
    pub(crate) fn randn(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.number()).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(to_normals);
        // A last block that is not full is discarded, and the last 16 numbers are drawn again.
        if !rest.is_empty()
            && let Some(last) = values.last_chunk_mut::<BLOCK>()
        {
            last.fill_with(|| self.uniform());
            to_normals(last);
        }
        values
    }

    /// Draws one number of a short tensor. Numbers are computed in pairs and in double precision.
    #[expect(clippy::cast_possible_truncation, reason = "torch rounds here too")]
    fn number(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare as f32;
        }
        let angle = std::f64::consts::TAU * self.uniform_double();
        let radius = (-2.0 * (-self.uniform_double()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        (radius * angle.cos()) as f32
    }

    /// Draws 24 random bits as a number in 0..1.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    fn uniform(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// Draws 53 random bits as a number in 0..1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn uniform_double(&mut self) -> f64 {
        let high = u64::from(self.engine.next_u32());
        let bits = (high << 32) | u64::from(self.engine.next_u32());
        (bits & 0x001f_ffff_ffff_ffff) as f64 / 9_007_199_254_740_992.0
    }
}

/// Applies the Box-Muller transform to a block of uniform numbers: radii from the first half, angles from the second.
fn to_normals(block: &mut [f32; BLOCK]) {
    let (first, second) = block.split_at_mut(PAIRS);
    for (first, second) in first.iter_mut().zip(second) {
        let radius = (-2.0 * logarithm(1.0 - *first)).sqrt();
        let (sine, cosine) = sine_and_cosine(TAU * *second);
        // Adding a mean of 0 turns a negative zero into a positive one.
        *first = radius * cosine + 0.0;
        *second = radius * sine + 0.0;
    }
}

/// Returns the natural logarithm of a normal positive number.
fn logarithm(value: f32) -> f32 {
    // value = 2^exponent * (1 + x), with 1 + x from 1 / sqrt 2 to sqrt 2.
    let mut exponent = f32::from((value.to_bits() >> 23) as i16 - 126);
    let mantissa = f32::from_bits(value.to_bits() & 0x007f_ffff | 0.5_f32.to_bits());
    let mut x = mantissa - 1.0;
    if mantissa < FRAC_1_SQRT_2 {
        exponent -= 1.0;
        x += mantissa;
    }
    let square = x * x;
    let tail = (polynomial(&LOGARITHM, x) * x).mul_add(square, exponent * LN_2[1]) - square * 0.5;
    exponent.mul_add(LN_2[0], x + tail)
}

/// Returns the sine and the cosine of an angle from 0 to a few turns.
fn sine_and_cosine(angle: f32) -> (f32, f32) {
    // The nearest multiple of pi / 2, counted in eighths of a turn.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "torch truncates too")]
    let eighths = ((angle * (2.0 * FRAC_2_PI)) as u32).div_ceil(2) * 2;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let count = eighths as f32;
    let x = QUARTER_PI.into_iter().fold(angle, |rest, part| count.mul_add(-part, rest));
    let square = x * x;
    let cosine = (polynomial(&COSINE, square) * square).mul_add(square, -(square * 0.5)) + 1.0;
    let sine = (polynomial(&SINE, square) * square).mul_add(x, x);
    match (eighths / 2) % 4 {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

/// Evaluates a polynomial by Horner's scheme, highest power first.
fn polynomial(coefficients: &[f32], x: f32) -> f32 {
    coefficients.iter().copied().reduce(|sum, next| sum.mul_add(x, next)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        seed: i64,
        draws: Vec<Draw>,
    }

    /// A tensor in a sequence of one generator; `last` is empty if `first` has all numbers.
    #[derive(Deserialize)]
    struct Draw {
        count: usize,
        first: Vec<f32>,
        last: Vec<f32>,
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn sequences_of_draws_are_bit_identical_to_torchs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch/torch_normals.json");
        let golden: Vec<Golden> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert!(golden.len() >= 8);
        for Golden { seed, draws } in golden {
            let mut generator = TorchGenerator::new(seed);
            for (at, Draw { count, first, last }) in draws.iter().enumerate() {
                let values = generator.randn(*count);
                assert_eq!(values.len(), *count);
                let what = format!("seed {seed}, draw {at} of {count}");
                assert_eq!(bits(&values[..first.len()]), bits(first), "the start of {what}");
                assert_eq!(bits(&values[count - last.len()..]), bits(last), "the end of {what}");
            }
        }
    }

    #[test]
    fn only_the_low_half_of_a_seed_counts() {
        let draw = |seed| TorchGenerator::new(seed).randn(20);
        assert_eq!(draw(-1), draw(i64::MAX));
        assert_eq!(draw(5), draw((1 << 32) + 5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn an_empty_draw_changes_nothing() {
        let (mut drawn, mut untouched) = (TorchGenerator::new(3), TorchGenerator::new(3));
        assert!(drawn.randn(0).is_empty());
        assert_eq!(drawn.randn(7), untouched.randn(7));
    }

    #[test]
    fn the_numbers_are_standard_normal() {
        let values = TorchGenerator::new(1).randn(100_000);
        let mean = values.iter().sum::<f32>() / 100_000.0;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / 100_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn functions_are_accurate_at_the_ends_of_their_ranges() {
        assert_eq!(logarithm(1.0).to_bits(), 0);
        let smallest = 1.0 / 16_777_216.0;
        assert!((logarithm(smallest) - smallest.ln()).abs() < 1e-5);
        for step in 0..=64_u8 {
            let angle = TAU * f32::from(step) / 64.0;
            let (sine, cosine) = sine_and_cosine(angle);
            assert!((sine - angle.sin()).abs() < 1e-6 && (cosine - angle.cos()).abs() < 1e-6, "{angle}");
        }
    }
}
