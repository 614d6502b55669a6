//! The wrapping of a PNG: its chunks and checksums.
//!
//! The decoder behind [`image`] skips chunks with a wrong checksum and does not compare the checksum of the pixels. Pillow
//! refuses the former and ignores the latter.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Info};

use super::{
    Wrapping,
    orientation::{Mark, of_exif},
};

/// The most bytes to which Pillow inflates a text or a color profile, before it refuses the file.
const MAX_INFLATED_BYTES: usize = 1 << 20;

/// The most characters that all texts of a file have in Pillow, before it refuses the file.
const MAX_TEXT_CHARS: usize = 64 << 20;

/// Texts in which other tools keep EXIF and XMP.
const RAW_EXIF: &str = "Raw profile type exif";
const XMP: &str = "XML:com.adobe.xmp";

/// Reads the wrapping and the pixels.
///
/// # Errors
/// Returns an error if a checksum of the pixels, or of another chunk without which they cannot be decoded, is wrong.
pub(super) fn wrapping(bytes: &[u8]) -> Result<Wrapping, DecodingError> {
    let (info, has_right_checksums) = match read(bytes, true) {
        Ok(info) => (info, true),
        Err(_) => (read(bytes, false)?, false),
    };
    let texts = Texts::of(&info);
    let standard_pixels = info.color_type == ColorType::Rgb
        && info.bit_depth == BitDepth::Eight
        && has_right_checksums
        && chunks(bytes).all(|(name, contents)| is_standard(name, contents))
        && chunks(bytes).filter(|(name, _)| is_text(name)).count() == texts.of_any_kind
        && (info.icc_profile.is_some() || !chunks(bytes).any(|(name, _)| name == b"iCCP"))
        && info.icc_profile.as_ref().is_none_or(|profile| profile.len() <= MAX_INFLATED_BYTES);
    Ok(Wrapping::new(standard_pixels, mark(&info, &texts)))
}

/// Returns how the pixels are turned to stand upright.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    if !chunks(bytes).any(|(name, _)| name == b"eXIf" || is_text(name)) {
        return Orientation::NoTransforms;
    }
    read(bytes, false).map_or(Orientation::NoTransforms, |info| mark(&info, &Texts::of(&info)).orientation())
}

/// Decodes a file to its end. Returns everything that it says but the pixels.
fn read(bytes: &[u8], strict: bool) -> Result<Info<'static>, DecodingError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_adler32(false);
    options.set_skip_ancillary_crc_failures(!strict);
    let mut reader = Decoder::new_with_options(Cursor::new(bytes), options).read_info()?;
    while reader.next_row()?.is_some() {}
    reader.finish()?;
    Ok(reader.info().clone())
}

/// Returns the chunks up to the end, each with its name.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        rest = after.get(length.checked_add(4)?..)?;
        Some((name, after.get(..length)?))
    })
}

fn is_text(name: &[u8; 4]) -> bool {
    matches!(name, b"tEXt" | b"zTXt" | b"iTXt")
}

/// Whether Pillow reads a chunk and finds neither transparency nor an animation in it.
fn is_standard(name: &[u8; 4], contents: &[u8]) -> bool {
    match name {
        b"tRNS" | b"acTL" | b"fcTL" | b"fdAT" => false,
        b"gAMA" => contents.len() == 4,
        b"cHRM" => contents.len() == 32,
        b"sRGB" => contents.len() == 1,
        b"pHYs" => contents.len() == 9,
        _ => name.iter().all(u8::is_ascii_alphabetic),
    }
}

/// The texts of a file.
struct Texts {
    /// How many can be read, whatever they are; up to [`MAX_TEXT_CHARS`] of them all.
    of_any_kind: usize,
    exif: Option<String>,
    xmp: Option<String>,
}

impl Texts {
    fn of(info: &Info<'_>) -> Self {
        let plain = info.uncompressed_latin1_text.iter().map(|text| (text.keyword.clone(), text.text.clone()));
        let compressed = info.compressed_latin1_text.iter().filter_map(|text| {
            let mut text = text.clone();
            text.decompress_text_with_limit(MAX_INFLATED_BYTES).ok()?;
            Some((text.keyword.clone(), text.get_text().ok()?))
        });
        let unicode = info.utf8_text.iter().filter_map(|text| {
            let mut text = text.clone();
            text.decompress_text_with_limit(MAX_INFLATED_BYTES).ok()?;
            Some((text.keyword.clone(), text.get_text().ok()?))
        });
        let mut texts = Self { of_any_kind: 0, exif: None, xmp: None };
        let mut chars = 0;
        for (keyword, text) in plain.chain(compressed).chain(unicode) {
            chars += text.chars().count();
            if chars > MAX_TEXT_CHARS {
                break;
            }
            texts.of_any_kind += 1;
            match keyword.as_str() {
                RAW_EXIF => texts.exif = Some(text),
                XMP => texts.xmp = Some(text),
                _ => {}
            }
        }
        texts
    }
}

fn mark(info: &Info<'_>, texts: &Texts) -> Mark {
    let of_text = |text: &String| raw_profile(text).map_or(Mark::Odd, |exif| of_exif(&exif));
    let mark = match &info.exif_metadata {
        Some(exif) => of_exif(exif),
        None => texts.exif.as_ref().map_or(Mark::Absent, of_text),
    };
    mark.or_of_xmp(texts.xmp.as_ref().map(String::as_bytes))
}

/// Decodes ImageMagick's form of a profile in a text: a line with its name, one with its length, then hexadecimal digits.
fn raw_profile(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.split('\n').skip(3).flat_map(str::bytes).filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}
