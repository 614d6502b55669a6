//! The wrapping of a WebP: the chunks of its RIFF file.

use super::{
    Wrapping,
    orientation::{Mark, of_exif},
};

/// Flags of the chunk `VP8X`.
const ANIMATION: u8 = 0x02;
const XMP: u8 = 0x04;
const EXIF: u8 = 0x08;
const ALPHA: u8 = 0x10;

/// Reads the wrapping. An animation, or an image with alpha, is not standard.
pub(super) fn wrapping(bytes: &[u8]) -> Wrapping {
    let (mut flags, mut exif, mut xmp, mut has_alpha) = (0, None, None, false);
    for (name, contents) in chunks(bytes) {
        match &name {
            b"VP8X" => flags = contents.first().copied().unwrap_or(0),
            // A signature byte, two sides of 14 bits less one, then the bit for alpha.
            b"VP8L" => has_alpha |= contents.get(4).is_some_and(|byte| byte & 0x10 != 0),
            b"EXIF" => exif = exif.or(Some(contents)),
            b"XMP " => xmp = xmp.or(Some(contents)),
            _ => {}
        }
    }
    // libwebp keeps only metadata that the flags announce.
    let mark = exif.filter(|_| flags & EXIF != 0).map_or(Mark::Absent, of_exif);
    let mark = mark.or_of_xmp(xmp.filter(|_| flags & XMP != 0));
    Wrapping::new(!has_alpha && flags & (ANIMATION | ALPHA) == 0, mark)
}

/// Returns the chunks of a RIFF file, each with its name.
fn chunks(bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let (mut chunks, mut rest) = (Vec::new(), bytes.get(12..).unwrap_or_default());
    while let Some((name, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk::<4>() else { break };
        let length = u32::from_le_bytes(*length) as usize;
        chunks.push((*name, after.get(..length).unwrap_or(after)));
        // Chunks have an even length.
        rest = after.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
    chunks
}
