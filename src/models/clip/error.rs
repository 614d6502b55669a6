//! Errors of a CLIP directory, and of one that runs.

use std::path::PathBuf;

use crate::imaging::PreprocessError;
use crate::models::onnx::OnnxError;
use crate::models::tokenizer::TokenError;

/// Why a CLIP directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClipError {
    /// The graph or the runtime.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// How images are prepared.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The tokenizer.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A file is missing or unreadable.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("the thread of the CLIP engine cannot be started")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// Why something was not embedded: whose problem it is decides what a caller does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EmbedError {
    /// This image's problem; the others go on.
    #[error("{0}")]
    Row(String),
    /// The model failed; every caller gets this, now and later.
    #[error("the CLIP engine stopped: {0}")]
    Job(String),
}
