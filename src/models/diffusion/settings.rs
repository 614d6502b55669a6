//! An engine's settings.

use std::num::NonZeroU32;

use super::{noise::NoiseGenerator, schedulers::SchedulerName};
use crate::{
    imaging::{Fit, Limits},
    models::onnx::{CudaOptions, default_threads},
};

/// The settings that all images of an engine share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Replaces the model's own scheduler.
    pub(crate) scheduler: Option<SchedulerName>,
    /// Timesteps of the whole schedule; a level of image guidance runs a part of them.
    pub(crate) timesteps: NonZeroU32,
    /// diffusers' factor; classifier-free guidance is on above 1.
    pub(crate) guidance_scale: f64,
    /// What images should not show. If absent, diffusers encodes the empty prompt, or uses zeros for pipelines that set
    /// `force_zeros_for_empty_prompt`.
    pub(crate) negative_prompt: Option<String>,
    /// The generator of random numbers.
    pub(crate) noise: NoiseGenerator,
    /// Starts image guidance 0 from noise alone; diffusers leaves some of the source even at strength 1.
    pub(crate) pure_noise_at_zero: bool,
    /// Samples in one UNet call; if absent, a number that follows from the size of the images and the memory of the device.
    /// Images are bit-identical only for one batch size.
    pub(crate) batch_size: Option<usize>,
    /// Cores that the models may use on the CPU.
    pub(crate) threads: usize,
    pub(crate) cuda: CudaOptions,
    /// Requests that may be waiting or running; further callers are held back. If absent, four for each slot of a batch.
    pub(crate) queue: Option<usize>,
    /// The largest source image that is opened.
    pub(crate) limits: Limits,
    /// The size to which source images are resized first; if absent, they keep their own.
    pub(crate) size: Option<Fit>,
}

/// Returns the rows of a UNet call that one sample takes. Classifier-free guidance, which is on for a `guidance_scale`
/// above 1, adds a second row for the negative prompt.
pub(crate) fn rows_per_sample(guidance_scale: f64) -> u32 {
    if guidance_scale > 1.0 { 2 } else { 1 }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheduler: None,
            timesteps: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
            guidance_scale: 10.0,
            negative_prompt: None,
            noise: NoiseGenerator::default(),
            pure_noise_at_zero: false,
            batch_size: None,
            threads: default_threads(),
            cuda: CudaOptions::default(),
            queue: None,
            limits: Limits::default(),
            size: None,
        }
    }
}
