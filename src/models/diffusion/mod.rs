//! Image-guided diffusion: takes an image, a prompt and a level of image guidance, and generates an image.
//!
//! [`DiffusionFiles`] reads the contents of a model directory. [`Engine`] runs the model for all callers of one device.
//! The arithmetic is that of diffusers' `StableDiffusionImg2ImgPipeline`; tests compare the two number by number.
//!
//! # Continuous batching
//!
//! A UNet is fastest on a full batch, but requests arrive at different times and run different numbers of timesteps.
//! The engine therefore does not wait for a batch to finish before it starts the next one. A batch is a fixed number of
//! slots. Each slot holds one image at its own timestep; one call of the UNet moves all of them forward by one timestep.
//! A finished image leaves its slot at once, and the next request takes the slot before the next call.
//!
//! A request passes through four parts:
//!
//! - The *encode stage* (`encode_stage.rs`, one thread) decodes and encodes its source image and its prompt. It encodes
//!   equal images and equal prompts once.
//! - The *queue* (`queue.rs`) holds encoded requests, grouped by the size of their latents: only samples of one size
//!   share a batch.
//! - A *worker* (`worker.rs`, one thread for each copy of the UNet) fills the free slots of its batch from the queue and
//!   denoises.
//! - The *decode stage* (`decode_stage.rs`, one thread for each device) decodes finished images.
//!
//! Batches keep their shape: an empty slot is computed as padding. An image is therefore bit-identical whatever else is
//! in its batch (`tests/batch_invariance.rs`).

mod batch;
mod batch_size;
mod bench;
mod checks;
mod decode_stage;
mod decoder;
mod denoiser;
mod describe;
mod encode_stage;
mod encoders;
mod engine;
mod error;
mod family;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod img2img;
mod latents;
mod layout;
mod noise;
mod queue;
mod request;
mod schedulers;
mod settings;
mod sides;
mod stats;
mod torch;
mod worker;

pub(crate) use batch_size::BatchUse;
pub(crate) use bench::{Bench, Measured};
pub(crate) use describe::describe;
pub(crate) use engine::Engine;
pub(crate) use error::{DiffusionError, EngineError};
pub(crate) use files::{DiffusionFiles, FAST_UNET, PARTS, graph_paths};
pub(crate) use layout::Layout;
pub(crate) use noise::NoiseGenerator;
pub(crate) use request::Request;
pub(crate) use schedulers::{Scheduler, SchedulerName};
pub(crate) use settings::{Settings, rows_per_sample};
pub(crate) use sides::Sides;
pub(crate) use stats::Stats;

#[cfg(test)]
mod tests;
