//! Decodes image files to pixels, and encodes pixels as PNG.

use std::io::Cursor;

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Rgb, RgbImage, Rgba,
    codecs::png::{CompressionType, FilterType, PngEncoder},
    metadata::Orientation,
};
use sha2::{Digest, Sha256};

use super::{
    ImageError, contained,
    sniff::{corrupt, format_of, name_of},
    wrapping,
};

/// Limits on images that are opened. They are compared with the file's length and header before anything is decoded, so
/// that a small file cannot cause a large allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The most pixels: width times height.
    pub(crate) max_pixels: u64,
    /// The most bytes of a file.
    pub(crate) max_bytes: u64,
    /// The longest side, in pixels.
    pub(crate) max_side: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 64 << 20, max_bytes: 256 << 20, max_side: 16_384 }
    }
}

/// Facts about an image, known once it was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageInfo {
    /// Of the image upright, as the height.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `png`, `jpeg`, `webp`, `gif`, `bmp` or `tiff`, detected from the contents.
    pub(crate) format: &'static str,
    /// SHA-256 of the file's bytes, in lower-case hex.
    pub(crate) digest: String,
}

/// A color: red, green, blue.
pub(crate) type Color = [u8; 3];

const WHITE: Color = [255; 3];

/// Decodes an image file, whose format is detected from its contents, to 8-bit RGB.
///
/// The image is turned upright, as its EXIF or XMP orientation says, and transparency is composited over white. Palettes
/// are looked up, grayscale is repeated, CMYK is converted, 16-bit samples are scaled to 8 bits (Pillow clips grayscale
/// ones at 255). An animation gives its first frame.
///
/// # Errors
/// Returns an error if the bytes are not a supported, complete image within the limits. A file that ends before its
/// format's end marker is corrupt, even if a lenient decoder would fill the rest with gray.
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    decode_over(bytes, limits, WHITE)
}

/// As [`decode`], over another color than white.
///
/// # Errors
/// Returns the errors of [`decode`].
pub(super) fn decode_over(bytes: &[u8], limits: &Limits, background: Color) -> Result<RgbImage, ImageError> {
    let (image, _) = decode_with_format(bytes, limits)?;
    if !image.color().has_alpha() {
        return Ok(image.into_rgb8());
    }
    let image = image.into_rgba8();
    let (width, height) = image.dimensions();
    Ok(RgbImage::from_fn(width, height, |x, y| {
        let &Rgba([red, green, blue, alpha]) = image.get_pixel(x, y);
        let [r, g, b] = background;
        Rgb([(red, r), (green, g), (blue, b)].map(|(value, behind)| over(value, behind, alpha)))
    }))
}

fn over(value: u8, behind: u8, alpha: u8) -> u8 {
    let [value, behind, alpha] = [value, behind, alpha].map(u32::from);
    // At most 255, rounded.
    ((value * alpha + behind * (255 - alpha) + 127) / 255) as u8
}

/// Decodes an image and returns facts about it.
///
/// # Errors
/// Returns the errors of [`decode`]: a valid header does not suffice if the pixels are cut off.
pub(crate) fn info(bytes: &[u8], limits: &Limits) -> Result<ImageInfo, ImageError> {
    let (image, format) = decode_with_format(bytes, limits)?;
    let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ImageInfo { width: image.width(), height: image.height(), format: name_of(format), digest })
}

/// Returns width and height of an image upright, from its header.
///
/// # Errors
/// Returns an error if the file is not a supported, complete image within the limits.
pub(crate) fn size(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), ImageError> {
    contained(|| {
        let (decoder, format) = open(bytes, limits)?;
        let (width, height) = decoder.dimensions();
        Ok(match wrapping::orientation(bytes, format) {
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => (width, height),
            _ => (height, width),
        })
    })
}

/// Encodes 8-bit RGB as PNG. Equal pixels give equal bytes.
///
/// # Errors
/// Returns [`ImageError::Encode`] if the encoder fails, as for an image without area.
pub(crate) fn encode_png(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
        .write_image(image.as_raw(), image.width(), image.height(), ExtendedColorType::Rgb8)
        .map_err(|error| ImageError::Encode { format: "png", source: error.into() })?;
    Ok(png)
}

/// Decodes an image and turns it upright. Catches panics of decoders: one image must not end a run.
fn decode_with_format(bytes: &[u8], limits: &Limits) -> Result<(DynamicImage, ImageFormat), ImageError> {
    contained(|| decode_checked(bytes, limits))
}

fn decode_checked(bytes: &[u8], limits: &Limits) -> Result<(DynamicImage, ImageFormat), ImageError> {
    let (decoder, format) = open(bytes, limits)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| undecodable(bytes, format, error))?;
    image.apply_orientation(wrapping::orientation(bytes, format));
    Ok((image, format))
}

/// Opens a file: its header is read and is within the limits, and its end is there. Nothing is decoded.
///
/// # Errors
/// Returns an error if the bytes are not a supported, complete image within the limits.
pub(super) fn open<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(impl ImageDecoder + use<'a>, ImageFormat), ImageError> {
    let length = bytes.len() as u64;
    if length > limits.max_bytes {
        return Err(ImageError::TooManyBytes { bytes: length, limit: limits.max_bytes });
    }
    let format = format_of(bytes)?;
    let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder();
    let decoder = decoder.map_err(|error| undecodable(bytes, format, error))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    if !is_complete(bytes, format) {
        return Err(corrupt(format, "its end is missing"));
    }
    Ok((decoder, format))
}

/// Returns the error of a file that its decoder refuses.
fn undecodable(bytes: &[u8], format: ImageFormat, error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::Unsupported(error) => {
            let kind = wrapping::unusual(bytes, format).unwrap_or_else(|| error.to_string());
            ImageError::UnsupportedKind { format: name_of(format), kind }
        }
        error => corrupt(format, error),
    }
}

fn check_size(width: u32, height: u32, limits: &Limits) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoArea { width, height });
    }
    if width.max(height) > limits.max_side {
        return Err(ImageError::SideTooLong { width, height, limit: limits.max_side });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(ImageError::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    Ok(())
}

/// Whether the file reaches the end marker of its format. The JPEG decoder fills missing pixels with gray, and a
/// truncated image must not enter a training set unnoticed.
fn is_complete(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg_reaches_end(bytes),
        ImageFormat::Png => png_reaches_end(bytes),
        ImageFormat::WebP => webp_reaches_end(bytes),
        // Their decoders fail if something is missing.
        _ => true,
    }
}

/// Walks JPEG markers to the end-of-image marker. That of an embedded thumbnail is inside a segment and is skipped.
fn jpeg_reaches_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let (Some(&first), Some(&marker)) = (bytes.get(at), bytes.get(at + 1)) {
        match (first, marker) {
            (0xff, 0xd9) => return true,
            // Markers without a length, stuffed zeros and fill bytes, mostly inside entropy-coded data.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, 0xff) | (0..=0xfe, _) => at += 1,
            (0xff, _) => {
                let (Some(&high), Some(&low)) = (bytes.get(at + 2), bytes.get(at + 3)) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// Walks PNG chunks to `IEND` with its checksum.
fn png_reaches_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(after) = tail.get(4 + length + 4..) else { return false };
        if tail.starts_with(b"IEND") {
            return true;
        }
        rest = after;
    }
    false
}

/// Compares the length that a RIFF file declares.
fn webp_reaches_end(bytes: &[u8]) -> bool {
    let declared = bytes.get(4..).and_then(|tail| tail.first_chunk::<4>());
    declared.is_some_and(|length| bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes(*length)))
}

#[cfg(test)]
mod tests;
