//! Reads the files of a model that are read whole.

use std::{io, path::Path};

use serde::de::DeserializeOwned;

use super::FileError;
use crate::limited_read::{self, StandIn, from_python};

/// Reads a configuration in JSON, as Python writes it.
///
/// # Errors
/// Returns an error if the file cannot be read or does not have the shape of `T`.
pub(crate) fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = read(path, limited_read::CONFIGURATION)?;
    serde_json::from_slice(&from_python(&text)).map_err(FileError::config(path))
}

/// Reads a file of at most `max` bytes that must not be empty.
///
/// # Errors
/// Returns an error if the file is missing, empty or too large, or if it only stands in for a file.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let bytes = limited_read::read(path, max).and_then(|bytes| match bytes.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, StandIn::Empty.instead_of_the_file())),
        false => Ok(bytes),
    });
    bytes.map_err(FileError::io("read", path))
}
