//! Image-guided diffusion: an image, a prompt and a level in; an image out.
//!
//! [`DiffusionFiles`] reads what a model directory holds, [`Engine`] runs it for everyone on one device. The
//! arithmetic is that of diffusers' `StableDiffusionImg2ImgPipeline`, compared with it number by number in tests.

mod batch;
mod denoiser;
mod describe;
mod encode_stage;
mod encoders;
mod engine;
mod error;
mod family;
mod files;
mod img2img;
mod noise;
mod queue;
mod schedulers;
mod timesteps;
mod torch;
mod worker;

pub(crate) use describe::describe;
pub(crate) use engine::{Engine, Job, Settings, Stats};
pub(crate) use error::{DiffusionError, EngineError};
pub(crate) use files::{DiffusionFiles, PARTS};
pub(crate) use noise::NoiseSource;
pub(crate) use schedulers::{Scheduler, SchedulerName};
pub(crate) use timesteps::{rows_per_sample, timesteps_run};

#[cfg(test)]
mod tests;
