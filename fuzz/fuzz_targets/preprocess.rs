//! `preprocessor_config.json`, and the tensors that it produces.
//!
//! No text may cause a panic or an allocation beyond what a model could use (`-malloc_limit_mb`, see README.md). Accepted
//! configurations give finite numbers, as many as announced.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use std::path::Path;

use image::{Rgb, RgbImage};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/limited_read/mod.rs"]
mod limited_read;

#[path = "../../src/imaging/mod.rs"]
mod imaging;

#[path = "../../src/models"]
mod models {
    pub(crate) mod model_dir {
        mod error;
        mod read;

        pub(crate) use error::FileError;
        pub(crate) use read::{read, read_config};
    }

    pub(crate) mod preprocess;
}

use models::preprocess::Preprocess;

fuzz_target!(|text: &[u8]| {
    let Ok(keys) = serde_json::from_slice(&limited_read::from_python(text)) else { return };
    let Ok(preprocess) = Preprocess::from_keys(&keys, Path::new("preprocessor_config.json")) else { return };
    for preprocess in [preprocess.clone(), preprocess.of_whole_frame()] {
        for (width, height) in [(1, 1), (3, 2), (1, 20)] {
            let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 255]));
            let area = preprocess.output().map_or(0, |(width, height)| u64::from(width) * u64::from(height));
            if area > 1 << 12 {
                continue; // Valid, but slow with sanitizers.
            }
            let Ok(tensor) = preprocess.apply(&image) else { continue };
            assert!(!tensor.is_empty() && tensor.iter().all(|value| value.is_finite()));
            if area > 0 {
                assert_eq!(tensor.len() as u64, 3 * area);
            }
        }
    }
});
