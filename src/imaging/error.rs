//! What can be wrong with one image. Every variant is about the image, never about the job.

use std::error::Error;
use std::iter::successors;

/// Why bytes could not become an image, or an image bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// There are no bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The bytes are something else.
    #[error("not an image: it looks like {looks_like}")]
    NotAImage {
        /// What the first bytes look like, as words.
        looks_like: &'static str,
    },
    /// An image, in a format that is not read.
    #[error("the image format `{format}` is not supported; supported are `png`, `jpeg` and `webp`")]
    Unsupported {
        /// The format's name.
        format: &'static str,
    },
    /// The right format, but its contents end early or contradict themselves.
    #[error("the `{format}` image is truncated or corrupt")]
    Corrupt {
        /// The format's name.
        format: &'static str,
        /// What the decoder says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// More bytes than the limit.
    #[error("the file has {bytes} bytes, more than the limit of {limit}")]
    TooManyBytes {
        /// Length of the file.
        bytes: u64,
        /// Largest length allowed.
        limit: u64,
    },
    /// More pixels than the limit.
    #[error("the image is {width} x {height} pixels, more than the limit of {limit} pixels")]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Most pixels allowed.
        limit: u64,
    },
    /// A side longer than the limit.
    #[error("the image is {width} x {height} pixels, and a side may have {limit} at most")]
    SideTooLong {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Longest side allowed.
        limit: u32,
    },
    /// A side of no pixels.
    #[error("an image of {width} x {height} pixels has no area")]
    NoArea {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A tensor that does not hold an image of that size.
    #[error("{values} values are not an image of 3 x {height} x {width}")]
    WrongLength {
        /// How many values there are.
        values: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A tensor with a NaN or an infinity in it.
    #[error("the image has values that are not numbers")]
    NotFinite,
    /// The PNG encoder refused.
    #[error("the image cannot be written as png")]
    Encode {
        /// What the encoder says.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ImageError {
    /// The error with its causes, in one line for a table of rejects.
    pub(crate) fn chain(&self) -> String {
        let causes = successors(self.source(), |&error| error.source());
        causes.fold(self.to_string(), |line, error| format!("{line}: {error}"))
    }
}
