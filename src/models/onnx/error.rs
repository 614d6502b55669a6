//! Errors of the runtime, of graphs and of their files.

use std::{io, path::PathBuf};

use super::wheels::Build;
use crate::models::model_dir::FileError;

/// Why a graph cannot be read, loaded or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OnnxError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the ONNX Runtime library `{}`, named by {named_by}, does not exist", path.display())]
    NoSuchLibrary {
        path: PathBuf,
        /// The command line or an environment variable.
        named_by: &'static str,
    },
    #[error(
        "the ONNX Runtime library is not installed: `{}` does not exist, and `ORT_DYLIB_PATH` is not set\n\
         hint: it is fetched when a model first runs; alternatively, set `ORT_DYLIB_PATH` to a library of version 1.24 \
         or later",
        cached.display()
    )]
    NotInstalled {
        /// The path in the cache.
        cached: PathBuf,
    },
    #[error("no cache directory: set `XDG_CACHE_HOME` or `HOME`, or set `ORT_DYLIB_PATH` to an ONNX Runtime library")]
    NoCache,
    #[error(
        "no ONNX Runtime is known for {os} on {arch}; known are linux on x86_64 and aarch64, and macos on aarch64\n\
         hint: set `ORT_DYLIB_PATH` to a library of version 1.24 or later"
    )]
    UnknownPlatform { os: &'static str, arch: &'static str },
    #[error(
        "no ONNX Runtime for CUDA is known for {os} on {arch}; known are linux on x86_64 and aarch64\n\
         hint: set `ORT_DYLIB_PATH` to a library that is built with CUDA"
    )]
    NoCudaPlatform { os: &'static str, arch: &'static str },
    #[error(
        "cannot fetch ONNX Runtime for {build}: {reason}\n\
         hint: nothing of it was kept; alternatively, set `ORT_DYLIB_PATH` to a library of version 1.24 or later: \
         `python3 -I -m pip install --no-deps {packages}` in a virtual environment puts one into onnxruntime/capi/ of its \
         packages"
    )]
    Fetch {
        build: Build,
        reason: String,
        /// Every package with its version, as pip names them.
        packages: String,
    },
    #[error("cannot load the ONNX Runtime library `{}`: {reason}", path.display())]
    Load { path: PathBuf, reason: String },
    #[error(
        "device `{device}` was requested, but its provider cannot be used: {reason}\n\
         hint: `discl-pipe doctor` says what is missing, and `discl-pipe runtime fetch cuda` fetches it; `--device auto` runs \
         without a GPU"
    )]
    NoProvider { device: String, reason: String },
    #[error(
        "`cuda.memory_limit_mib` is {}, but the weights of the models alone take {} MiB\n\
         hint: raise it, or leave it out",
        limit >> 20,
        weights.div_ceil(1 << 20)
    )]
    SmallLimit {
        /// In bytes.
        limit: u64,
        /// In bytes.
        weights: u64,
    },
    #[error("unknown device `{found}`; valid devices are `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M` and `cuda:all`")]
    UnknownDevice { found: String },
    #[error(
        "`{}` does not exist; {found}\n\
         hint: `optimum-cli export onnx` writes it, for a diffusion model with `--task image-to-image`; docs/models.md has \
         more",
        path.display()
    )]
    NoGraph {
        path: PathBuf,
        /// What is there instead, as the end of a sentence.
        found: String,
    },
    #[error(
        "`{location}` has no `{name}`, but {found}\n\
         hint: use a copy of the folder in which one of them is called `{name}`; files with its weights keep their names"
    )]
    SeveralGraphs {
        /// The folder or URL of the model.
        location: String,
        name: String,
        /// The versions of the graph, in backticks.
        found: String,
    },
    /// The location holds the model in the format of another framework.
    #[error(
        "`{location}` is not exported: `{weights}` holds weights of PyTorch or another framework, and there is no ONNX \
         graph\n\
         hint: `optimum-cli export onnx --model {model} --task TASK DIRECTORY` exports it, where TASK is `image-to-image` \
         for a diffusion model, `zero-shot-image-classification` for a CLIP and `image-classification` for a classifier; \
         docs/models.md has more"
    )]
    NotExported {
        /// The folder or URL of the model.
        location: String,
        /// A file with weights, relative to the location.
        weights: String,
        /// What optimum calls the model: a directory or a repository of the hub.
        model: String,
    },
    #[error("`{}` is not a complete ONNX file: {reason}", path.display())]
    NotOnnx {
        path: PathBuf,
        /// What it is instead, and what to do.
        reason: String,
    },
    #[error("`{}` stores weights in `{file}`, which {found}; expected at least {expected} bytes{hint}", path.display())]
    NoWeights {
        path: PathBuf,
        /// The name that the graph has for the file.
        file: String,
        /// A verb phrase, such as `does not exist`.
        found: String,
        expected: u64,
        /// Empty, or a line that begins with `hint: `.
        hint: String,
    },
    #[error(
        "`{}` needs {needs}; ONNX Runtime {version} supports up to {max}\n\
         hint: export it again with `--opset 18`, or name a newer library with `--onnxruntime` or `ORT_DYLIB_PATH`",
        path.display()
    )]
    TooNew {
        path: PathBuf,
        /// What it needs, such as "opset 30 of `ai.onnx`".
        needs: String,
        max: u64,
        /// The version of the library.
        version: &'static str,
    },
    #[error("`{}`: no {side} `{name}`; it has {has}", path.display())]
    MissingPort {
        path: PathBuf,
        /// `input` or `output`.
        side: &'static str,
        name: String,
        /// The names that exist, in backticks.
        has: String,
    },
    #[error("`{}`: {side} `{name}` is {has}; expected {expected}", path.display())]
    Misfit {
        path: PathBuf,
        /// `input` or `output`.
        side: &'static str,
        name: String,
        /// Element type and shape.
        has: String,
        /// Element types and shape.
        expected: String,
    },
    #[error("`{}`: unknown input `{name}`; known are {known}", path.display())]
    UnknownInput {
        path: PathBuf,
        name: String,
        /// The known names, in backticks.
        known: String,
    },
    #[error("cannot load `{}`: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    /// No conversion exists to the element type of an input.
    #[error("`{}`: cannot convert values to input `{name}` of type {element}", path.display())]
    Convert { path: PathBuf, name: String, element: String },
    #[error("`{}` failed: {reason}", path.display())]
    Run { path: PathBuf, reason: String },
    /// The device failed, whatever the values and their shapes: most often it has too little memory.
    #[error(
        "`{}` failed: {reason}\n\
         hint: if the device has too little memory, lower `--model-batch`, or end other programs that use it",
        path.display()
    )]
    Device { path: PathBuf, reason: String },
    #[error("cannot start the `{name}` thread")]
    Thread { name: String, source: io::Error },
}

/// What messages contain if memory does not suffice.
pub(super) const OF_MEMORY: [&str; 6] = [
    "failed to allocate memory",
    "is smaller than requested bytes",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
];

impl OnnxError {
    /// Whether the memory of the device did not suffice; less may.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let Self::Device { reason, .. } = self else { return false };
        let reason = reason.to_ascii_lowercase();
        OF_MEMORY.iter().any(|text| reason.contains(text))
    }
}
