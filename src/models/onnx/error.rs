//! What can go wrong between a directory of graphs and their results.

use std::path::PathBuf;

use super::{Device, Element};

/// A failure of the runtime, of a graph, or of a file of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OnnxError {
    /// `ORT_DYLIB_PATH` or the flag names a file that is not there.
    #[error("the ONNX Runtime library `{}`, named by {named_by}, does not exist", path.display())]
    NoSuchLibrary {
        /// The path as given.
        path: PathBuf,
        /// Who gave it.
        named_by: &'static str,
    },
    /// Nothing was named and nothing is in the cache.
    #[error(
        "the ONNX Runtime library is not installed: nothing at `{}`, and `ORT_DYLIB_PATH` is not set\n\
         hint: it is fetched when a model is first run, or set `ORT_DYLIB_PATH` to a library of version 1.24 or later",
        cached.display()
    )]
    NotInstalled {
        /// Where the cache would have it.
        cached: PathBuf,
    },
    /// Neither a cache directory nor a home is known.
    #[error("no cache directory: set `XDG_CACHE_HOME` or `HOME`, or set `ORT_DYLIB_PATH` to an ONNX Runtime library")]
    NoCache,
    /// No wheel is known for this kind of machine.
    #[error(
        "no ONNX Runtime is known for {os} on {arch}; known are linux on x86_64 and aarch64, and macos on aarch64\n\
         hint: set `ORT_DYLIB_PATH` to a library of version 1.24 or later"
    )]
    UnknownPlatform {
        /// Operating system.
        os: &'static str,
        /// Processor architecture.
        arch: &'static str,
    },
    /// The library could not be fetched.
    #[error(
        "ONNX Runtime {version} could not be fetched: {reason}\n\
         hint: set `ORT_DYLIB_PATH` to a library of version 1.24 or later; `python3 -m pip download --no-deps \
         onnxruntime=={version}` and `python3 -m zipfile -e` on the wheel give one under onnxruntime/capi/"
    )]
    Fetch {
        /// The version that was asked for.
        version: &'static str,
        /// What went wrong, in words.
        reason: String,
    },
    /// The library is there and does not load.
    #[error("the ONNX Runtime library `{}` cannot be used: {reason}", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// CUDA was asked for by name and is not there.
    #[error(
        "device `{device}` was asked for, and its provider cannot be used: {reason}\n\
         hint: `--onnxruntime` or `ORT_DYLIB_PATH` names another library; `--device auto` goes on without a GPU"
    )]
    NoProvider {
        /// The device asked for.
        device: Device,
        /// What the runtime says.
        reason: String,
    },
    /// The name of a device that does not exist.
    #[error("unknown device `{found}`; valid devices are `auto`, `cpu`, `cuda`, `cuda:N` and `cuda:N,M`")]
    UnknownDevice {
        /// What was given.
        found: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `create`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory has the model as PyTorch saves it.
    #[error(
        "`{}` is not there, and `{weights}` beside it holds weights of PyTorch\n\
         hint: export the model to ONNX by `optimum-cli export onnx`, as docs/models.md says",
        path.display()
    )]
    NotExported {
        /// The graph that is missing.
        path: PathBuf,
        /// The name of a file with weights.
        weights: String,
    },
    /// A file that is no ONNX graph, or the beginning of one.
    #[error("`{}` is not a complete ONNX file: {reason}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file with weights of a graph is missing or cut off.
    #[error(
        "`{}` keeps weights in `{file}` beside it, which {found}; expected {expected} bytes or more",
        path.display()
    )]
    NoWeights {
        /// The graph.
        path: PathBuf,
        /// The file's name, as the graph has it.
        file: String,
        /// `is not there`, or how long it is.
        found: String,
        /// How long it has to be.
        expected: u64,
    },
    /// A graph lacks an input or an output.
    #[error("`{}`: no {side} `{name}`; it has {has}", path.display())]
    MissingPort {
        /// The file.
        path: PathBuf,
        /// `input` or `output`.
        side: &'static str,
        /// The name looked for.
        name: String,
        /// The names that are there, in backticks.
        has: String,
    },
    /// An input or an output has another shape or element type.
    #[error("`{}`: {side} `{name}` is {has}; expected {expected}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// `input` or `output`.
        side: &'static str,
        /// Its name.
        name: String,
        /// Type and shape that it has.
        has: String,
        /// Types and shape that would fit.
        expected: String,
    },
    /// A graph wants an input that nobody knows how to fill.
    #[error("`{}`: unknown input `{name}`; known are {known}", path.display())]
    UnknownInput {
        /// The file.
        path: PathBuf,
        /// The input's name.
        name: String,
        /// The names that are known, in backticks.
        known: String,
    },
    /// The runtime does not accept the graph.
    #[error("`{}` cannot be loaded: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the runtime says.
        reason: String,
    },
    /// A tensor cannot be turned into the element type that the graph wants.
    #[error("`{}`: input `{name}` of {element} cannot be filled", path.display())]
    Convert {
        /// The file.
        path: PathBuf,
        /// The input's name.
        name: String,
        /// The element type that the graph wants.
        element: Element,
    },
    /// The graph failed while it ran.
    #[error("`{}` failed: {reason}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What the runtime says.
        reason: String,
    },
}

impl OnnxError {
    /// An I/O error with the file it is about.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
