//! The orientation in EXIF and XMP metadata, as Pillow's `getexif` finds it.

use image::metadata::Orientation;

use super::tiff::Tiff;

/// What metadata says about the orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing.
    Absent,
    /// This number; 1 to 8 are defined, others mean nothing.
    Is(u8),
    /// Something that readers disagree on or fail at.
    Odd,
}

impl Mark {
    /// Returns how the pixels are turned to stand upright.
    pub(super) fn orientation(self) -> Orientation {
        let number = if let Self::Is(number) = self { number } else { 1 };
        Orientation::from_exif(number).unwrap_or(Orientation::NoTransforms)
    }

    pub(super) fn is_odd(self) -> bool {
        self == Self::Odd
    }

    /// Returns this mark, or that of XMP if there is none, as in Pillow.
    pub(super) fn or_of_xmp(self, xmp: Option<&[u8]>) -> Self {
        if self == Self::Absent { xmp.map_or(Self::Absent, of_xmp) } else { self }
    }
}

const PREFIX: &[u8] = b"Exif\0\0";
const TAG: u16 = 0x0112;
const XMP_TAG: &[u8] = b"tiff:Orientation";

/// Bytes of one value of each type of a TIFF field, from type 1. 0 for numbers that are not a type.
const TYPE_SIZES: [u64; 16] = [1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8];

/// Returns the orientation of an EXIF block, which is a TIFF file after any number of prefixes `Exif\0\0`.
pub(super) fn of_exif(mut exif: &[u8]) -> Mark {
    while let Some(rest) = exif.strip_prefix(PREFIX) {
        exif = rest;
    }
    match Tiff::new(exif) {
        Some(tiff) => of_directory(&tiff),
        None if exif.is_empty() => Mark::Absent,
        None => Mark::Odd,
    }
}

/// Reads the first directory. A field whose values are not there ends it, as in Pillow.
fn of_directory(tiff: &Tiff<'_>) -> Mark {
    let mut found = Mark::Absent;
    let Some(start) = tiff.u32(4).map(u64::from) else { return Mark::Odd };
    let count = u64::from(tiff.u16(start).unwrap_or(0));
    for at in (0..count).map(|field| start + 2 + 12 * field) {
        let fields = (tiff.u16(at), tiff.u16(at + 2), tiff.u32(at + 4), tiff.u32(at + 8));
        let (Some(tag), Some(kind), Some(values), Some(offset)) = fields else { break };
        let size = usize::from(kind).checked_sub(1).and_then(|kind| TYPE_SIZES.get(kind)).copied().unwrap_or(0);
        let size = size * u64::from(values);
        if size > 4 && u64::from(offset) + size > tiff.bytes.len() as u64 {
            break;
        }
        if tag == TAG && size > 0 {
            let value = match (kind, values) {
                (3 | 8, 1) => tiff.u16(at + 8).map(u32::from),
                (4 | 9 | 13, 1) => Some(offset),
                _ => None,
            };
            found = value.map_or(Mark::Odd, |value| Mark::Is(u8::try_from(value).unwrap_or(u8::MAX)));
        }
    }
    found
}

/// Returns the orientation of an XMP packet: `tiff:Orientation="6"` or `tiff:Orientation>6`.
fn of_xmp(xmp: &[u8]) -> Mark {
    let mut rest = xmp;
    while let Some(at) = rest.windows(XMP_TAG.len()).position(|window| window == XMP_TAG) {
        rest = rest.get(at + XMP_TAG.len()..).unwrap_or_default();
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">")).and_then(<[u8]>::first);
        if let Some(digit @ b'0'..=b'9') = value {
            return Mark::Is(digit - b'0');
        }
    }
    Mark::Absent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(kind: u16, values: u32, value: [u8; 4]) -> Vec<u8> {
        let field = [&TAG.to_be_bytes()[..], &kind.to_be_bytes(), &values.to_be_bytes(), &value].concat();
        [&b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01"[..], &field, &[0; 4]].concat()
    }

    #[test]
    fn the_tag_is_read_from_any_integer() {
        assert_eq!(of_exif(&exif(3, 1, [0, 6, 0, 0])), Mark::Is(6));
        assert_eq!(of_exif(&exif(4, 1, [0, 0, 0, 8])), Mark::Is(8));
        assert_eq!(of_exif(&exif(3, 1, [0, 99, 0, 0])), Mark::Is(99));
        assert_eq!(Mark::Is(99).orientation(), Orientation::NoTransforms);
        assert_eq!(of_exif(&exif(3, 0, [0; 4])), Mark::Absent);
        assert_eq!(of_exif(&exif(3, 2, [0, 6, 0, 6])), Mark::Odd);
        assert_eq!(of_exif(b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0"), Mark::Is(3));
    }

    #[test]
    fn what_is_not_tiff_is_odd_and_what_is_cut_off_absent() {
        assert_eq!(of_exif(b"Exif\0\0"), Mark::Absent);
        assert_eq!(of_exif(b"Exif\0\0Exif\0\0"), Mark::Absent);
        assert_eq!(of_exif(b"Exif\0\0MM"), Mark::Odd);
        assert_eq!(of_exif(b"Exif\0\0garbage, and more of it"), Mark::Odd);
        let whole = exif(3, 1, [0, 6, 0, 0]);
        assert_eq!(of_exif(&whole[..20]), Mark::Absent);
        for length in 0..whole.len() {
            of_exif(&whole[..length]);
        }
    }

    #[test]
    fn xmp_counts_only_without_exif() {
        let xmp = br#"<rdf:Description tiff:OrientationX="1" tiff:Orientation="6"/>"#;
        assert_eq!(Mark::Absent.or_of_xmp(Some(xmp)), Mark::Is(6));
        assert_eq!(Mark::Is(1).or_of_xmp(Some(xmp)), Mark::Is(1));
        assert_eq!(Mark::Absent.or_of_xmp(Some(b"<tiff:Orientation>8</tiff:Orientation>")), Mark::Is(8));
        assert_eq!(Mark::Absent.or_of_xmp(None), Mark::Absent);
    }
}
