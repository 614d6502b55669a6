//! Detects the format of a file by its first bytes. Names and extensions are ignored.

use image::ImageFormat;

use super::ImageError;
use crate::limited_read::{StandIn, looks_like};

/// Formats that are recognized but not supported: offset, magic bytes, name.
const UNSUPPORTED: &[(usize, &[u8], &str)] = &[
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
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
    if has(0, b"\x89PNG\r\n\x1a\n") {
        return Ok(ImageFormat::Png);
    }
    if has(0, b"\xff\xd8\xff") {
        return Ok(ImageFormat::Jpeg);
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

/// Returns the extension of a file with these contents: `png`, `jpg` or `webp`.
///
/// # Errors
/// Returns an error if the contents are not a supported image.
pub(crate) fn extension(bytes: &[u8]) -> Result<&'static str, ImageError> {
    Ok(match format_of(bytes)? {
        ImageFormat::Jpeg => "jpg",
        other => name_of(other),
    })
}

/// Returns the lower-case name of a supported format in messages and tables.
pub(super) fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpeg",
        _ => "webp",
    }
}
