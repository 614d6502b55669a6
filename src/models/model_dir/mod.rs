//! What every kind of model directory shares: reading its files, collecting its problems, digesting its contents.

mod digest;
mod digest_cache;
mod error;
mod problems;

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::limited_read;

pub(crate) use digest::{digest, digest_of_files};
pub(crate) use error::FileError;
pub(crate) use problems::Problems;

/// Reads a configuration in JSON.
///
/// # Errors
/// Returns an error if the file cannot be read or does not have the shape of `T`.
pub(crate) fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = limited_read::read(path, limited_read::CONFIGURATION).map_err(FileError::io("read", path))?;
    serde_json::from_slice(&text).map_err(FileError::config(path))
}

/// Returns the names of the files in a directory, sorted.
///
/// # Errors
/// Returns an error if the directory cannot be listed.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(FileError::io("read", dir))? {
        let entry = entry.map_err(FileError::io("read", dir))?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
