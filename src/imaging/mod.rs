//! Images on the CPU: decodes, resizes and encodes them, and converts them to tensors and back.
//!
//! Nothing here depends on a model. Every function is pure, so that results are bit-identical on every thread.

mod contained;
mod decode;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod resize;
mod sniff;
mod standard;
mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod wrapping;

pub(crate) use contained::{contained, spawn};
pub(crate) use decode::{Color, ImageInfo, Limits, decode, encode_png, info, size};
pub(crate) use error::ImageError;
pub(crate) use resize::{Filter, Fit, center_crop, resize};
pub(crate) use sniff::extension;
pub(crate) use standard::standardize;
pub(crate) use tensor::{check_colors, from_chw, to_chw};
