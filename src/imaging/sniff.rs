//! Detects the format of a file by its first bytes. Names and extensions are ignored.

use std::error::Error;

use image::ImageFormat;

use super::ImageError;
use crate::limited_read::{StandIn, looks_like};

/// Formats that start with these bytes.
const SUPPORTED: &[(&[u8], ImageFormat)] = &[
    (b"\x89PNG\r\n\x1a\n", ImageFormat::Png),
    (b"\xff\xd8\xff", ImageFormat::Jpeg),
    (b"GIF87a", ImageFormat::Gif),
    (b"GIF89a", ImageFormat::Gif),
    (b"BM", ImageFormat::Bmp),
    (b"II*\0", ImageFormat::Tiff),
    (b"MM\0*", ImageFormat::Tiff),
];

/// Formats that are recognized but not supported: offset, magic bytes, name.
const UNSUPPORTED: &[(usize, &[u8], &str)] = &[
    (4, b"ftypavif", "avif"),
    (4, b"ftypheic", "heic"),
    (4, b"ftypmif1", "heif"),
    (0, b"\0\0\0\x0cJXL ", "jpeg-xl"),
    (0, b"\xff\x0a", "jpeg-xl"),
    (0, b"\0\0\0\x0cjP  ", "jpeg-2000"),
    (0, b"8BPS", "psd"),
    (0, b"\0\0\x01\0", "ico"),
];

/// Detects the format.
///
/// # Errors
/// Returns [`ImageError::Empty`], [`ImageError::StandIn`], [`ImageError::Unsupported`] or [`ImageError::NotAnImage`].
pub(super) fn format_of(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    let has = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|tail| tail.starts_with(magic));
    if let Some((_, format)) = SUPPORTED.iter().find(|(magic, _)| has(0, magic)) {
        return Ok(*format);
    }
    if has(0, b"RIFF") && has(8, b"WEBP") {
        return Ok(ImageFormat::WebP);
    }
    if let Some((_, _, format)) = UNSUPPORTED.iter().find(|(offset, magic, _)| has(*offset, magic)) {
        return Err(ImageError::Unsupported { format });
    }
    Err(match StandIn::of(bytes) {
        Some(StandIn::Empty) => ImageError::Empty,
        Some(found) => ImageError::StandIn { found },
        None => ImageError::NotAnImage { looks_like: looks_like(bytes) },
    })
}

/// Returns the extension of a file with these contents, without its dot.
///
/// # Errors
/// Returns an error if the contents are not a supported image.
pub(crate) fn extension(bytes: &[u8]) -> Result<&'static str, ImageError> {
    Ok(match format_of(bytes)? {
        ImageFormat::Jpeg => "jpg",
        other => name_of(other),
    })
}

/// Returns the error of a file of a supported format.
pub(super) fn corrupt(format: ImageFormat, source: impl Into<Box<dyn Error + Send + Sync>>) -> ImageError {
    ImageError::Corrupt { format: name_of(format), source: source.into() }
}

/// Returns the lower-case name of a supported format in messages and tables.
pub(super) fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Gif => "gif",
        ImageFormat::Bmp => "bmp",
        ImageFormat::Tiff => "tiff",
        _ => "webp",
    }
}
