//! How fast the diffusion model is, and what stands in the way.

use serde::Serialize;

use super::{
    diffusion::Stats,
    onnx::{Provider, device_memory_used, device_peak},
};

/// The rates of a run or of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    /// Trillions of floating-point operations of the UNet per second, padding not counted; `None` if the model does not say
    /// what an evaluation costs.
    pub(crate) tflops: Option<f64>,
    /// The share of the device's peak in half precision, 0 to 1; `None` if it is not known.
    pub(crate) peak_share: Option<f64>,
    /// The mean time in milliseconds between two UNet calls of one worker while images wait in its batch.
    pub(crate) gap_ms: Option<f64>,
    /// That time as a share of a call.
    pub(crate) gap_share: Option<f64>,
    /// Memory in MiB: on the CPU the most that this process has used, on a GPU what is in use now, by all programs.
    pub(crate) memory_mib: Option<u64>,
}

impl Rates {
    /// Returns the rates of `stats` on `devices` devices like `provider`.
    pub(super) fn of(stats: &Stats, provider: Provider, devices: usize) -> Self {
        let (tflops, gap) = (stats.tflops(), stats.gap());
        let peak = device_peak(provider).map(|peak| peak * devices as f64);
        Self {
            tflops,
            peak_share: tflops.zip(peak).map(|(tflops, peak)| tflops / peak),
            gap_ms: gap.map(|(gap, _)| gap),
            gap_share: gap.map(|(_, share)| share),
            memory_mib: device_memory_used(provider).map(|bytes| bytes >> 20),
        }
    }
}
