//! Digests of model files: a model is identified by its contents, wherever it is stored.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{FileError, digest_cache::DigestCache};
use crate::identity::hex;

/// Returns the SHA-256 of a file in lower-case hex. Reads the file in chunks.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub(crate) fn digest(path: &Path) -> Result<String, FileError> {
    let file = File::open(path).map_err(FileError::io("read", path))?;
    digest_of(&file, path)
}

/// Returns one digest over several files of a directory, each with its relative path. A caller must also name the
/// files in which a graph keeps external weights (`model.onnx_data` in large exports). Large files that have not changed
/// since the last call are not read again.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(crate) fn digest_of_files(dir: &Path, names: &[String]) -> Result<String, FileError> {
    let cache = DigestCache::of_user();
    let mut hasher = Sha256::new();
    for name in names {
        let path = dir.join(name);
        let digest = cache.digest(&path, |file| digest_of(file, &path))?;
        hasher.update(format!("{name}\0{digest}\n"));
    }
    Ok(hex(&hasher.finalize()))
}

/// Returns the SHA-256 of an open file; `path` names it in messages.
pub(super) fn digest_of(file: &File, path: &Path) -> Result<String, FileError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hasher = Sha256::new();
    loop {
        let chunk = reader.fill_buf().map_err(FileError::io("read", path))?;
        if chunk.is_empty() {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(chunk);
        let read = chunk.len();
        reader.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256_and_tell_names_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        std::fs::write(dir.path().join("b"), b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(&dir.path().join("a")).unwrap(), expected);
        let of = |name: &str| digest_of_files(dir.path(), &[name.to_owned()]).unwrap();
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = digest(Path::new("/no/such.onnx")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/no/such.onnx`");
    }
}
