//! CLIP: texts and images as unit vectors whose cosine says how well they agree.
//!
//! [`ClipFiles`] reads what a model directory holds, `Clip` is the model itself, and [`ClipEngine`] shares one
//! with everyone.

mod engine;
mod error;
mod files;
mod model;

pub(crate) use engine::{ClipEngine, ClipSettings, ClipStats};
pub(crate) use error::{ClipError, EmbedError};
pub(crate) use files::ClipFiles;

#[cfg(test)]
mod tests;
