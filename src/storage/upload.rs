//! Writes objects outside of tables. A streamed object appears under its name only when it is complete.

use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStoreExt, WriteMultipart};
use tokio::time::sleep;

use super::{Location, StorageError};

/// Bytes of a part. Stores accept 10,000 parts, so a file can have 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts that are uploaded at the same time.
const MAX_PARTS_IN_FLIGHT: usize = 4;
/// Attempts to delete an object.
const MAX_DELETE_ATTEMPTS: u32 = 6;
/// The wait before the second of them; it grows with each.
const DELETE_DELAY: Duration = Duration::from_millis(100);

/// How long to wait before a removal is repeated: twice as long each time, in all up to 13 seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A streamed upload. Nothing appears in the store if it is dropped before [`Upload::finish`].
#[derive(Debug)]
pub(crate) struct Upload {
    url: String,
    writer: WriteMultipart,
}

impl Upload {
    /// Adds `bytes`. Waits while too many parts are in flight.
    ///
    /// # Errors
    /// Returns an error if the store rejects a part.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.writer.wait_for_capacity(MAX_PARTS_IN_FLIGHT).await.map_err(unwritable(&self.url))?;
        self.writer.write(bytes);
        Ok(())
    }

    /// Completes the object, which then appears under its name.
    ///
    /// # Errors
    /// Returns an error if the store rejects the object. It does not appear then.
    pub(crate) async fn finish(self) -> Result<(), StorageError> {
        self.writer.finish().await.map(drop).map_err(unwritable(&self.url))
    }

    /// Cancels the upload and removes its parts from the store.
    ///
    /// # Errors
    /// Returns an error if the store does not confirm it.
    pub(crate) async fn abort(self) -> Result<(), StorageError> {
        self.writer.abort().await.map_err(unwritable(&self.url))
    }
}

impl Location {
    /// Starts an upload of the object `name`. An existing object stays until the new one is complete.
    ///
    /// # Errors
    /// Returns an error if the store rejects the upload.
    pub(crate) async fn upload(&self, name: &str) -> Result<Upload, StorageError> {
        let url = self.url_of(name);
        let upload = self.store.put_multipart(&self.path(name)).await.map_err(unwritable(&url))?;
        Ok(Upload { url, writer: WriteMultipart::new_with_chunk_size(upload, PART_BYTES) })
    }

    /// Writes a small object in one request, replacing an existing one.
    ///
    /// # Errors
    /// Returns an error if the store rejects the object.
    pub(crate) async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StorageError> {
        let put = self.store.put(&self.path(name), bytes.into()).await;
        put.map(drop).map_err(unwritable(&self.url_of(name)))
    }

    /// Removes the object `name`, if it exists. Unlike other requests, the library does not repeat a removal whose
    /// response was lost.
    ///
    /// # Errors
    /// Returns an error if the store does not confirm it.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), StorageError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.store.delete(&self.path(name)).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(object_store::Error::Generic { .. }) if pause < MAX_PAUSE => sleep(pause).await,
                removed => return removed.map_err(unwritable(&self.url_of(name))),
            }
            pause *= 2;
        }
    }

    /// Reads the current version of the object `name`; returns `None` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the object cannot be read.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        let unreadable = |source| StorageError::Read { url: self.url_of(name), source };
        match self.store.get(&self.path(name)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(unreadable),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Deletes the object `name`. Returns whether it existed, as far as the store tells.
    ///
    /// # Errors
    /// Returns an error if the store does not delete it.
    pub(crate) async fn delete(&self, name: &str) -> Result<bool, StorageError> {
        let mut attempt = 1;
        loop {
            match self.store.delete(&self.path(name)).await {
                Ok(()) => return Ok(true),
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                // The library does not repeat a request that deletes several objects, as this may become one.
                Err(object_store::Error::Generic { .. }) if attempt < MAX_DELETE_ATTEMPTS => {
                    tokio::time::sleep(DELETE_DELAY * attempt).await;
                    attempt += 1;
                }
                Err(source) => return Err(StorageError::Delete { url: self.url_of(name), source }),
            }
        }
    }

    /// Gives an object another name, and replaces what has that name: atomically in a directory, by a copy in a store.
    ///
    /// # Errors
    /// Returns an error if the store does not write or delete it.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let (path, new) = (self.path(from), self.path(to));
        if self.directory().is_some() {
            return self.store.rename(&path, &new).await.map_err(unwritable(&self.url_of(to)));
        }
        self.store.copy(&path, &new).await.map_err(unwritable(&self.url_of(to)))?;
        self.delete(from).await.map(drop)
    }

    /// Returns whether the object `name` exists.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub(crate) async fn exists(&self, name: &str) -> Result<bool, StorageError> {
        Ok(self.find(name).await?.is_some())
    }
}

fn unwritable(url: &str) -> impl Fn(object_store::Error) -> StorageError + use<> {
    let url = url.to_owned();
    move |source| StorageError::Write { url: url.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::open(folder.path().to_str().unwrap()).unwrap().below("a/folder").unwrap();
        assert!(location.names().await.unwrap().is_empty());
        let piece = vec![7; PART_BYTES / 3];
        let mut upload = location.upload("a").await.unwrap();
        for _ in 0..40 {
            upload.write(&piece).await.unwrap();
        }
        assert!(location.names().await.unwrap().is_empty());
        upload.finish().await.unwrap();
        assert_eq!(location.get("a").await.unwrap().unwrap(), vec![7; 40 * piece.len()]);
        let mut upload = location.upload("b").await.unwrap();
        upload.write(&piece).await.unwrap();
        upload.abort().await.unwrap();
        location.put("c/d", Bytes::from_static(b"d")).await.unwrap();
        assert_eq!(location.names().await.unwrap().into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(location.get("b").await.unwrap(), None);
        location.remove("b").await.unwrap();
        assert!(location.exists("c/d").await.unwrap() && !location.exists("b").await.unwrap());
        assert_eq!(std::fs::read_dir(folder.path().join("a/folder")).unwrap().count(), 2);
    }
}
