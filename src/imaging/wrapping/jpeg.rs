//! The wrapping of a JPEG: the segments before its pixels.

use super::{
    Wrapping,
    orientation::{Mark, of_exif},
};

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Reads the wrapping. A grayscale or CMYK image is not standard.
pub(super) fn wrapping(bytes: &[u8]) -> Wrapping {
    let (mut exif, mut xmp, mut has_three_channels) = (Vec::new(), None, false);
    for (marker, contents) in segments(bytes) {
        match marker {
            0xe1 if contents.starts_with(EXIF) => {
                // A long block continues in the next segment.
                exif.extend_from_slice(contents.strip_prefix(EXIF).unwrap_or_default());
            }
            0xe1 => xmp = contents.strip_prefix(XMP).or(xmp),
            // Starts of frames: precision in bits, height, width, number of channels.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                has_three_channels = contents.first() == Some(&8) && contents.get(5) == Some(&3);
            }
            _ => {}
        }
    }
    let mark = if exif.is_empty() { Mark::Absent } else { of_exif(&exif) };
    Wrapping::new(has_three_channels, mark.or_of_xmp(xmp))
}

/// Returns the segments up to the first scan, each with its marker.
fn segments(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut segments, mut at) = (Vec::new(), 2);
    while let (Some(&first), Some(&marker)) = (bytes.get(at), bytes.get(at + 1)) {
        match (first, marker) {
            (0xff, 0xda | 0xd9) => break,
            (0xff, 0xff) | (0..=0xfe, _) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, _) => {
                let Some(length) = bytes.get(at + 2..).and_then(<[u8]>::first_chunk::<2>) else { break };
                let length = usize::from(u16::from_be_bytes(*length));
                segments.push((marker, bytes.get(at + 4..at + 2 + length).unwrap_or_default()));
                at += 2 + length;
            }
        }
    }
    segments
}
