//! Digests, ids, and random draws keyed on identity.
//!
//! Nothing here reads a clock, a thread or a global random stream. A draw is a pure function of its key, so that no
//! batch, worker, partition, order or resume can change it.

use sha2::{Digest as _, Sha256};

/// Bytes of an id: 128 bits, enough for 10¹⁵ rows at a collision chance below 10⁻⁸.
const ID_BYTES: usize = 16;

/// A SHA-256 over a sequence of parts. Each is preceded by its length, so that `("ab", "c")` and `("a", "bc")` differ.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    /// Starts a digest with `domain`, which keeps ids of different kinds apart.
    pub(crate) fn new(domain: &str) -> Self {
        Self::default().part(domain.as_bytes())
    }

    /// Adds one part.
    #[must_use]
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds one part: the UTF-8 bytes of a string.
    #[must_use]
    pub(crate) fn text(self, text: &str) -> Self {
        self.part(text.as_bytes())
    }

    /// Returns the 32 bytes of the digest.
    pub(crate) fn bytes(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// Returns the first 128 bits as 32 lower-case hexadecimal digits, the form of every id in the lake.
    pub(crate) fn id(self) -> String {
        hex(&self.bytes()[..ID_BYTES])
    }

    /// Draws uniformly from `0..n` for `n` ≥ 1. This is Lemire's multiply-shift on 64 bits of the digest, with a bias
    /// below `n / 2⁶⁴`.
    pub(crate) fn draw(self, n: u64) -> u64 {
        let bytes = self.bytes();
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        let product = u128::from(u64::from_le_bytes(word)) * u128::from(n);
        (product >> 64) as u64
    }
}

/// Returns `bytes` as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|nibble| char::from(DIGITS[usize::from(nibble)])));
    }
    text
}

/// Returns the SHA-256 of `bytes` as 64 hexadecimal digits, by which files and images are named.
pub(crate) fn content_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns the id of a real image. It depends on the path relative to the source, so it survives a move of the source.
pub(crate) fn source_id(relative_path: &str) -> String {
    Digest::new("source").text(relative_path).id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let a = Digest::new("x").text("ab").text("c").id();
        let b = Digest::new("x").text("a").text("bc").id();
        assert_ne!(a, b);
        assert_eq!(a.len(), 2 * ID_BYTES);
    }

    #[test]
    fn ids_are_pinned() {
        // These ids are stored in users' lakes: a change orphans every image that was ever generated.
        assert_eq!(source_id("train.parquet#0"), "57d83eebaf5618212017e42d41138f6a");
        assert_eq!(Digest::new("draw").text("k").draw(1_000_000), 372_548);
    }

    #[test]
    fn draws_are_uniform_enough() {
        let mut counts = [0u32; 10];
        for key in 0..10_000u32 {
            let n = Digest::new("draw").part(&key.to_le_bytes()).draw(10);
            counts[usize::try_from(n).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }
}
