//! Lists local directories as stores list their objects, and notes what a store does not have: links that lead nowhere or
//! in a circle, names that are not text, folders that may not be read. One of them must not end the listing of all.

use std::{
    fmt,
    fs::Metadata,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use object_store::ObjectMeta;
use walkdir::{DirEntry, WalkDir};

use super::{Location, StoredObject, Version};

/// What a listing finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// An object that can be read.
    Object(StoredObject),
    /// Something that cannot.
    Fault(Fault),
}

/// A name of a directory that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Relative to the location, with bytes that are not UTF-8 as `\xE9`.
    pub(crate) name: String,
    pub(crate) kind: FaultKind,
}

/// Why something in a directory cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// A symbolic link whose target does not exist.
    BrokenLink,
    /// A symbolic link to a folder that it is in.
    Loop,
    /// A name that is not valid UTF-8.
    NotUnicode,
    /// A name that ends in `#` and digits, as a store names a file that is being written.
    Unfinished,
    /// What the operating system says.
    Unreadable(String),
}

/// Says it of the file, as in "it is a symbolic link …".
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BrokenLink => "it is a symbolic link to a file that does not exist",
            Self::Loop => "it is a symbolic link to a folder that it is in",
            Self::NotUnicode => "its name is not valid UTF-8",
            Self::Unfinished => "its name ends in `#` and digits, as that of a file that is being written",
            Self::Unreadable(problem) => return write!(f, "it cannot be read: {problem}"),
        })
    }
}

/// Walks `folder` of `location`, whose directory is `root`, down to `max_depth`. Calls `found` for every file, and
/// `on_folder` for every folder below `folder`. A folder that does not exist is empty.
pub(super) fn walk(
    location: &Arc<Location>,
    root: &Path,
    folder: &str,
    max_depth: usize,
    mut found: impl FnMut(Found),
    mut on_folder: impl FnMut(String),
) {
    let top = folder.split('/').filter(|part| !part.is_empty()).fold(root.to_owned(), |path, part| path.join(part));
    let mut entries = WalkDir::new(&top).min_depth(1).max_depth(max_depth).follow_links(true).into_iter();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => match name_of(root, entry.path()) {
                // What is in the folder has the same fault.
                Err(_) if entry.file_type().is_dir() && entry.depth() < max_depth => {}
                Err(name) => found(Found::Fault(Fault { name, kind: FaultKind::NotUnicode })),
                Ok(name) if leads_up(&entry) => {
                    found(Found::Fault(Fault { name, kind: FaultKind::Loop }));
                    entries.skip_current_dir();
                }
                Ok(name) if entry.file_type().is_dir() => on_folder(name),
                Ok(name) => {
                    if let Some(file) = file(location, name, &entry) {
                        found(file);
                    }
                }
            },
            Err(error) => {
                if let Some(fault) = fault(root, &top, &error) {
                    found(Found::Fault(fault));
                }
            }
        }
    }
}

/// Whether an entry is a link to a folder that it is in. The library notices only those that lead to a folder of its walk.
fn leads_up(entry: &DirEntry) -> bool {
    if !entry.path_is_symlink() || !entry.file_type().is_dir() {
        return false;
    }
    let target = entry.path().canonicalize();
    let folder = entry.path().parent().and_then(|folder| folder.canonicalize().ok());
    target.ok().zip(folder).is_some_and(|(target, folder)| folder.starts_with(target))
}

/// Returns a regular file, or why it cannot be read; `None` for sockets and other special files.
fn file(location: &Arc<Location>, name: String, entry: &DirEntry) -> Option<Found> {
    match entry.metadata() {
        Ok(metadata) if metadata.is_file() && is_unfinished(&name) => {
            Some(Found::Fault(Fault { name, kind: FaultKind::Unfinished }))
        }
        Ok(metadata) if metadata.is_file() => {
            Some(Found::Object(StoredObject::new(location, name, version(&metadata))))
        }
        Ok(_) => None,
        Err(error) => Some(Found::Fault(Fault { name, kind: FaultKind::Unreadable(error.to_string()) })),
    }
}

fn is_unfinished(name: &str) -> bool {
    let digits = name.rsplit_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn fault(root: &Path, top: &Path, error: &walkdir::Error) -> Option<Fault> {
    let path = error.path().unwrap_or(top);
    let name = name_of(root, path).unwrap_or_else(|name| name);
    let missing = error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if missing && path == top {
        return None;
    }
    let kind = match error.io_error() {
        _ if error.loop_ancestor().is_some() => FaultKind::Loop,
        Some(_) if missing && path.is_symlink() => FaultKind::BrokenLink,
        // It was removed while the directory was read.
        Some(_) if missing => return None,
        Some(error) => FaultKind::Unreadable(error.to_string()),
        None => FaultKind::Unreadable(error.to_string()),
    };
    Some(Fault { name, kind })
}

/// Returns the name of `path` relative to `root`, with `/`; as an error with escapes if it is not UTF-8.
fn name_of(root: &Path, path: &Path) -> Result<String, String> {
    let relative: PathBuf = path.strip_prefix(root).unwrap_or(path).components().collect();
    let name = match relative.to_str() {
        Some(name) => Ok(name.to_owned()),
        None => Err(escaped(relative.as_os_str().as_encoded_bytes())),
    };
    let with_slashes = |name: String| if cfg!(windows) { name.replace('\\', "/") } else { name };
    name.map(with_slashes).map_err(with_slashes)
}

fn escaped(bytes: &[u8]) -> String {
    let chunks = bytes.utf8_chunks();
    chunks.map(|chunk| format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii())).collect()
}

/// Returns the version that the store of local files would give. A test compares the two.
fn version(metadata: &Metadata) -> Version {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let micros = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    let size = metadata.len();
    Version::of(&ObjectMeta {
        location: object_store::path::Path::default(),
        last_modified: modified.into(),
        size,
        e_tag: Some(format!("{:x}-{micros:x}-{size:x}", inode(metadata))),
        version: None,
    })
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> u64 {
    0
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::{ffi::OsStrExt, fs::symlink},
    };

    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_read_does_not_end_a_listing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir_all(path.join("train/cat")).unwrap();
        fs::write(path.join("train/cat/a#b"), "abc").unwrap();
        fs::write(path.join("train/cat/a#1"), "").unwrap();
        fs::write(path.join("train/cat").join(OsStr::from_bytes(b"caf\xe9.png")), "").unwrap();
        symlink("/nowhere/at/all", path.join("train/cat/gone.png")).unwrap();
        symlink(path, path.join("train/cat/again")).unwrap();
        let location = Location::open(path.to_str().unwrap()).unwrap();
        let (mut objects, mut faults) = (Vec::new(), Vec::new());
        for found in location.list_tree("train").try_collect::<Vec<_>>().await.unwrap() {
            match found {
                Found::Object(object) => objects.push(object),
                Found::Fault(fault) => faults.push((fault.name, fault.kind)),
            }
        }
        faults.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("train/cat/a#1", FaultKind::Unfinished),
            ("train/cat/again", FaultKind::Loop),
            ("train/cat/caf\\xe9.png", FaultKind::NotUnicode),
            ("train/cat/gone.png", FaultKind::BrokenLink),
        ];
        assert_eq!(faults, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(objects.len(), 1);
        // The version is that of the store, which a read compares it with.
        assert_eq!(objects[0].read().await.unwrap(), "abc");
        let by_store = location.find("train/cat/a#b").await.unwrap().unwrap();
        assert_eq!(objects[0].version(), by_store.version());
        assert!(location.list_tree("none").try_collect::<Vec<_>>().await.unwrap().is_empty());
        let listed = location.list_folder("train/cat").await.unwrap();
        assert_eq!((listed.objects.len(), listed.folders.len(), listed.faults.len()), (1, 0, 4));
    }
}
