//! Finds and lists the objects below a location.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{
    Fault, Location, StorageError, StoredObject, Version,
    walk::{Found, walk},
};

/// The objects and folders directly in a folder. A folder that does not exist is empty.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Ordered by name.
    pub(crate) objects: Vec<StoredObject>,
    /// Names of the folders, relative to the location that was listed.
    pub(crate) folders: Vec<String>,
    /// What cannot be read.
    pub(crate) faults: Vec<Fault>,
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
        let shared = Arc::new(self.clone());
        let mut listed = match self.directory() {
            Some(root) => local_folder(&shared, &root, folder),
            None => {
                let listed = self.store.list_with_delimiter(Some(&self.path(folder))).await;
                let listed = listed.map_err(|source| StorageError::List { url: self.url_of(folder), source })?;
                let objects = listed.objects.iter().map(|meta| stored(&shared, meta)).collect();
                let folders = listed.common_prefixes.iter().map(|path| self.name(path).to_owned()).collect();
                Folder { objects, folders, faults: Vec::new() }
            }
        };
        listed.objects.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(listed)
    }

    /// Lists everything below `folder`, at any depth and in any order. Errors are items of the stream.
    pub(crate) fn list_tree(&self, folder: &str) -> BoxStream<'static, Result<Found, StorageError>> {
        let (shared, url) = (Arc::new(self.clone()), self.url_of(folder));
        let Some(root) = self.directory() else {
            return self
                .store
                .list(Some(&self.path(folder)))
                .map_ok(move |meta| Found::Object(stored(&shared, &meta)))
                .map_err(move |source| StorageError::List { url: url.clone(), source })
                .boxed();
        };
        let folder = folder.to_owned();
        let walked = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            walk(&shared, &root, &folder, usize::MAX, |found| all.push(found), |_| ());
            all
        });
        stream::once(walked)
            .flat_map(move |walked| match walked {
                Ok(all) => stream::iter(all).map(Ok).left_stream(),
                Err(error) => {
                    let source = object_store::Error::JoinError { source: error };
                    stream::iter([Err(StorageError::List { url: url.clone(), source })]).right_stream()
                }
            })
            .boxed()
    }

    /// Returns the names of the files and folders that are directly in this location.
    ///
    /// # Errors
    /// Returns an error if the location cannot be listed.
    pub(crate) async fn names(&self) -> Result<BTreeSet<String>, StorageError> {
        let Folder { objects, folders, .. } = self.list_folder("").await?;
        Ok(objects.iter().map(|object| object.name().to_owned()).chain(folders).collect())
    }
}

fn local_folder(location: &Arc<Location>, root: &Path, folder: &str) -> Folder {
    let mut listed = Folder { objects: Vec::new(), folders: Vec::new(), faults: Vec::new() };
    let found = |found| match found {
        Found::Object(object) => listed.objects.push(object),
        Found::Fault(fault) => listed.faults.push(fault),
    };
    walk(location, root, folder, 1, found, |name| listed.folders.push(name));
    listed.folders.sort();
    listed
}

fn stored(location: &Arc<Location>, meta: &ObjectMeta) -> StoredObject {
    StoredObject::new(location, location.name(&meta.location).to_owned(), Version::of(meta))
}
