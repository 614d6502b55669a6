//! What a file says around its pixels: whether they are 8-bit RGB already, which way up they are, and whether other
//! readers open the file.
//!
//! Only headers are read, but for a PNG, whose checksum of the pixels cannot be compared otherwise.

mod jpeg;
mod orientation;
mod png;
mod tiff;
mod webp;

use std::io::Cursor;

use image::{ImageDecoder, ImageFormat, codecs::tiff::TiffDecoder, metadata::Orientation};

use self::orientation::Mark;

/// The wrapping of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrapping {
    /// How the pixels are turned to stand upright.
    pub(super) orientation: Orientation,
    /// Whether it is one upright 8-bit RGB image without transparency, in a file that Pillow opens.
    pub(super) is_standard: bool,
}

impl Wrapping {
    fn new(has_standard_pixels: bool, mark: Mark) -> Self {
        let orientation = mark.orientation();
        let is_standard = has_standard_pixels && !mark.is_odd() && orientation == Orientation::NoTransforms;
        Self { orientation, is_standard }
    }
}

/// Reads the wrapping of a file that has the end marker of its format.
///
/// # Errors
/// Returns why its pixels are corrupt: a PNG with a wrong checksum.
pub(super) fn read(bytes: &[u8], format: ImageFormat) -> Result<Wrapping, ::png::DecodingError> {
    Ok(match format {
        ImageFormat::Png => png::wrapping(bytes)?,
        ImageFormat::Jpeg => jpeg::wrapping(bytes),
        ImageFormat::WebP => webp::wrapping(bytes),
        // Every reader that we know of opens few of the many kinds of these formats.
        _ => Wrapping { orientation: orientation(bytes, format), is_standard: false },
    })
}

/// Returns what few readers know of a file, for a message; `None` if that is not known.
pub(super) fn unusual(bytes: &[u8], format: ImageFormat) -> Option<String> {
    if format == ImageFormat::Tiff { tiff::unusual(bytes) } else { None }
}

/// Returns how the pixels of a file are turned to stand upright. What cannot be read turns nothing.
pub(super) fn orientation(bytes: &[u8], format: ImageFormat) -> Orientation {
    match format {
        ImageFormat::Png => png::orientation(bytes),
        ImageFormat::Jpeg => jpeg::wrapping(bytes).orientation,
        ImageFormat::WebP => webp::wrapping(bytes).orientation,
        ImageFormat::Tiff => {
            let decoder = TiffDecoder::new(Cursor::new(bytes)).ok();
            decoder.and_then(|mut decoder| decoder.orientation().ok()).unwrap_or(Orientation::NoTransforms)
        }
        _ => Orientation::NoTransforms,
    }
}
