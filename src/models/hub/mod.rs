//! Finds the local directory of a model, and fetches its files first if they are remote.
//!
//! Repositories of the Hugging Face hub are fetched into the hub's own cache, which Python's tools share; folders in an
//! object store into this program's cache. Only the files that make up a model are fetched. The location of the files does
//! not identify a model; their contents do.

mod download;
mod error;
mod files;
mod hugging_face;
mod progress;
mod record;
mod settings;
mod store;

use std::path::PathBuf;

use crate::config::ModelLocation;

pub(crate) use error::HubError;
#[cfg(any(test, fuzzing))]
pub(crate) use hugging_face::fuzzing::listing;
pub(crate) use progress::FetchProgress;

/// Returns the directory with the files of the model at `location`. Fetches them first if necessary. A local directory
/// is returned unchecked.
///
/// # Errors
/// Returns an error if the location is invalid, if the hub or the store cannot be reached or does not have the model, or
/// if the cache cannot be written.
pub(crate) async fn directory(location: &str, progress: &FetchProgress) -> Result<PathBuf, HubError> {
    match ModelLocation::parse(location) {
        Some(ModelLocation::Directory(path)) if path.is_file() => Err(HubError::NotAFolder { path }),
        Some(ModelLocation::Directory(path)) => Ok(path),
        Some(ModelLocation::Hub(folder)) => hugging_face::fetch(location, &folder, progress).await,
        Some(ModelLocation::Store(url)) => store::fetch(&url, progress).await,
        None => Err(HubError::BadLocation { found: location.to_owned(), allowed: ModelLocation::EXPECTED }),
    }
}
