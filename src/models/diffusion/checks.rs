//! Shared by the checks of a model directory's parts.

use crate::models::{
    model_dir,
    onnx::{Element, Want},
};

/// The problems of a Stable Diffusion directory.
pub(super) type Problems = model_dir::Problems<super::DiffusionError>;

/// The axis over the rows of a call.
pub(super) const BATCH: Want = Want::Any("batch");

pub(super) const FLOATS: &[Element] = &[Element::F32, Element::F16];

/// The name of each part's graph, without `.onnx`.
pub(super) const GRAPH: &str = "model";
