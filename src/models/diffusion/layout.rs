//! How an engine is laid out on its devices: how many copies of the UNet, with how many cores and samples each.

use super::{
    batch_size::{BatchSizes, Rule},
    files::DiffusionFiles,
    settings::{Settings, rows_per_sample},
};
use crate::models::onnx::{Chosen, Provider, device_memory};

/// UNets up to this size are loaded once per core. Measured with a UNet of 3.6 MB on two cores: two calls in parallel
/// generate twice the images of one core; two cores within one call generate 1.3 times as many.
const SMALL_UNET_BYTES: u64 = 64 << 20;
/// Two copies of the UNet share a GPU if their weights take at most this percentage of its memory.
const WEIGHTS_PERCENT: u64 = 35;
/// The percentage of a device's memory that the UNet may take by the estimate of a batch.
const MEMORY_PERCENT: u64 = 70;
/// Images that may be requested at once, for each sample in a batch: those in the batch, those that are ready when one
/// leaves it, and those that are being encoded.
const IMAGES_PER_SLOT: usize = 4;
/// The side of images if neither the pipeline nor the model tells it.
const USUAL_SIDE: u32 = 512;

/// The devices and copies of an engine.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The devices. Encoders run on the first one.
    pub(super) providers: Vec<Provider>,
    /// Copies of the UNet on each device.
    pub(super) copies: usize,
    /// Copies of the VAE's decoder on each device.
    pub(super) decoders: usize,
    /// Cores that a copy may use on the CPU.
    pub(super) threads: usize,
    /// The memory that the copies of the UNet may take on the smallest device, in bytes; `None` if it is not known.
    budget: Option<u64>,
}

impl Layout {
    /// Lays an engine out on the chosen devices. A small UNet is loaded once per core. On a GPU there are two, so that one
    /// computes while the other prepares its next call, if the memory has room for the weights of both.
    pub(crate) fn of(chosen: &Chosen, files: &DiffusionFiles, settings: &Settings) -> Self {
        let providers: Vec<Provider> = std::iter::once(chosen.provider).chain(chosen.others.iter().copied()).collect();
        let memory = providers.iter().filter_map(|&provider| device_memory(provider)).min();
        let (threads, bytes) = (settings.threads.max(1), files.unet.bytes);
        let (copies, threads) = match chosen.provider {
            Provider::Cpu if bytes <= SMALL_UNET_BYTES => (threads, 1),
            Provider::Cpu => (1, threads),
            Provider::Cuda(_) => {
                // A limit on the memory is divided among the graphs of one copy.
                let is_limited = settings.cuda.memory.is_some();
                let has_room = memory.is_some_and(|memory| 2 * bytes <= memory / 100 * WEIGHTS_PERCENT);
                (if has_room && !is_limited { 2 } else { 1 }, threads)
            }
        };
        let decoders = if chosen.provider == Provider::Cpu { copies } else { 1 };
        let limit = (chosen.provider != Provider::Cpu).then(|| settings.cuda.unet_bytes(bytes)).flatten();
        let budget = memory.map(|memory| memory / 100 * MEMORY_PERCENT).into_iter().chain(limit).min();
        Self { providers, copies, decoders, threads, budget }
    }

    /// Returns the device of the encoders.
    pub(super) fn first(&self) -> Provider {
        self.providers.first().copied().unwrap_or(Provider::Cpu)
    }

    /// Returns the batch sizes of the engine.
    pub(super) fn batch_sizes(&self, files: &DiffusionFiles, settings: &Settings) -> BatchSizes {
        BatchSizes::new(Rule {
            requested: settings.batch_size,
            provider: self.first(),
            budget: self.budget,
            copies: self.copies,
            unet: files.unet,
            rows_per_sample: rows_per_sample(settings.guidance_scale) as usize,
        })
    }

    /// Returns how many images may be requested at once.
    pub(crate) fn images_in_flight(&self, files: &DiffusionFiles, settings: &Settings) -> usize {
        let slots = self.usual_batch(files, settings).1 * self.copies * self.providers.len();
        settings.queue.unwrap_or(IMAGES_PER_SLOT * slots)
    }

    /// Describes the batch of the pipeline's images, such as `16 images of 512 x 512 per batch`.
    pub(crate) fn describe(&self, files: &DiffusionFiles, settings: &Settings) -> String {
        let ((width, height), samples) = self.usual_batch(files, settings);
        let images = if samples == 1 { "image" } else { "images" };
        format!("{samples} {images} of {width} x {height} per batch")
    }

    /// Returns the sides in pixels of a square image as the pipeline resizes it, and the number of samples in its batch.
    fn usual_batch(&self, files: &DiffusionFiles, settings: &Settings) -> ((u32, u32), usize) {
        let side = files.trained_side().unwrap_or(USUAL_SIDE);
        let (width, height) = settings.size.map_or((side, side), |size| size.sides(side, side));
        let (width, height) = (files.sides().of(width), files.sides().of(height));
        ((width, height), self.batch_sizes(files, settings).of(files.latents_of(width, height)))
    }
}
