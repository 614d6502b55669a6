//! Files that are read whole, and refused before that where they are larger than any file of their kind.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Most bytes of a configuration: the largest that is known, a scheduler's with its betas, has some 100 KiB.
pub(crate) const CONFIGURATION: u64 = 16 << 20;

/// Most bytes of a table in JSON, such as descriptions or a vocabulary: 256 MiB are a million texts of 256 bytes, and
/// the largest tokenizers have some 20 MiB.
pub(crate) const TABLE: u64 = 256 << 20;

/// The bytes of a file that has `most` of them at most.
///
/// # Errors
/// As the file system says; `FileTooLarge` where there are more.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let too_large = |found: String| {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {found} bytes, {most} are allowed")))
    };
    if length > most {
        return too_large(length.to_string());
    }
    let mut bytes = Vec::new();
    // A pipe or a device says that it has none.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return too_large(format!("more than {most}"));
    }
    Ok(bytes)
}

/// The text of a file that has `most` bytes at most.
///
/// # Errors
/// As [`read`]; `InvalidData` where it is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_its_limit_is_refused_unread() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let error = read(file.path(), TABLE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it has 1099511627776 bytes, 268435456 are allowed");
        file.as_file().set_len(3).unwrap();
        assert_eq!(read_text(file.path(), 3).unwrap(), "\0\0\0");
        assert!(read(file.path(), 2).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_without_an_end_is_refused_too() {
        let error = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1000 bytes, 1000 are allowed");
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"a\xff").unwrap();
        assert_eq!(read_text(file.path(), 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
