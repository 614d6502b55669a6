//! Detects the format of a file by its first bytes. Names and extensions are ignored.

use std::error::Error;

use image::ImageFormat;

use super::ImageError;

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

/// Files that are not images: offset, magic bytes, description.
const OTHER: &[(usize, &[u8], &str)] = &[
    (0, b"%PDF", "a pdf document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"PAR1", "a parquet file"),
    (257, b"ustar", "a tar archive"),
    (4, b"ftyp", "a video"),
];

/// Detects the format.
///
/// # Errors
/// Returns [`ImageError::Empty`], [`ImageError::Unsupported`] or [`ImageError::NotAnImage`].
pub(super) fn format_of(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
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
    Err(ImageError::NotAnImage { looks_like: other(bytes, has) })
}

fn other(bytes: &[u8], has: impl Fn(usize, &[u8]) -> bool) -> &'static str {
    if let Some((_, _, name)) = OTHER.iter().find(|(offset, magic, _)| has(*offset, magic)) {
        return name;
    }
    let head = bytes.get(..bytes.len().min(512)).unwrap_or(bytes);
    // A character that the limit of 512 bytes cuts in two does not make the rest binary.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return "binary data of unknown kind",
    };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        "binary data of unknown kind"
    } else if text.trim_start().starts_with('<') {
        "`html` or `xml`"
    } else if text.trim_start().starts_with(['{', '[']) {
        "`json`"
    } else {
        "`text`"
    }
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
