//! One object of the store, as it was when the data set was listed.

use std::ops::Range;

use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};

use super::Read;
use crate::{
    error::{Error, Result},
    storage::Location,
};

/// Encoded bytes of an image: readers of Parquet fail on values of 8 MiB and more.
pub(super) const MAX_IMAGE_BYTES: usize = (8 << 20) - 1;
/// Largest file that lists images, in bytes: it is held in memory.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// Size and entity tag, or time where the store has no tag: another version is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) size: u64,
    mark: Box<str>,
    is_tag: bool,
}

impl Version {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let mark = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
        Self { size: meta.size, mark: mark.into(), is_tag: meta.e_tag.is_some() }
    }

    /// How the listing has it.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.size, self.mark)
    }

    /// What a store with entity tags refuses other versions by.
    pub(super) fn tag(&self) -> Option<String> {
        self.is_tag.then(|| self.mark.to_string())
    }
}

/// What an image of `size` bytes is rejected for, if it is too large.
pub(super) fn too_large(size: u64) -> Option<String> {
    (size > MAX_IMAGE_BYTES as u64).then(|| format!("it has {size} bytes, {MAX_IMAGE_BYTES} are allowed"))
}

/// The bytes of an image: all of the object `name`, or a range of it. An image that is too large is not read.
///
/// # Errors
/// Where the object cannot be read, or is not the `version` that was listed.
pub(super) async fn image(location: &Location, name: &str, version: &Version, range: Range<u64>) -> Result<Read> {
    let size = range.end - range.start;
    if let Some(why) = too_large(size) {
        return Ok(Err(why));
    }
    if size == 0 {
        return Ok(Ok(Some(Vec::new()))); // no store knows an empty range
    }
    let url = || format!("{}{name}", location.url);
    let options =
        GetOptions { range: Some(GetRange::Bounded(range)), if_match: version.tag(), ..GetOptions::default() };
    let found = location.store.get_opts(&location.path(name), options).await.map_err(|error| match error {
        object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. } => {
            Error::lake(url(), "it has changed since the source was listed; run again, and it is read anew", error)
        }
        error => Error::lake(url(), "it cannot be read", error),
    })?;
    // without a tag, its size is what tells another version
    let changed = found.meta.size != version.size;
    let bytes = found.bytes().await.map_err(|error| Error::lake(url(), "it cannot be read", error))?;
    if changed || bytes.len() as u64 != size {
        let message = format!("it has changed since the source was listed, or {} of {size} bytes came", bytes.len());
        return Err(Error::Lake { url: url(), message, source: None });
    }
    Ok(Ok(Some(bytes.to_vec())))
}

/// What the store knows of the file `name` of the source, which `key` names; none where there is no such file.
///
/// # Errors
/// Where the store cannot say.
pub(super) async fn head(location: &Location, name: &str, key: &str) -> Result<Option<ObjectMeta>> {
    match location.store.head(&location.path(name)).await {
        Ok(meta) => Ok(Some(meta)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => {
            Err(Error::lake(format!("{}{name}", location.url), format!("the file of `{key}` cannot be found"), error))
        }
    }
}

/// A file that lists images.
///
/// # Errors
/// Where it is not there, too large, or cannot be read.
pub(super) async fn list_file(location: &Location, name: &str, key: &str, below: &str) -> Result<Bytes> {
    let url = || format!("{}{name}", location.url);
    let Some(meta) = head(location, name, key).await? else {
        let message = format!("there is no such file; it is one of `{key}`, below `{below}`");
        return Err(Error::Lake { url: url(), message, source: None });
    };
    if meta.size > MAX_LIST_BYTES {
        let message = format!("it has {} bytes, {MAX_LIST_BYTES} are allowed; it is one of `{key}`", meta.size);
        return Err(Error::Lake { url: url(), message, source: None });
    }
    let found =
        location.store.get(&meta.location).await.map_err(|error| Error::lake(url(), "it cannot be read", error))?;
    let bytes = found.bytes().await.map_err(|error| Error::lake(url(), "it cannot be read", error))?;
    if bytes.len() as u64 != meta.size {
        let message = format!("{} bytes came, it has {}", bytes.len(), meta.size);
        return Err(Error::Lake { url: url(), message, source: None });
    }
    Ok(bytes)
}
