//! Finds and lists the objects below a location.

use std::{collections::BTreeSet, sync::Arc};

use futures::{Stream, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{Location, StorageError, StoredObject, Version};

/// The objects and folders directly in a folder. A folder that does not exist is empty.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Ordered by name.
    pub(crate) objects: Vec<StoredObject>,
    /// Names of the folders, relative to the location that was listed.
    pub(crate) folders: Vec<String>,
}

impl Location {
    /// Returns the object `name` at a version that is already known.
    pub(crate) fn object(&self, name: &str, version: Version) -> StoredObject {
        StoredObject::new(&Arc::new(self.clone()), name.to_owned(), version)
    }

    /// Looks up the object `name`; returns `None` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<StoredObject>, StorageError> {
        match self.store.head(&self.path(name)).await {
            Ok(meta) => Ok(Some(self.object(name, Version::of(&meta)))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(StorageError::Find { url: self.url_of(name), source }),
        }
    }

    /// Lists the objects and folders directly in `folder`, which is relative to this location.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed.
    pub(crate) async fn list_folder(&self, folder: &str) -> Result<Folder, StorageError> {
        let listed = self.store.list_with_delimiter(Some(&self.path(folder))).await;
        let listed = listed.map_err(|source| StorageError::List { url: self.url_of(folder), source })?;
        let shared = Arc::new(self.clone());
        let mut objects: Vec<_> = listed.objects.iter().map(|meta| stored(&shared, meta)).collect();
        objects.sort_by(|a, b| a.name().cmp(b.name()));
        let folders = listed.common_prefixes.iter().map(|path| self.name(path).to_owned()).collect();
        Ok(Folder { objects, folders })
    }

    /// Lists every object below `folder`, at any depth and in any order. Errors are items of the stream.
    pub(crate) fn list_tree(&self, folder: &str) -> impl Stream<Item = Result<StoredObject, StorageError>> + use<> {
        let (shared, url) = (Arc::new(self.clone()), self.url_of(folder));
        self.store
            .list(Some(&self.path(folder)))
            .map_ok(move |meta| stored(&shared, &meta))
            .map_err(move |source| StorageError::List { url: url.clone(), source })
    }

    /// Returns the names of the files and folders that are directly in this location.
    ///
    /// # Errors
    /// Returns an error if the location cannot be listed.
    pub(crate) async fn names(&self) -> Result<BTreeSet<String>, StorageError> {
        let Folder { objects, folders } = self.list_folder("").await?;
        Ok(objects.iter().map(|object| object.name().to_owned()).chain(folders).collect())
    }
}

fn stored(location: &Arc<Location>, meta: &ObjectMeta) -> StoredObject {
    StoredObject::new(location, location.name(&meta.location).to_owned(), Version::of(meta))
}
