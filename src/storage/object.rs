//! One version of an object, and ranged reads of it that notice any other version.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta};

use super::{Location, StorageError};

/// The version of an object: its size, and its entity tag or, if the store has no tags, its modification time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    size: u64,
    mark: Box<str>,
    is_tag: bool,
}

impl Version {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let mark = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
        Self { size: meta.size, mark: mark.into(), is_tag: meta.e_tag.is_some() }
    }

    /// The version of an object that is never overwritten with other content, so that its size identifies it.
    pub(crate) fn immutable(size: u64) -> Self {
        Self { size, mark: Box::default(), is_tag: false }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the entity tag or the modification time. It is part of the digest of a cached model.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// Returns size and mark as one string. It is part of ids and fingerprints: never change it.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.size, self.mark)
    }
}

/// An object as it was listed. Reads fail if the store has another version of it now.
#[derive(Debug, Clone)]
pub(crate) struct StoredObject {
    location: Arc<Location>,
    /// Relative to `location`.
    name: String,
    version: Version,
}

impl StoredObject {
    pub(super) fn new(location: &Arc<Location>, name: String, version: Version) -> Self {
        Self { location: Arc::clone(location), name, version }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the part of the name after its last `/`.
    pub(crate) fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    pub(crate) fn size(&self) -> u64 {
        self.version.size
    }

    pub(crate) fn url(&self) -> String {
        self.location.url_of(&self.name)
    }

    /// Returns whether reads of the object go to the local file system.
    pub(crate) fn is_local(&self) -> bool {
        self.location.url.scheme() == "file"
    }

    /// Reads the whole object.
    ///
    /// # Errors
    /// Returns an error if the object cannot be read or has changed.
    pub(crate) async fn read(&self) -> Result<Bytes, StorageError> {
        self.read_range(0..self.size()).await
    }

    /// Reads a range of the object.
    ///
    /// # Errors
    /// Returns an error if the object cannot be read or has changed.
    pub(crate) async fn read_range(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        let expected = range.end.saturating_sub(range.start);
        if expected == 0 {
            // Stores reject empty ranges.
            return Ok(Bytes::new());
        }
        let found = self.get(Some(GetRange::Bounded(range))).await?;
        let bytes = found.bytes().await.map_err(|source| StorageError::Read { url: self.url(), source })?;
        // A body that ends early is not always an error of its connection.
        self.check_length(expected, bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Requests the object or a range of it. The body is not read yet.
    pub(super) async fn get(&self, range: Option<GetRange>) -> Result<GetResult, StorageError> {
        let tag = self.version.is_tag.then(|| self.version.mark.to_string());
        let options = GetOptions { range, if_match: tag, ..GetOptions::default() };
        let found = self.location.store.get_opts(&self.location.path(&self.name), options).await;
        let found = found.map_err(|source| match source {
            object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. } => {
                StorageError::Changed { url: self.url(), source: Some(source) }
            }
            source => StorageError::Read { url: self.url(), source },
        })?;
        // Without an entity tag, only the size can tell another version.
        if found.meta.size != self.version.size {
            return Err(StorageError::Changed { url: self.url(), source: None });
        }
        Ok(found)
    }

    pub(super) fn check_length(&self, expected: u64, received: u64) -> Result<(), StorageError> {
        if expected == received {
            return Ok(());
        }
        Err(StorageError::Truncated { url: self.url(), expected, received })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_version_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "abc").unwrap();
        let location = Location::open(folder.path().to_str().unwrap()).unwrap();
        let object = location.find("a").await.unwrap().unwrap();
        assert_eq!(object.read().await.unwrap(), "abc");
        assert_eq!(object.read_range(1..2).await.unwrap(), "b");
        assert!(object.read_range(3..3).await.unwrap().is_empty());
        let longer = location.object("a", Version::immutable(4));
        assert!(matches!(longer.read().await, Err(StorageError::Changed { source: None, .. })));
        std::fs::write(folder.path().join("a"), "abcd").unwrap();
        assert!(matches!(object.read_range(0..1).await, Err(StorageError::Changed { .. })));
        std::fs::remove_file(folder.path().join("a")).unwrap();
        assert!(matches!(object.read().await, Err(StorageError::Changed { source: Some(_), .. })));
    }

    #[test]
    fn the_text_of_a_version_is_pinned() {
        let mut meta = ObjectMeta {
            location: "a".into(),
            last_modified: Default::default(),
            size: 3,
            e_tag: Some("\"x-1\"".to_owned()),
            version: None,
        };
        assert_eq!(Version::of(&meta).text(), "3 \"x-1\"");
        meta.e_tag = None;
        assert_eq!(Version::of(&meta).text(), "3 1970-01-01T00:00:00+00:00");
    }
}
