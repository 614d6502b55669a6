//! Reads whole files with a size limit, so that a file that is much too large never fills the memory. Recognises what
//! stands in for a file that was never downloaded.

#[cfg(any(test, fuzzing))]
pub(crate) mod damaged;
mod python_json;
mod stand_in;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

pub(crate) use python_json::{from_python, parse};
pub(crate) use stand_in::{HEAD_BYTES, StandIn, UNKNOWN, looks_like};

/// The most bytes of a configuration. The largest known one, a scheduler's with its betas, has about 100 KiB.
pub(crate) const CONFIGURATION: u64 = 16 << 20;

/// The most bytes of a table in JSON, such as descriptions or a vocabulary. 256 MiB hold a million strings of 256 bytes,
/// and the largest tokenizers have about 20 MiB.
pub(crate) const TABLE: u64 = 256 << 20;

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// Returns the error of the file system, `FileTooLarge` if the file has more bytes, or `InvalidData` if it holds a
/// [`StandIn`]. An empty file is none: whether it can be used depends on the format.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let too_large = |found: String| {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {found} bytes, at most {max} are allowed")))
    };
    if length > max {
        return too_large(length.to_string());
    }
    let mut bytes = Vec::new();
    // A pipe or a device reports a length of 0.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return too_large(format!("more than {max}"));
    }
    match StandIn::of(bytes.get(..HEAD_BYTES).unwrap_or(&bytes)) {
        None | Some(StandIn::Empty) => Ok(bytes),
        Some(found) => Err(io::Error::new(io::ErrorKind::InvalidData, found.instead_of_the_file())),
    }
}

/// Returns the first [`HEAD_BYTES`] of a file, or fewer if it is shorter.
///
/// # Errors
/// Returns the error of the file system.
pub(crate) fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a UTF-8 file of at most `max` bytes.
///
/// # Errors
/// Returns the errors of [`read`], or `InvalidData` if the file is not UTF-8.
pub(crate) fn read_text(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(read(path, max)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let error = read(file.path(), TABLE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it has 1099511627776 bytes, at most 268435456 are allowed");
        file.as_file().set_len(3).unwrap();
        assert_eq!(read_text(file.path(), 3).unwrap(), "\0\0\0");
        assert!(read(file.path(), 2).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_endless_device_is_an_error() {
        let error = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1000 bytes, at most 1000 are allowed");
    }

    #[test]
    fn a_file_that_was_not_downloaded_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n";
        std::fs::write(file.path(), pointer).unwrap();
        let message = read_text(file.path(), 1000).unwrap_err().to_string();
        assert!(message.starts_with("it is a Git LFS pointer, not the file itself\nhint: run `git lfs"), "{message}");
        assert_eq!(head(file.path()).unwrap(), pointer.as_bytes());
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(read_text(file.path(), 1000).unwrap(), "");
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"a\xff").unwrap();
        assert_eq!(read_text(file.path(), 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
