//! How many samples share a call of the UNet.
//!
//! On a GPU the number of samples is part of an image's last digits. So it follows from the size of the images and the
//! memory of the device by a rule, and never from a measurement of time: the same machine chooses the same number again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::{files::UnetShape, latents::Size};
use crate::models::onnx::Provider;

/// Rows × latent pixels that keep a GPU busy: 32 rows at 512 x 512 pixels.
const GPU_PIXELS: usize = 1 << 17;
/// The most samples in a batch of a GPU.
const MAX_GPU_SAMPLES: usize = 64;
/// Samples in a batch of the CPU.
const CPU_SAMPLES: usize = 8;
/// How many tensors of the UNet's first level are in memory at once, by estimate.
const LIVE_TENSORS: u64 = 32;
/// Heads of an attention that a graph writes out as products, and copies of the matrix of each.
const WRITTEN_OUT_MATRICES: u64 = 8 * 2;

/// The batch sizes of an engine.
#[derive(Debug)]
pub(super) struct BatchSizes {
    rule: Rule,
    /// The sizes so far, each with its number of samples.
    samples: Mutex<BTreeMap<Size, usize>>,
}

/// The batch of one size of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BatchUse {
    /// The sides of the images, in pixels.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The number of images in a batch.
    pub(crate) samples: usize,
    /// The number that was planned. If it is larger, it did not fit into the memory of the device.
    pub(crate) planned: usize,
}

/// From what a batch size follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// The number of samples that the user requested.
    pub(super) requested: Option<usize>,
    pub(super) provider: Provider,
    /// The memory that the copies of the UNet may take, in bytes; `None` if it is not known.
    pub(super) budget: Option<u64>,
    /// Copies of the UNet on the device.
    pub(super) copies: usize,
    pub(super) unet: UnetShape,
    pub(super) rows_per_sample: usize,
}

impl BatchSizes {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, samples: Mutex::default() }
    }

    /// Returns the number of samples in a batch of this size.
    pub(super) fn of(&self, size: Size) -> usize {
        *self.samples().entry(size).or_insert_with(|| self.rule.samples(size))
    }

    /// Notes that a batch of `samples` does not fit into the memory of the device, and returns half of them; `None` if
    /// there is nothing to halve.
    pub(super) fn halve(&self, size: Size, samples: usize) -> Option<usize> {
        let half = samples / 2;
        if half == 0 {
            return None;
        }
        let mut all = self.samples();
        let entry = all.entry(size).or_insert(half);
        *entry = (*entry).min(half);
        Some(half)
    }

    /// Returns the batches so far. `pixels_per_latent` is the side of a latent pixel.
    pub(super) fn used(&self, pixels_per_latent: u32) -> Vec<BatchUse> {
        let used = |(&size, &samples): (&Size, &usize)| BatchUse {
            width: size.width * pixels_per_latent,
            height: size.height * pixels_per_latent,
            samples,
            planned: self.rule.samples(size),
        };
        self.samples().iter().map(used).collect()
    }

    fn samples(&self) -> MutexGuard<'_, BTreeMap<Size, usize>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    /// Returns the number of samples in a batch of this size: what the user requested, or else as many as keep the device
    /// busy, halved until they are likely to fit into its memory.
    fn samples(&self, size: Size) -> usize {
        if let Some(requested) = self.requested {
            return requested.max(1);
        }
        let mut samples = match self.provider {
            Provider::Cpu => CPU_SAMPLES,
            Provider::Cuda(_) => {
                let rows = (GPU_PIXELS / size.area().max(1)).max(1);
                let samples = (rows / self.rows_per_sample.max(1)).clamp(1, MAX_GPU_SAMPLES);
                // The largest power of two: of two sizes that are alike, both get the same.
                1 << samples.ilog2()
            }
        };
        while samples > 1 && !self.fits(size, samples) {
            samples /= 2;
        }
        samples
    }

    /// Whether the weights and a call are likely to fit into the budget.
    fn fits(&self, size: Size, samples: usize) -> bool {
        let Some(budget) = self.budget else { return true };
        let rows = (samples * self.rows_per_sample) as u64;
        let each = self.unet.bytes.saturating_add(rows.saturating_mul(self.unet.row_bytes(size)));
        each.saturating_mul(self.copies as u64) <= budget
    }
}

impl UnetShape {
    /// Returns an estimate of the memory that one row of a call takes, in bytes.
    fn row_bytes(&self, size: Size) -> u64 {
        let area = size.area() as u64;
        let of_pixel = (self.width as u64).saturating_mul(self.bytes_per_value * LIVE_TENSORS);
        let attends_from = u32::try_from(self.attends_from).unwrap_or(u32::MAX);
        let attended = area.checked_shr(attends_from.saturating_mul(2)).unwrap_or(0);
        let matrices = if self.is_attention_fused { 0 } else { attended.saturating_mul(attended) };
        let matrices = matrices.saturating_mul(WRITTEN_OUT_MATRICES * self.bytes_per_value);
        area.saturating_mul(of_pixel).saturating_add(matrices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    /// Stable Diffusion 1.5 in half precision.
    const SD15: UnetShape = UnetShape {
        bytes: 1_720_000_000,
        bytes_per_value: 2,
        width: 320,
        attends_from: 0,
        is_attention_fused: true,
        flop: None,
    };

    fn rule(provider: Provider, memory: Option<u64>) -> Rule {
        let budget = memory.map(|memory| memory / 100 * 70);
        Rule { requested: None, provider, budget, copies: 1, unet: SD15, rows_per_sample: 2 }
    }

    fn square(pixels: u32) -> Size {
        Size { width: pixels / 8, height: pixels / 8 }
    }

    #[test]
    fn a_gpu_gets_as_many_rows_as_keep_it_busy() {
        let large = rule(Provider::Cuda(0), Some(80 * GIB));
        let samples = |pixels| large.samples(square(pixels));
        assert_eq!([256, 512, 768, 1024, 2048].map(samples), [64, 16, 4, 4, 1]);
        let unguided = Rule { rows_per_sample: 1, ..large };
        assert_eq!(unguided.samples(square(512)), 32);
        assert_eq!(large.samples(Size { width: 72, height: 56 }), 16, "about as many pixels");
    }

    #[test]
    fn a_batch_is_halved_until_it_is_likely_to_fit() {
        let samples =
            |gib, unet: UnetShape| Rule { unet, ..rule(Provider::Cuda(0), Some(gib * GIB)) }.samples(square(512));
        assert_eq!([80, 8, 4, 2].map(|gib| samples(gib, SD15)), [16, 16, 4, 1]);
        let written_out = UnetShape { is_attention_fused: false, ..SD15 };
        assert_eq!([80, 24, 8].map(|gib| samples(gib, written_out)), [16, 8, 2]);
        assert_eq!(Rule { copies: 2, ..rule(Provider::Cuda(0), Some(8 * GIB)) }.samples(square(512)), 4);
    }

    #[test]
    fn what_the_user_requests_is_not_changed_beforehand() {
        let requested = Rule { requested: Some(48), ..rule(Provider::Cuda(0), Some(GIB)) };
        assert_eq!(requested.samples(square(512)), 48);
        assert_eq!(rule(Provider::Cpu, None).samples(square(512)), 8);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_for_its_size() {
        let sizes = BatchSizes::new(rule(Provider::Cuda(0), None));
        assert_eq!(sizes.halve(square(512), 16), Some(8));
        assert_eq!(sizes.halve(square(512), 16), Some(8), "another worker tried the same");
        assert_eq!((sizes.of(square(512)), sizes.of(square(256))), (8, 64));
        assert_eq!(sizes.halve(square(1024), 1), None);
        let used = |pixels, samples, planned| BatchUse { width: pixels, height: pixels, samples, planned };
        assert_eq!(sizes.used(8), [used(256, 64, 64), used(512, 8, 16)]);
    }
}
