//! What can go wrong with an object store.

use std::path::PathBuf;

use crate::error::Error;

/// Why an object store cannot be used. `url` names the object, folder or location.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error(
        "`{root}`: URLs with the scheme `{scheme}` are not supported; allowed are a directory, and URLs with \
         `file://`, `s3://`, `gs://` or `az://`"
    )]
    UnknownScheme { root: String, scheme: String },
    #[error("`{root}` is neither a directory nor a URL")]
    InvalidRoot { root: String },
    #[error("`{root}`: the store cannot be opened")]
    Open { root: String, source: object_store::Error },
    #[error("`{url}`: its path is not valid in an object store")]
    InvalidPath { url: String, source: object_store::path::Error },
    #[error("`{url}`: `{name}` is not a valid name below it")]
    InvalidName { url: String, name: String, source: url::ParseError },
    #[error("`{url}`: it cannot be listed")]
    List { url: String, source: object_store::Error },
    #[error("`{url}`: it cannot be found")]
    Find { url: String, source: object_store::Error },
    #[error("`{url}`: it cannot be read")]
    Read { url: String, source: object_store::Error },
    /// The store has another version of the object than the one that was listed, or none.
    #[error("`{url}`: it has changed since it was listed")]
    Changed { url: String, source: Option<object_store::Error> },
    #[error("`{url}`: expected {expected} bytes, received {received}")]
    Truncated { url: String, expected: u64, received: u64 },
    #[error("`{url}`: it cannot be written; is the location writable?")]
    Write { url: String, source: object_store::Error },
    #[error("`{url}`: it cannot be deleted")]
    Delete { url: String, source: object_store::Error },
    #[error("`{}`: it cannot be written", path.display())]
    WriteLocal { path: PathBuf, source: std::io::Error },
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::UnknownScheme { .. }
            | StorageError::InvalidRoot { .. }
            | StorageError::Open { .. }
            | StorageError::InvalidPath { .. } => Self::input(error),
            _ => Self::failed(error),
        }
    }
}
