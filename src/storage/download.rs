//! Downloads stored objects into local files.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::TryStreamExt;

use super::{StorageError, StoredObject};

/// Attempts to download an object before its error is returned.
const MAX_ATTEMPTS: u32 = 5;

impl StoredObject {
    /// Downloads the object to `target`, which appears by one rename when it is complete. Adds the number of bytes to
    /// `downloaded` as they arrive, those of failed attempts included.
    ///
    /// # Errors
    /// Returns an error if the object has changed, cannot be read in several attempts, or `target` cannot be written.
    pub(crate) async fn download(&self, target: &Path, downloaded: &AtomicU64) -> Result<(), StorageError> {
        let mut attempt = 1;
        loop {
            match self.try_download(target, downloaded).await {
                Err(StorageError::Read { .. } | StorageError::Truncated { .. }) if attempt < MAX_ATTEMPTS => {
                    attempt += 1
                }
                done => return done,
            }
        }
    }

    async fn try_download(&self, target: &Path, downloaded: &AtomicU64) -> Result<(), StorageError> {
        let unreadable = |source| StorageError::Read { url: self.url(), source };
        let unwritable = |source| StorageError::WriteLocal { path: target.to_owned(), source };
        let found = self.get(None).await?;
        let partial = PartialFile::next_to(target);
        let mut out = fs::File::create(&partial.0).map_err(unwritable)?;
        let (mut chunks, mut received) = (found.into_stream(), 0);
        while let Some(chunk) = chunks.try_next().await.map_err(unreadable)? {
            out.write_all(&chunk).map_err(unwritable)?;
            received += chunk.len() as u64;
            downloaded.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        self.check_length(self.size(), received)?;
        out.sync_all().and_then(|()| fs::rename(&partial.0, target)).map_err(unwritable)
    }
}

/// A file that is being written, with a name that no other process uses. It is removed on drop unless it was renamed.
struct PartialFile(PathBuf);

impl PartialFile {
    fn next_to(target: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(target.with_file_name(format!(".{name}.{}-{count}.part", process::id())))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // It no longer exists after a rename. A leftover does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Location, Version},
        *,
    };

    #[tokio::test]
    async fn a_file_is_downloaded_completely_or_not_at_all() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("unet")).unwrap();
        fs::write(from.path().join("unet/b"), "abc").unwrap();
        fs::write(from.path().join("unet/a"), "").unwrap();
        let location = Location::open(from.path().to_str().unwrap()).unwrap();
        let top = location.list_folder("").await.unwrap();
        assert!(top.objects.is_empty());
        assert_eq!(top.folders, ["unet"]);
        let files = location.list_folder("unet").await.unwrap().objects;
        let names: Vec<_> = files.iter().map(|file| (file.name(), file.size())).collect();
        assert_eq!(names, [("unet/a", 0), ("unet/b", 3)]);
        let downloaded = AtomicU64::new(0);
        files[0].download(&to.path().join("a"), &downloaded).await.unwrap();
        files[1].download(&to.path().join("b"), &downloaded).await.unwrap();
        assert_eq!(fs::read(to.path().join("b")).unwrap(), b"abc");
        assert_eq!(downloaded.into_inner(), 3);
        let longer = location.object("unet/b", Version::immutable(4));
        let error = longer.download(&to.path().join("c"), &AtomicU64::new(0)).await.unwrap_err();
        assert!(matches!(error, StorageError::Changed { .. }), "{error}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 2, "no incomplete file is left");
    }
}
