//! Files outside of tables, written as they come: one appears under its name when it is whole, and not before.

use std::collections::BTreeSet;

use bytes::Bytes;
use object_store::{ObjectStoreExt, WriteMultipart};

use super::Location;
use crate::error::{Error, Result};

/// Bytes of a part: a store takes 10,000 of them, so a file may have 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts that are on their way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// A file on its way. Dropped before [`Upload::finish`], it never appears.
#[derive(Debug)]
pub struct Upload {
    url: String,
    write: WriteMultipart,
}

impl Upload {
    /// Adds `bytes`; waits while too much is on its way.
    ///
    /// # Errors
    /// Where the store refuses a part.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(failed(&self.url))?;
        self.write.write(bytes);
        Ok(())
    }

    /// Puts the file under its name.
    ///
    /// # Errors
    /// Where the store refuses it; then it is not there.
    pub async fn finish(self) -> Result<()> {
        self.write.finish().await.map(drop).map_err(failed(&self.url))
    }

    /// Removes what the store has of it.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn abort(self) -> Result<()> {
        self.write.abort().await.map_err(failed(&self.url))
    }
}

impl Location {
    /// Begins the file `name`; one that is there stays until the new one is whole.
    ///
    /// # Errors
    /// Where the store refuses it.
    pub async fn upload(&self, name: &str) -> Result<Upload> {
        let url = format!("{}{name}", self.url);
        let upload = self.store.put_multipart(&self.path(name)).await.map_err(failed(&url))?;
        Ok(Upload { url, write: WriteMultipart::new_with_chunk_size(upload, PART_BYTES) })
    }

    /// Puts a small file at once.
    ///
    /// # Errors
    /// Where the store refuses it.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&self.path(name), bytes.into()).await;
        put.map(drop).map_err(failed(&format!("{}{name}", self.url)))
    }

    /// The bytes of the file `name`; none where there is no such file.
    ///
    /// # Errors
    /// Where the store cannot say.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let unread = |error| Error::lake(format!("{}{name}", self.url), "it cannot be read", error);
        match self.store.get(&self.path(name)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(unread),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unread(error)),
        }
    }

    /// Whether there is a file `name`.
    ///
    /// # Errors
    /// Where the store cannot say.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        match self.store.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::lake(format!("{}{name}", self.url), "it cannot be looked for", error)),
        }
    }

    /// The names of the files and folders that lie directly in this place; none where it is not there.
    ///
    /// # Errors
    /// Where it cannot be listed.
    pub async fn names(&self) -> Result<BTreeSet<String>> {
        let listed = self.store.list_with_delimiter(Some(&self.path(""))).await;
        let listed = listed.map_err(|error| Error::lake(self.url.as_str(), "it cannot be listed", error))?;
        let files = listed.objects.into_iter().map(|object| object.location);
        let paths = files.chain(listed.common_prefixes);
        Ok(paths.filter_map(|path| path.filename().map(str::to_owned)).collect())
    }
}

fn failed(url: &str) -> impl Fn(object_store::Error) -> Error + use<> {
    let url = url.to_owned();
    move |error| Error::lake(url.clone(), "the file cannot be written; is the location writable?", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_appears_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::open(folder.path().to_str().unwrap()).unwrap().below("not/there").unwrap();
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
        assert_eq!(std::fs::read_dir(folder.path().join("not/there")).unwrap().count(), 2);
    }
}
