//! Errors of a model directory and of a running engine.

use std::path::PathBuf;

use crate::models::{model_dir::FileError, onnx::OnnxError, tokenizer::TokenizerError};

/// Why a diffusion model cannot be used as requested.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiffusionError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("unknown scheduler `{found}`; valid schedulers are {known}")]
    UnknownScheduler {
        found: String,
        /// The known names, in backticks.
        known: String,
    },
    /// A number of timesteps that the schedule does not have.
    #[error("this schedule does not have {found} timesteps; valid are 1 to {max}")]
    Timesteps { found: u32, max: u32 },
    #[error(
        "`cuda.fast` is set, but `{}` does not exist\n\
         hint: `tools/export_models.py` writes it; docs/models.md has more",
        path.display()
    )]
    NoFastUnet { path: PathBuf },
    /// A bug, here or in the runtime.
    #[error("a thread of the diffusion engine panicked")]
    Panic,
}

/// Why an image was not generated. The variant decides what the caller does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// This image cannot be generated; others can.
    #[error("{0}")]
    Image(String),
    /// A model failed. All callers get this error, now and later.
    #[error("the diffusion engine stopped: {0}")]
    Stopped(String),
}
