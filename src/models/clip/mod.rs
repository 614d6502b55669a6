//! CLIP: embeds texts and images as unit vectors. The cosine of two vectors measures their similarity.
//!
//! [`ClipFiles`] reads what a model directory holds. `Clip` is the loaded model. [`ClipEngine`] shares it between
//! callers.

mod engine;
mod error;
mod files;
mod model;

pub(crate) use engine::{ClipEngine, ClipSettings, ClipStats};
pub(crate) use error::{ClipError, EmbedError};
pub(crate) use files::{ClipFiles, graph_names, graph_paths};

#[cfg(test)]
mod tests;
