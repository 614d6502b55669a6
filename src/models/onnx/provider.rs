//! The providers of ONNX Runtime, and every option with which one is set up.
//!
//! CUDA is a provider that is built in. ONNX Runtime also takes providers as plugins, by a library that is registered
//! (`register_ep_library` of the environment) and devices that a session names. If CUDA comes as one, it comes in at
//! [`Provider::dispatch`].

use std::fmt;

use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch, cuda::ConvAlgorithmSearch};

use super::OnnxError;

/// What models actually run on. Recorded with each unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Cpu,
    /// The GPU with this number.
    Cuda(u32),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Provider {
    /// Returns the runtime's provider; `None` for the CPU, which needs none. `arena_bytes` limits the memory of a graph,
    /// its weights included.
    pub(super) fn dispatch(self, tf32: bool, arena_bytes: Option<usize>) -> Option<ExecutionProviderDispatch> {
        let Self::Cuda(number) = self else { return None };
        let mut cuda = CUDA::default()
            .with_device_id(i32::try_from(number).unwrap_or(i32::MAX))
            .with_tf32(tf32)
            // Chooses kernels by a rule. A choice by measurement could differ between two sessions, and so could their bits.
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            // Matrix units compute in this layout.
            .with_prefer_nhwc(true)
            // The default doubles with each extension, and nothing is ever returned.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested);
        if let Some(bytes) = arena_bytes {
            cuda = cuda.with_memory_limit(bytes);
        }
        // Without this, a missing provider silently falls back to the CPU.
        Some(cuda.build().error_on_failure())
    }
}

/// Options of graphs on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CudaOptions {
    /// The memory of each device; if absent, all that is free.
    pub(crate) memory: Option<Memory>,
    /// Whether matrix products and convolutions may round their inputs to 10 bits (TF32): faster but less exact.
    pub(crate) tf32: bool,
    /// Whether the UNet is the graph for speed and not the deterministic one.
    pub(crate) fast: bool,
    /// Which part of the memory the graph may take.
    pub(crate) share: Share,
}

impl CudaOptions {
    /// Returns the options of a graph that may take another part of the memory.
    pub(crate) fn sharing(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Returns what a UNet with this many bytes of weights may take if the memory is limited; `None` if it is not.
    pub(crate) fn unet_bytes(self, weights: u64) -> Option<u64> {
        let bytes = self.sharing(Share::Unet).arena_bytes(weights).ok()??;
        u64::try_from(bytes).ok()
    }

    /// Returns the limit of the arena of a graph with this many bytes of weights; `None` if there is none.
    ///
    /// # Errors
    /// Returns the error of [`Memory::check`].
    pub(super) fn arena_bytes(&self, weights: u64) -> Result<Option<usize>, OnnxError> {
        let Some(memory) = self.memory else { return Ok(None) };
        let free = memory.check()? / 8 * self.share.eighths() / memory.graphs(self.share).max(1);
        Ok(Some(usize::try_from(weights.saturating_add(free)).unwrap_or(usize::MAX)))
    }
}

/// Which graphs divide a part of the memory among themselves. The UNet computes on whole batches; the decoder on one image,
/// but at its full size; the others on little.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Share {
    /// Half of the memory that weights leave.
    Unet,
    /// A quarter.
    Decoder,
    /// An eighth.
    Encoder,
    /// An eighth, for all other graphs together.
    #[default]
    Other,
}

impl Share {
    fn eighths(self) -> u64 {
        match self {
            Self::Unet => 4,
            Self::Decoder => 2,
            Self::Encoder | Self::Other => 1,
        }
    }
}

/// A limit on the memory of a device, and the graphs that divide it.
///
/// ONNX Runtime has an arena for each graph. It reserves the weights outside of it, but counts them towards its limit: so a
/// graph's limit is its weights, and its part of what the weights of all graphs leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    limit: u64,
    weights: u64,
    /// Graphs of each share, in the order of its variants.
    graphs: [u64; 4],
}

impl Memory {
    /// Divides `limit` bytes of each device among graphs, of which each is given by its share and the bytes of its weights.
    pub(crate) fn new(limit: u64, graphs: impl IntoIterator<Item = (Share, u64)>) -> Self {
        let mut memory = Self { limit, ..Self::default() };
        for (share, bytes) in graphs {
            memory.weights = memory.weights.saturating_add(bytes);
            if let Some(count) = memory.graphs.get_mut(share as usize) {
                *count += 1;
            }
        }
        memory
    }

    /// Returns what the weights leave, in bytes.
    ///
    /// # Errors
    /// Returns [`OnnxError::SmallLimit`] if they leave nothing.
    pub(crate) fn check(&self) -> Result<u64, OnnxError> {
        let small = OnnxError::SmallLimit { limit: self.limit, weights: self.weights };
        self.limit.checked_sub(self.weights).filter(|free| *free > 0).ok_or(small)
    }

    fn graphs(&self, share: Share) -> u64 {
        self.graphs.get(share as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// The refiner: UNet, decoder, encoder, text encoder; and a CLIP in two graphs.
    fn refiner(limit: u64) -> Memory {
        let graphs = [
            (Share::Unet, 4 * GIB),
            (Share::Decoder, GIB / 4),
            (Share::Encoder, GIB / 4),
            (Share::Other, GIB),
            (Share::Other, GIB / 4),
            (Share::Other, GIB / 4),
        ];
        Memory::new(limit, graphs)
    }

    #[test]
    fn the_limits_of_all_graphs_are_that_of_the_device() {
        // Six GiB of weights leave twelve.
        let memory = refiner(18 * GIB);
        assert_eq!(memory.check().unwrap(), 12 * GIB);
        let options = CudaOptions { memory: Some(memory), ..CudaOptions::default() };
        let limit = |share, weights| options.sharing(share).arena_bytes(weights).unwrap().unwrap() as u64;
        assert_eq!(limit(Share::Unet, 4 * GIB), 4 * GIB + 6 * GIB);
        assert_eq!(limit(Share::Decoder, GIB / 4), GIB / 4 + 3 * GIB);
        assert_eq!(limit(Share::Encoder, GIB / 4), GIB / 4 + 3 * GIB / 2);
        assert_eq!(limit(Share::Other, GIB), GIB + GIB / 2);
        let all = limit(Share::Unet, 4 * GIB)
            + limit(Share::Decoder, GIB / 4)
            + limit(Share::Encoder, GIB / 4)
            + [GIB, GIB / 4, GIB / 4].map(|weights| limit(Share::Other, weights)).iter().sum::<u64>();
        assert_eq!(all, 18 * GIB);
    }

    #[test]
    fn copies_of_the_unet_divide_its_part() {
        let two = [(Share::Unet, 4 * GIB); 2];
        let options =
            CudaOptions { memory: Some(Memory::new(16 * GIB, two)), share: Share::Unet, ..CudaOptions::default() };
        assert_eq!(options.arena_bytes(4 * GIB).unwrap(), Some(6 << 30));
    }

    #[test]
    fn a_limit_below_the_weights_is_an_error() {
        for limit in [6 * GIB, GIB] {
            let message = refiner(limit).check().unwrap_err().to_string();
            assert!(message.starts_with("`cuda.memory_limit_mib` is"), "{message}");
            let options = CudaOptions { memory: Some(refiner(limit)), ..CudaOptions::default() };
            assert!(options.arena_bytes(GIB).is_err());
        }
    }

    #[test]
    fn without_a_limit_there_is_none() {
        assert_eq!(CudaOptions::default().arena_bytes(5).unwrap(), None);
        assert!(Provider::Cpu.dispatch(false, None).is_none());
        assert!(Provider::Cuda(1).dispatch(true, Some(1 << 30)).is_some());
    }
}
