//! `preprocessor_config.json`, and what it makes of images.
//!
//! No text may panic or ask for more than a model could take (`-malloc_limit_mb`, see README.md). What is accepted
//! gives finite numbers, as many as it says.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use std::path::Path;

use image::{Rgb, RgbImage};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/limited_read.rs"]
mod limited_read;

#[path = "../../src/imaging/mod.rs"]
mod imaging;

use imaging::Preprocess;

fuzz_target!(|text: &[u8]| {
    let Ok(preprocess) = Preprocess::parse(text, Path::new("preprocessor_config.json")) else { return };
    for preprocess in [preprocess.clone(), preprocess.of_whole_frame()] {
        for (width, height) in [(1, 1), (3, 2), (1, 20)] {
            let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 255]));
            let area = preprocess.output().map_or(0, |(width, height)| u64::from(width) * u64::from(height));
            if area > 1 << 12 {
                continue; // sound, and slow with sanitizers
            }
            let Ok(tensor) = preprocess.apply(&image) else { continue };
            assert!(!tensor.is_empty() && tensor.iter().all(|value| value.is_finite()));
            if area > 0 {
                assert_eq!(tensor.len() as u64, 3 * area);
            }
        }
    }
});
