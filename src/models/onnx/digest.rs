//! Digests of model files: a model is known by its contents, wherever it lies.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::OnnxError;

/// SHA-256 of a file in lower-case hex, read in pieces.
///
/// # Errors
/// [`OnnxError::Io`] where the file cannot be read.
pub(crate) fn digest(path: &Path) -> Result<String, OnnxError> {
    let file = File::open(path).map_err(OnnxError::io("read", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hasher = Sha256::new();
    loop {
        let piece = reader.fill_buf().map_err(OnnxError::io("read", path))?;
        if piece.is_empty() {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(piece);
        let read = piece.len();
        reader.consume(read);
    }
}

/// One digest over several files of a directory, each with its relative path. Weights that a graph keeps outside
/// itself (`model.onnx_data`, as large exports have) must be named too.
///
/// # Errors
/// [`OnnxError::Io`] where a file cannot be read.
pub(crate) fn digest_of_all(dir: &Path, files: &[String]) -> Result<String, OnnxError> {
    let mut hasher = Sha256::new();
    for name in files {
        hasher.update(format!("{name}\0{}\n", digest(&dir.join(name))?));
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        let of = |name: &str| digest_of_all(dir.path(), &[name.to_owned()]).unwrap();
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = digest(Path::new("/no/such.onnx")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/no/such.onnx`");
    }
}
