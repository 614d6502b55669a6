//! Images on the CPU: decode, resize, turn into tensors and back, encode.
//!
//! Nothing here knows a model but by what its preprocessing asks for. Everything is a pure function of its arguments, so that an image is the same to
//! the bit whichever thread made it.

mod decode;
mod error;
mod preprocess;
mod resize;
mod sniff;
mod tensor;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use decode::{ImageInfo, Limits, decode, decode_on_white, encode_png, info};
pub(crate) use error::ImageError;
pub(crate) use preprocess::{Preprocess, PreprocessError};
pub(crate) use resize::{Filter, Fit, centre_crop, resize};
pub(crate) use sniff::extension;
pub(crate) use tensor::{from_chw, to_chw};
