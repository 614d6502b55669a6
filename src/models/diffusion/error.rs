//! Errors of a model directory, and of a running engine.

use std::path::PathBuf;

use crate::models::onnx::OnnxError;
use crate::models::tokenizer::TokenError;

/// Why a model directory cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiffusionError {
    /// A graph or the runtime.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
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
    /// A configuration is not what it should be.
    #[error("`{}` is not a valid configuration", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A value that is understood and not supported.
    #[error("`{}`: `{key}` is {found}; {allowed}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The value, in backticks where it is text.
        found: String,
        /// What is supported, as the end of a sentence.
        allowed: String,
    },
    /// A scheduler by a name that nobody knows.
    #[error("unknown scheduler `{found}`; valid schedulers are {known}")]
    UnknownScheduler {
        /// What was given.
        found: String,
        /// The known names, in backticks.
        known: String,
    },
    /// A number of timesteps that the schedule cannot be cut into.
    #[error("{found} timesteps are not possible with this schedule; valid are 1 to {most}")]
    Timesteps {
        /// What was asked for.
        found: u32,
        /// The most that the schedule has.
        most: u32,
    },
    /// A thread panicked, which is a bug here or in the runtime.
    #[error("a thread of the diffusion engine panicked")]
    Panic,
    /// A thread could not be started.
    #[error("the thread of the diffusion engine cannot be started")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// Why one image was not generated: whose problem it is decides what a caller does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// This image's problem; the others go on.
    #[error("{0}")]
    Row(String),
    /// The model failed; every caller gets this, now and later.
    #[error("the diffusion engine stopped: {0}")]
    Job(String),
}
