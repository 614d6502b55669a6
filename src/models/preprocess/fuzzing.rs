//! A check of image processors for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use image::Rgb;

use super::*;
use crate::limited_read::{self, damaged::without_own_panic};

/// An image processor is an error, or gives finite numbers, as many as it announces.
pub(crate) fn preprocess(text: &[u8]) {
    without_own_panic(|| {
        let Ok(keys) = serde_json::from_slice(&limited_read::from_python(text)) else { return };
        let Ok(preprocess) = Preprocess::from_keys(&keys, Path::new(IMAGE_PROCESSOR)) else { return };
        for preprocess in [preprocess.clone(), preprocess.of_whole_frame()] {
            let area = preprocess.output().map_or(0, |(width, height)| u64::from(width) * u64::from(height));
            for (width, height) in [(1, 1), (3, 2), (1, 20)].into_iter().filter(|_| area <= 1 << 12) {
                let image = RgbImage::from_fn(width, height, |x, _| Rgb([if x > 0 { 100 } else { 7 }, 0, 255]));
                let Ok(tensor) = preprocess.apply(&image) else { continue };
                assert!(!tensor.is_empty() && tensor.iter().all(|value| value.is_finite()));
                assert!(area == 0 || tensor.len() as u64 == 3 * area);
            }
        }
    });
}
