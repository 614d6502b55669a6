//! The form in which images are stored: 8-bit RGB, upright, in a file that every reader opens alike.

use image::{RgbImage, codecs::jpeg::JpegEncoder};

use super::{
    ImageError, Limits, contained,
    decode::{Color, decode_over, encode_png, open},
    sniff::corrupt,
    wrapping,
};

/// The qualities of JPEG at which an image is tried whose PNG is too large to be stored.
const QUALITIES: [u8; 3] = [95, 85, 75];

/// Returns an image in its standard form: the file itself if it is one 8-bit RGB image, upright and without transparency,
/// that Pillow opens too, of up to `max_bytes`. The pixels of any other file are encoded as PNG, or as JPEG if the PNG would
/// have more than `max_bytes`: upright, over `background`, and of an animation the first frame.
///
/// # Errors
/// Returns an error if the file is not a supported image within the limits, if it is truncated or a checksum of its pixels
/// is wrong, or if even the JPEG has more than `max_bytes`.
pub(crate) fn standardize(
    bytes: Vec<u8>,
    limits: &Limits,
    background: Color,
    max_bytes: usize,
) -> Result<Vec<u8>, ImageError> {
    contained(|| {
        let (_, format) = open(&bytes, limits)?;
        let wrapping = wrapping::read(&bytes, format).map_err(|error| corrupt(format, error))?;
        if wrapping.is_standard && bytes.len() <= max_bytes {
            return Ok(bytes);
        }
        encode(&decode_over(&bytes, limits, background)?, max_bytes)
    })
}

fn encode(image: &RgbImage, max_bytes: usize) -> Result<Vec<u8>, ImageError> {
    let png = encode_png(image)?;
    if png.len() <= max_bytes {
        return Ok(png);
    }
    let mut jpeg = Vec::new();
    for quality in QUALITIES {
        jpeg.clear();
        let encoder = JpegEncoder::new_with_quality(&mut jpeg, quality);
        image
            .write_with_encoder(encoder)
            .map_err(|error| ImageError::Encode { format: "jpeg", source: error.into() })?;
        if jpeg.len() <= max_bytes {
            return Ok(jpeg);
        }
    }
    Err(ImageError::TooManyBytes { bytes: jpeg.len() as u64, limit: max_bytes as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::{decode, extension};

    const ANY_SIZE: usize = usize::MAX;

    fn fixture(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn standard(bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, ImageError> {
        standardize(bytes.to_vec(), &Limits::default(), [255; 3], max_bytes)
    }

    #[test]
    fn a_standard_form_is_its_own_standard_form() {
        for name in ["rgb.png", "lossy.webp", "progressive.jpg"] {
            let bytes = fixture(&format!("imaging/{name}"));
            assert_eq!(standard(&bytes, ANY_SIZE).unwrap(), bytes, "{name}");
        }
        for name in ["imaging/alpha.png", "imaging/animated.webp", "imaging/cmyk.jpg", "clip/exif6_50x37.jpg"] {
            let once = standard(&fixture(name), ANY_SIZE).unwrap();
            assert_eq!(extension(&once).unwrap(), "png", "{name}");
            assert_eq!(standard(&once, ANY_SIZE).unwrap(), once, "{name}");
        }
    }

    #[test]
    fn an_image_whose_png_is_too_large_becomes_a_jpeg() {
        let file = fixture("clip/exif6_50x37.jpg");
        let png = standard(&file, ANY_SIZE).unwrap();
        let jpeg = standard(&file, png.len() - 1).unwrap();
        assert_eq!(standard(&png, png.len() - 1).unwrap(), jpeg, "also if the file itself is that PNG");
        assert_eq!(extension(&jpeg).unwrap(), "jpg");
        let pixels = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap();
        assert_eq!(pixels(&jpeg).dimensions(), (37, 50));
        let (png, jpeg) = (pixels(&png), pixels(&jpeg));
        let difference = png.as_raw().iter().zip(jpeg.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(difference < Some(48), "{difference:?}");
        assert!(matches!(standard(&file, 10), Err(ImageError::TooManyBytes { limit: 10, .. })));
    }

    #[test]
    fn broken_files_never_panic() {
        for name in ["imaging/rgb.png", "imaging/palette.png", "imaging/lossless.webp", "clip/exif6_50x37.jpg"] {
            let bytes = fixture(name);
            for at in (0..bytes.len()).step_by(5) {
                let mut broken = bytes.clone();
                broken[at] ^= 0x5a;
                let _ = standard(&broken, ANY_SIZE);
                assert!(standard(&bytes[..at], ANY_SIZE).is_err(), "{name} cut to {at} bytes");
            }
        }
    }
}
