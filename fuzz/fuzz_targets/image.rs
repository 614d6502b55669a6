//! Images: format detection, limits, decoding.
//!
//! No panic may leave `decode`, no image may exceed the limits, and `-malloc_limit_mb` (see README.md) limits every
//! allocation to what an image within these limits needs. An image that decodes has the same size with and without
//! transparency, and is unchanged after it is written and read again.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/limited_read/mod.rs"]
mod limited_read;

#[path = "../../src/imaging"]
mod imaging {
    mod decode;
    mod error;
    mod sniff;

    pub(crate) use decode::{Limits, decode, decode_on_white, encode_png, info};
    pub(crate) use error::ImageError;
}

use imaging::{Limits, decode, decode_on_white, encode_png, info};

/// Small limits, so that a run is fast and a larger allocation is noticed.
const LIMITS: Limits = Limits { max_pixels: 1 << 18, max_bytes: 1 << 16, max_side: 2048 };

/// Ignores panics of decoders, which `decode` must catch. Any other panic aborts.
fn forgive_decoders() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let abort = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let in_a_package = panic.location().is_some_and(|location| location.file().contains("/registry/src/"));
            if !in_a_package {
                abort(panic);
            }
        }));
    });
}

fuzz_target!(|bytes: &[u8]| {
    forgive_decoders();
    let (rgb, about) = match (decode(bytes, &LIMITS), info(bytes, &LIMITS)) {
        (Ok(rgb), Ok(about)) => (rgb, about),
        (Err(error), Err(_)) => {
            assert!(!error.chain().is_empty());
            return;
        }
        (decoded, about) => panic!("{} but {}", decoded.is_ok(), about.is_ok()),
    };
    let (width, height) = rgb.dimensions();
    assert_eq!((about.width, about.height), (width, height));
    assert!(width > 0 && height > 0 && width.max(height) <= LIMITS.max_side);
    assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels);
    assert!(bytes.len() as u64 <= LIMITS.max_bytes);
    let white = decode_on_white(bytes, &LIMITS).expect("it decoded before");
    assert_eq!(white.dimensions(), (width, height));
    if width * height <= 1 << 12 {
        let again = decode(&encode_png(&rgb).expect("it has an area"), &LIMITS).expect("we wrote it");
        assert_eq!(again, rgb);
    }
});
