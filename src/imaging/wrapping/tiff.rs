//! The fields of a TIFF file, which EXIF is, too.

const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const COLORS: u16 = 262;
const SAMPLE_FORMAT: u16 = 339;

/// Numbers of compressions that few readers know.
const COMPRESSIONS: [(u32, &str); 11] = [
    (2, "CCITT"),
    (3, "CCITT fax 3"),
    (4, "CCITT fax 4"),
    (6, "JPEG of TIFF 6"),
    (34661, "JBIG"),
    (34712, "JPEG 2000"),
    (34887, "LERC"),
    (34925, "LZMA"),
    (50000, "zstd"),
    (50001, "WebP"),
    (50002, "JPEG XL"),
];
/// Numbers of what samples mean that few readers know.
const COLOR_SPACES: [(u32, &str); 7] = [
    (4, "a mask"),
    (6, "YCbCr"),
    (8, "Lab colors"),
    (9, "ICC Lab colors"),
    (10, "ITU Lab colors"),
    (32844, "LogL"),
    (32845, "LogLuv colors"),
];

/// A TIFF file and its byte order.
pub(super) struct Tiff<'a> {
    pub(super) bytes: &'a [u8],
    little: bool,
}

impl<'a> Tiff<'a> {
    /// Reads the header; `None` if it is not that of a TIFF file.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let little = match bytes.first_chunk::<8>()?[..4] {
            [b'I', b'I', 42, 0] => true,
            [b'M', b'M', 0, 42] => false,
            _ => return None,
        };
        Some(Self { bytes, little })
    }

    pub(super) fn u16(&self, at: u64) -> Option<u16> {
        let bytes = *self.bytes.get(usize::try_from(at).ok()?..)?.first_chunk::<2>()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    pub(super) fn u32(&self, at: u64) -> Option<u32> {
        let bytes = *self.bytes.get(usize::try_from(at).ok()?..)?.first_chunk::<4>()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// Returns the first value of a field of the first directory, if it is an integer of 16 or 32 bits.
    fn first(&self, tag: u16) -> Option<u32> {
        let start = u64::from(self.u32(4)?);
        let count = u64::from(self.u16(start)?);
        let at = (0..count).map(|field| start + 2 + 12 * field).find(|at| self.u16(*at) == Some(tag))?;
        match (self.u16(at + 2)?, self.u32(at + 4)?) {
            (3, 1 | 2) => self.u16(at + 8).map(u32::from),
            (3, _) => self.u16(u64::from(self.u32(at + 8)?)).map(u32::from),
            (4, 1) => self.u32(at + 8),
            _ => None,
        }
    }
}

/// Returns what few readers know of a TIFF file: how its samples are stored, what they mean, and how it is compressed.
pub(super) fn unusual(bytes: &[u8]) -> Option<String> {
    let tiff = Tiff::new(bytes)?;
    let bits = tiff.first(BITS).unwrap_or(1);
    let samples = match tiff.first(SAMPLE_FORMAT) {
        Some(2) => format!("signed samples of {bits} bits"),
        Some(3) => format!("floating-point samples of {bits} bits"),
        Some(5 | 6) => format!("complex samples of {bits} bits"),
        _ if matches!(bits, 8 | 16) => String::new(),
        _ => format!("samples of {bits} bits"),
    };
    let named = |known: &[(u32, &str)], tag| {
        let number = tiff.first(tag)?;
        known.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned())
    };
    let colors = named(&COLOR_SPACES, COLORS).unwrap_or_default();
    let compression = named(&COMPRESSIONS, COMPRESSION).map(|name| format!("the compression {name}"));
    let parts: Vec<String> =
        [samples, colors, compression.unwrap_or_default()].into_iter().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TIFF file with these fields of one 16-bit value.
    fn tiff(fields: &[(u16, u16)]) -> Vec<u8> {
        let count = u16::try_from(fields.len()).unwrap();
        let fields = fields.iter().flat_map(|(tag, value)| {
            [&tag.to_le_bytes()[..], &3_u16.to_le_bytes(), &1_u32.to_le_bytes(), &value.to_le_bytes(), &[0; 2]].concat()
        });
        [&b"II*\0\x08\0\0\0"[..], &count.to_le_bytes()].concat().into_iter().chain(fields).chain([0; 4]).collect()
    }

    #[test]
    fn what_few_readers_know_has_a_name() {
        for (fields, expected) in [
            (&[(BITS, 32), (SAMPLE_FORMAT, 3)][..], Some("floating-point samples of 32 bits")),
            (&[(BITS, 8), (COLORS, 8), (COMPRESSION, 50000)], Some("Lab colors, the compression zstd")),
            (&[(BITS, 8), (COLORS, 2), (COMPRESSION, 1)], None),
        ] {
            assert_eq!(unusual(&tiff(fields)).as_deref(), expected);
            for length in 0..tiff(fields).len() {
                unusual(&tiff(fields)[..length]);
            }
        }
    }
}
