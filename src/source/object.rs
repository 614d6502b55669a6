//! Reads images, and the files that list images, from storage.

use std::ops::Range;

use bytes::Bytes;

use super::{
    Read,
    error::{Result, SourceError},
    patterns::hint,
};
use crate::{
    limited_read::{HEAD_BYTES, StandIn},
    storage::{Location, StoredObject},
};

/// Encoded bytes of an image in its standard form. Parquet readers fail on values of 8 MiB and more.
pub(super) const MAX_IMAGE_BYTES: usize = (8 << 20) - 1;
/// Bytes of the file of an image: without compression it can be many times as large as in its standard form.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Bytes of a line, a field or a label.
pub(super) const MAX_FIELD_BYTES: usize = 64 << 10;
/// Characters of a file's name in a message: as many as stores allow.
pub(super) const MAX_NAME_CHARS: usize = 1024;
/// Bytes of a file that lists images. It is held in memory.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// Returns why the file of an image of `size` bytes is rejected, or `None` if it is not too large.
pub(super) fn too_large(size: u64) -> Option<String> {
    (size > MAX_FILE_BYTES).then(|| format!("it has {size} bytes, {MAX_FILE_BYTES} are allowed"))
}

/// Reads an image: a range of an object, or all of it. An image that is too large is rejected without reading it.
///
/// # Errors
/// Returns an error if the object cannot be read or has changed since it was listed.
pub(super) async fn read_image(object: &StoredObject, range: Range<u64>) -> Result<Read> {
    if let Some(reason) = too_large(range.end - range.start) {
        return Ok(Err(reason));
    }
    Ok(Ok(Some(object.read_range(range).await?.to_vec())))
}

/// Reads a file that lists images. `key` and `below` say in messages which keys of the pipeline name it.
///
/// # Errors
/// Returns an error if the file does not exist, is too large or cannot be read.
pub(super) async fn read_list(
    location: &Location,
    name: &str,
    key: &'static str,
    below: &'static str,
) -> Result<Bytes> {
    let Some(object) = location.find(name).await? else {
        let hint = hint(name, false);
        return Err(SourceError::NoSuchFile { url: location.url_of(name), key, below, hint });
    };
    if object.size() > MAX_LIST_BYTES {
        return Err(SourceError::ListTooLarge { url: object.url(), bytes: object.size(), max: MAX_LIST_BYTES, key });
    }
    let bytes = object.read().await?;
    match StandIn::of(bytes.get(..HEAD_BYTES).unwrap_or(&bytes)) {
        // An empty list has no image, which is an error of its split.
        None | Some(StandIn::Empty) => Ok(bytes),
        Some(found) => Err(SourceError::StandIn { url: object.url(), found }),
    }
}

/// Returns the error of a file that stands in for one that was never downloaded, or `error`.
pub(super) async fn or_stand_in(object: &StoredObject, error: SourceError) -> SourceError {
    let head = object.read_range(0..object.size().min(HEAD_BYTES as u64)).await;
    match head.ok().and_then(|head| StandIn::of(&head)) {
        Some(found) => SourceError::StandIn { url: object.url(), found },
        None => error,
    }
}

/// Checks that the root of a source is a directory, if it is on this machine.
///
/// # Errors
/// Returns an error that says where a relative path starts.
pub(super) async fn check_root(location: &Location, root: &str) -> Result<()> {
    let Some(directory) = location.directory() else { return Ok(()) };
    if tokio::fs::metadata(&directory).await.is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    Err(SourceError::NoRoot { root: root.to_owned(), directory })
}
