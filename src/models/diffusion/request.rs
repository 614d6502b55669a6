//! An engine's requests and responses.

use std::sync::Arc;

use super::{EngineError, encoders::Prompt, img2img::Posterior, noise::Normals};
use crate::models::onnx::Reply;

/// One image to generate.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The source image's file: PNG, JPEG or WebP.
    pub(crate) image: Arc<[u8]>,
    /// What the image should show.
    pub(crate) prompt: Arc<str>,
    /// Percent of the source that is kept; 100 is the source itself.
    pub(crate) image_guidance: u8,
    /// Seeds all noise in this image.
    pub(crate) seed: i64,
}

/// The image's PNG file, or why the image was not generated.
pub(super) type Response = Result<Vec<u8>, EngineError>;

/// A request after the encode stage: ready to be denoised.
#[derive(Debug)]
pub(super) struct EncodedRequest {
    pub(super) posterior: Arc<Posterior>,
    pub(super) prompt: Prompt,
    pub(super) image_guidance: u8,
    pub(super) normals: Box<dyn Normals>,
    /// How many timesteps to run.
    pub(super) run: u32,
    pub(super) reply: Reply<Response>,
}

/// A generated image and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generated {
    /// 8-bit RGB.
    pub(crate) png: Vec<u8>,
    /// Timesteps that were run; 0 if the source passed through.
    pub(crate) timesteps: u32,
    /// UNet rows that were computed for this image.
    pub(crate) unet_evaluations: u64,
}
