//! What every kind of model directory shares: reading its files, collecting its problems, digesting its contents.

mod digest;
mod digest_cache;
mod error;
mod problems;
mod read;

use std::{fs, path::Path};

pub(crate) use digest::{digest, digest_of_files};
pub(crate) use error::FileError;
pub(crate) use problems::Problems;
pub(crate) use read::{read, read_config};

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
