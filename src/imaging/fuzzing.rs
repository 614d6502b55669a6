//! A check of image files for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use super::{Limits, decode, encode_png, info, size, standardize};
use crate::limited_read::damaged::{assert_clean, without_own_panic};

/// Small limits, so that a run is fast and a larger allocation is noticed.
const LIMITS: Limits = Limits { max_pixels: 1 << 18, max_bytes: 1 << 16, max_side: 2048 };
const BACKGROUND: [u8; 3] = [255; 3];

/// An image within the limits has one size for every reader, and is the same after it is written and read again. Panics of
/// decoders do not leave this module.
pub(crate) fn image(bytes: &[u8]) {
    without_own_panic(|| {
        let standard = standardize(bytes.to_vec(), &LIMITS, BACKGROUND, 1 << 22);
        let (rgb, about) = match (decode(bytes, &LIMITS), info(bytes, &LIMITS)) {
            (Ok(rgb), Ok(about)) => (rgb, about),
            (Err(error), Err(_)) => return assert_clean(&error.chain()),
            (decoded, about) => panic!("{} but {}", decoded.is_ok(), about.is_ok()),
        };
        let (width, height) = rgb.dimensions();
        assert_eq!(((about.width, about.height), size(bytes, &LIMITS).unwrap()), ((width, height), (width, height)));
        assert!(width > 0 && height > 0 && width.max(height) <= LIMITS.max_side);
        assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels && bytes.len() as u64 <= LIMITS.max_bytes);
        if width * height <= 1 << 12 {
            assert_eq!(decode(&encode_png(&rgb).unwrap(), &LIMITS).unwrap(), rgb);
            if let Ok(standard) = standard {
                decode(&standard, &Limits::default()).unwrap();
            }
        }
    });
}
