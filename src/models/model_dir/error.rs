//! Errors about a single file of a model directory or of a cache.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::error::text;

/// A file that cannot be used. Every module that reads model files wraps it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot {action} {}", text::file(path))]
    Io {
        /// A verb, such as `read` or `create`.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("`{}` is not a valid configuration", path.display())]
    Config { path: PathBuf, source: serde_json::Error },
    /// A value that is valid in the file's format but not supported here.
    #[error("`{}`: `{key}` is {found}; {allowed}", path.display())]
    Unsupported {
        path: PathBuf,
        key: &'static str,
        /// The value, in backticks if it is a string.
        found: String,
        /// What is supported, as the end of a sentence.
        allowed: String,
    },
}

impl FileError {
    /// Returns a conversion for `map_err` that adds the action and the path to an I/O error.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Returns a conversion for `map_err` that adds the path to a parser's error.
    pub(crate) fn config(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Config { path, source }
    }

    /// Returns [`FileError::Unsupported`].
    pub(crate) fn unsupported(
        path: impl Into<PathBuf>,
        key: &'static str,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Unsupported { path: path.into(), key, found: found.into(), allowed: allowed.into() }
    }
}
