//! Plain files of a folder in a store: listed, and fetched into local files.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::TryStreamExt;
use object_store::{GetOptions, ObjectMeta};

use super::Location;
use crate::error::{Error, Result};

/// How often a file is tried to be fetched before it is given up.
const FETCH_ATTEMPTS: u32 = 5;

/// A file that was listed.
#[derive(Debug, Clone)]
pub struct StoredFile {
    /// Its path below the place that was listed.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Its entity tag, or the time at which it was last changed.
    pub version: String,
    meta: ObjectMeta,
}

impl Location {
    /// The files right in `folder` below this place, in the order of their names; not those of its folders.
    ///
    /// # Errors
    /// Where the store cannot be listed.
    pub async fn files(&self, folder: &str) -> Result<Vec<StoredFile>> {
        let prefix = self.path(folder);
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        let listed =
            listed.map_err(|error| Error::lake(format!("{}{folder}", self.url), "it cannot be listed", error))?;
        let mut files = Vec::with_capacity(listed.objects.len());
        for meta in listed.objects {
            let Some(name) = meta.location.filename() else { continue };
            let name = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let version = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
            files.push(StoredFile { name, size: meta.size, version, meta });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Fetches a file to `target`, which it becomes by one rename when it is whole. `fetched` counts its bytes.
    ///
    /// # Errors
    /// Where the store does not give it whole, as it was listed, in several attempts, or `target` cannot be written.
    pub async fn fetch(&self, file: &StoredFile, target: &Path, fetched: &AtomicU64) -> Result<()> {
        let mut attempt = 1;
        loop {
            let failed = match self.try_fetch(file, target, fetched).await {
                Ok(size) if size == file.size => return Ok(()),
                Ok(size) => Error::lake(
                    self.url_of(file),
                    "it cannot be read whole",
                    format!("{size} bytes came, {} were listed", file.size),
                ),
                Err(error) => error,
            };
            if attempt == FETCH_ATTEMPTS {
                return Err(failed);
            }
            attempt += 1;
        }
    }

    /// The bytes that came. Fewer or more than were listed are not kept.
    async fn try_fetch(&self, file: &StoredFile, target: &Path, fetched: &AtomicU64) -> Result<u64> {
        let unreadable = |error| Error::lake(self.url_of(file), "it cannot be read", error);
        let unwritable =
            |error: std::io::Error| Error::lake(target.display().to_string(), "it cannot be written", error);
        let options = GetOptions { if_match: file.meta.e_tag.clone(), ..GetOptions::default() };
        let found = self.store.get_opts(&file.meta.location, options).await.map_err(unreadable)?;
        let partial = Partial::beside(target);
        let mut out = fs::File::create(&partial.0).map_err(unwritable)?;
        let (mut pieces, mut size) = (found.into_stream(), 0);
        while let Some(piece) = pieces.try_next().await.map_err(unreadable)? {
            out.write_all(&piece).map_err(unwritable)?;
            size += piece.len() as u64;
            fetched.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if size == file.size {
            out.sync_all().and_then(|()| fs::rename(&partial.0, target)).map_err(unwritable)?;
        }
        Ok(size)
    }

    fn url_of(&self, file: &StoredFile) -> String {
        format!("{}{}", self.url, file.name)
    }
}

/// A file that is being written. It goes away unless it was renamed; its name is no other process's.
struct Partial(PathBuf);

impl Partial {
    fn beside(target: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(target.with_file_name(format!(".{name}.{}-{count}.part", process::id())))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // after a rename it is not there, and what is left behind does no harm
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_fetched_whole_or_not_at_all() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("unet")).unwrap();
        fs::write(from.path().join("unet/b"), "abc").unwrap();
        fs::write(from.path().join("unet/a"), "").unwrap();
        let location = Location::open(from.path().to_str().unwrap()).unwrap();
        assert!(location.files("").await.unwrap().is_empty(), "folders are no files");
        let mut files = location.files("unet").await.unwrap();
        let names: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(names, [("unet/a", 0), ("unet/b", 3)]);
        let (target, fetched) = (to.path().join("b"), AtomicU64::new(0));
        location.fetch(&files[1], &target, &fetched).await.unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abc");
        assert_eq!(fetched.into_inner(), 3);
        // a store that gives fewer bytes than it listed
        files[1].size = 4;
        let error = location.fetch(&files[1], &to.path().join("c"), &AtomicU64::new(0)).await.unwrap_err();
        assert!(crate::error::chain(&error).contains("3 bytes came, 4 were listed"), "{error}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "nothing is left of what was not whole");
    }
}
