//! Remembers the digests of large files, so that opening a pipeline again does not read gigabytes of weights again.
//!
//! Each file has one small entry in `digests/` of this program's cache. An entry holds the file's path, size, times and
//! inode together with its digest, and is valid as long as all of them are unchanged. Entries are replaced by a rename, so
//! processes can share the cache. A missing, corrupt or read-only cache only costs time.

use std::{
    fs::{self, File, Metadata},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::FileError;
use crate::{identity::Digest, limited_read, models::cache_dir::cache_dir};

/// Smaller files are digested each time, since reading their entries would take as long.
const MIN_FILE_BYTES: u64 = 1 << 20;

/// A limit on the size of an entry, which has a few hundred bytes.
const MAX_ENTRY_BYTES: u64 = 64 << 10;

/// Files that were modified more recently are not cached: they might change again without a change of their time, whose
/// resolution is two seconds on some file systems.
const MIN_AGE: Duration = Duration::from_secs(2);

/// Tells temporary files of one process apart.
static SAVES: AtomicU64 = AtomicU64::new(0);

/// A cache of digests.
#[derive(Debug)]
pub(super) struct DigestCache {
    /// `None` if no variable names a home.
    dir: Option<PathBuf>,
}

/// What identifies the contents of a file without reading them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    bytes: u64,
    modified: (u64, u32),
    /// Unlike the modification time, a program cannot set this one. 0 on platforms without it.
    changed: (i64, i64),
    /// 0 on platforms without inodes.
    inode: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    sha256: String,
}

impl DigestCache {
    /// Returns the user's cache.
    pub(super) fn of_user() -> Self {
        Self { dir: cache_dir().map(|dir| dir.join("digests")) }
    }

    /// Returns the digest of the file at `path`: the cached one if it is valid, otherwise the result of `compute`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, and the errors of `compute`.
    pub(super) fn digest(
        &self,
        path: &Path,
        compute: impl FnOnce(&File) -> Result<String, FileError>,
    ) -> Result<String, FileError> {
        let file = File::open(path).map_err(FileError::io("read", path))?;
        let stamp = Stamp::of(&file, path).filter(|stamp| stamp.bytes >= MIN_FILE_BYTES);
        let entry = stamp.as_ref().and_then(|stamp| self.entry_path(stamp));
        let (Some(stamp), Some(entry)) = (stamp, entry) else { return compute(&file) };
        if let Some(sha256) = load(&entry, &stamp) {
            return Ok(sha256);
        }
        let began = SystemTime::now();
        let sha256 = compute(&file)?;
        if stamp.is_older_than(began) && Stamp::of(&file, path).is_some_and(|now| now == stamp) {
            save(&entry, &Entry { stamp, sha256: sha256.clone() });
        }
        Ok(sha256)
    }

    fn entry_path(&self, stamp: &Stamp) -> Option<PathBuf> {
        let name = Digest::new("path").text(stamp.path.to_str()?).id();
        Some(self.dir.as_ref()?.join(format!("{name}.json")))
    }
}

impl Stamp {
    fn of(file: &File, path: &Path) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let path = fs::canonicalize(path).ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let (changed, inode) = change_time_and_inode(&metadata);
        let modified = (modified.as_secs(), modified.subsec_nanos());
        Some(Self { path, bytes: metadata.len(), modified, changed, inode })
    }

    /// Whether the file was last modified at least [`MIN_AGE`] before `time`.
    fn is_older_than(&self, time: SystemTime) -> bool {
        let modified = UNIX_EPOCH + Duration::new(self.modified.0, self.modified.1);
        time.duration_since(modified).is_ok_and(|age| age >= MIN_AGE)
    }
}

#[cfg(unix)]
fn change_time_and_inode(metadata: &Metadata) -> ((i64, i64), u64) {
    use std::os::unix::fs::MetadataExt;
    ((metadata.ctime(), metadata.ctime_nsec()), metadata.ino())
}

#[cfg(not(unix))]
fn change_time_and_inode(_: &Metadata) -> ((i64, i64), u64) {
    ((0, 0), 0)
}

/// Returns the digest of an entry if it is valid for the stamp.
fn load(entry: &Path, stamp: &Stamp) -> Option<String> {
    let bytes = limited_read::read(entry, MAX_ENTRY_BYTES).ok()?;
    let entry: Entry = serde_json::from_slice(&bytes).ok()?;
    let is_digest = entry.sha256.len() == 64 && entry.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest && entry.stamp == *stamp).then_some(entry.sha256)
}

/// Writes an entry. Errors are ignored: without the entry, the file is digested again.
fn save(path: &Path, entry: &Entry) {
    let (Some(dir), Ok(bytes)) = (path.parent(), serde_json::to_vec(entry)) else { return };
    let temporary = path.with_extension(format!("{}-{}.part", process::id(), SAVES.fetch_add(1, Ordering::Relaxed)));
    let saved =
        fs::create_dir_all(dir).and_then(|()| fs::write(&temporary, bytes)).and_then(|()| fs::rename(&temporary, path));
    if saved.is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{super::digest, *};

    const FORGED: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    struct Setup {
        dir: TempDir,
        cache: DigestCache,
    }

    impl Setup {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let cache = DigestCache { dir: Some(dir.path().join("cache/digests")) };
            Self { dir, cache }
        }

        fn model(&self) -> PathBuf {
            self.dir.path().join("model.onnx")
        }

        /// Writes a model file that was modified `age` seconds ago.
        fn write(&self, contents: u8, bytes: u64, age: u64) {
            fs::write(self.model(), vec![contents; usize::try_from(bytes).unwrap()]).unwrap();
            let file = File::options().write(true).open(self.model()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }

        fn digest(&self) -> String {
            self.cache.digest(&self.model(), |file| digest::digest_of(file, &self.model())).unwrap()
        }

        fn entries(&self) -> Vec<PathBuf> {
            let entries = fs::read_dir(self.dir.path().join("cache/digests")).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        }

        /// Replaces the digest in the only entry, which then shows whether the cache is used.
        fn forge(&self) {
            let [path] = &self.entries()[..] else { panic!("{:?}", self.entries()) };
            let mut entry: Entry = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            FORGED.clone_into(&mut entry.sha256);
            fs::write(path, serde_json::to_vec(&entry).unwrap()).unwrap();
        }
    }

    #[test]
    fn an_unchanged_file_is_read_once() {
        let setup = Setup::new();
        setup.write(1, MIN_FILE_BYTES, 60);
        assert_eq!(setup.digest(), digest::digest(&setup.model()).unwrap());
        setup.forge();
        assert_eq!(setup.digest(), FORGED);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let setup = Setup::new();
        setup.write(1, MIN_FILE_BYTES, 60);
        setup.digest();
        setup.forge();
        setup.write(2, MIN_FILE_BYTES, 50);
        let changed = digest::digest(&setup.model()).unwrap();
        assert_eq!(setup.digest(), changed);
        setup.forge();
        assert_eq!(setup.digest(), FORGED, "the entry is replaced");
    }

    #[cfg(unix)]
    #[test]
    fn a_changed_file_with_its_old_time_is_read_again() {
        let setup = Setup::new();
        let time = SystemTime::now() - Duration::from_secs(60);
        let set_time = || File::options().write(true).open(setup.model()).unwrap().set_modified(time).unwrap();
        setup.write(1, MIN_FILE_BYTES, 60);
        set_time();
        let first = setup.digest();
        std::thread::sleep(Duration::from_millis(20));
        setup.write(2, MIN_FILE_BYTES, 60);
        set_time();
        assert_ne!(setup.digest(), first);
    }

    #[test]
    fn young_and_small_files_are_not_cached() {
        let setup = Setup::new();
        setup.write(1, MIN_FILE_BYTES, 0);
        setup.digest();
        setup.write(1, MIN_FILE_BYTES - 1, 60);
        setup.digest();
        assert!(setup.entries().is_empty());
    }

    #[test]
    fn a_broken_entry_is_replaced() {
        let setup = Setup::new();
        setup.write(1, MIN_FILE_BYTES, 60);
        let expected = setup.digest();
        let [path] = &setup.entries()[..] else { panic!("{:?}", setup.entries()) };
        let short = fs::read_to_string(path).unwrap().replace(&expected, &expected[1..]);
        for contents in ["", "{", "[]", short.as_str(), "\u{0}"] {
            fs::write(path, contents).unwrap();
            assert_eq!(setup.digest(), expected, "{contents:?}");
            setup.forge();
            assert_eq!(setup.digest(), FORGED, "after {contents:?}");
        }
        fs::write(path, vec![b' '; 1 << 20]).unwrap();
        assert_eq!(setup.digest(), expected, "too large");
    }

    #[test]
    fn a_cache_that_cannot_be_written_only_costs_time() {
        let setup = Setup::new();
        setup.write(1, MIN_FILE_BYTES, 60);
        fs::write(setup.dir.path().join("cache"), "not a directory").unwrap();
        assert_eq!(setup.digest(), digest::digest(&setup.model()).unwrap());
        let without = DigestCache { dir: None };
        let digested = without.digest(&setup.model(), |file| digest::digest_of(file, &setup.model())).unwrap();
        assert_eq!(digested, setup.digest());
    }

    #[test]
    fn concurrent_callers_share_the_cache() {
        let setup = Setup::new();
        setup.write(1, MIN_FILE_BYTES, 60);
        let expected = digest::digest(&setup.model()).unwrap();
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| setup.digest())).collect();
            for caller in callers {
                assert_eq!(caller.join().unwrap(), expected);
            }
        });
        setup.forge();
        assert_eq!(setup.digest(), FORGED, "one entry is left, and it is valid");
    }
}
