//! Errors of a CLIP directory and of a running engine.

use crate::models::{model_dir::FileError, onnx::OnnxError, tokenizer::TokenizerError};

/// Why a CLIP model cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClipError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why something was not embedded. The variant decides what the caller does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EmbedError {
    /// This image cannot be embedded; others can.
    #[error("{0}")]
    Image(String),
    /// The model failed. All callers get this error, now and later.
    #[error("the CLIP engine stopped: {0}")]
    Stopped(String),
}
