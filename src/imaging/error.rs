//! What can be wrong with an image.

use std::{error::Error, iter::successors};

use crate::limited_read::StandIn;

/// Why a file cannot be decoded, or an image cannot be encoded. Each variant concerns one image, never the job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("the file is empty")]
    Empty,
    /// The file was never downloaded.
    #[error("not an image: it is {found}; {}", found.remedy())]
    StandIn { found: StandIn },
    /// Not an image.
    #[error("not an image: it looks like {looks_like}")]
    NotAnImage {
        /// What the first bytes look like.
        looks_like: &'static str,
    },
    /// An image in an unsupported format.
    #[error(
        "the image format `{format}` is not supported; supported are `png`, `jpeg`, `webp`, `gif`, `bmp` and `tiff`"
    )]
    Unsupported { format: &'static str },
    /// A supported format of a kind that is not.
    #[error("this kind of `{format}` image is not supported: {kind}")]
    UnsupportedKind { format: &'static str, kind: String },
    /// A supported format whose contents are truncated or contradictory.
    #[error("the `{format}` image is truncated or corrupt")]
    Corrupt { format: &'static str, source: Box<dyn Error + Send + Sync> },
    /// A bug of a decoder or of ours, most likely on a corrupt file.
    #[error("the image cannot be processed: the code that processes it panicked")]
    Panicked,
    #[error("the file has {bytes} bytes, more than the limit of {limit}")]
    TooManyBytes { bytes: u64, limit: u64 },
    #[error("the image is {width} x {height} pixels, more than the limit of {limit} pixels")]
    TooManyPixels { width: u32, height: u32, limit: u64 },
    #[error("the image is {width} x {height} pixels; a side may have at most {limit}")]
    SideTooLong { width: u32, height: u32, limit: u32 },
    /// A side has no pixels.
    #[error("an image of {width} x {height} pixels has no area")]
    NoArea { width: u32, height: u32 },
    /// A tensor of another size than the image.
    #[error("{values} values do not make an image of 3 x {height} x {width}")]
    WrongLength { values: usize, width: u32, height: u32 },
    /// A tensor with a NaN or an infinity.
    #[error("the image has values that are not finite")]
    NotFinite,
    /// What a VAE decodes from numbers that are out of its range.
    #[error("the generated image has one color, {color}, everywhere: the model's numbers are out of range")]
    OneColor { color: String },
    #[error("cannot encode the image as {format}")]
    Encode { format: &'static str, source: Box<dyn Error + Send + Sync> },
}

impl ImageError {
    /// Returns the error with its causes on one line, for the table of rejects.
    pub(crate) fn chain(&self) -> String {
        let causes = successors(self.source(), |&error| error.source());
        causes.fold(self.to_string(), |line, error| format!("{line}: {error}"))
    }
}
