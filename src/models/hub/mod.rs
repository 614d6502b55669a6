//! Models from elsewhere: the local directory that holds a model's files, fetched where they are not here yet.
//!
//! A repository of Hugging Face's hub comes into the hub's own cache, in the layout that its Python tools share; a
//! folder in a store comes into a cache of ours. Only what a model here is made of is fetched. Where the files lie says
//! nothing of what a model is: it is known by their contents.

mod error;
mod files;
mod hugging_face;
mod notes;
mod record;
mod settings;
mod store;

use std::path::PathBuf;

pub(crate) use error::HubError;
pub use notes::Notes;

use crate::config::ModelLocation;

/// The directory with the files of the model at `location`, after they were fetched if they have to be. A directory
/// is itself and is not looked at.
///
/// # Errors
/// A place that is none; a hub or a store that cannot be reached, does not give the files or has none of a model; a
/// cache that cannot be written.
pub(crate) async fn directory(location: &str, notes: &Notes) -> Result<PathBuf, HubError> {
    match ModelLocation::parse(location) {
        Some(ModelLocation::Directory(path)) => Ok(path),
        Some(ModelLocation::Hub(folder)) => hugging_face::fetch(location, &folder, notes).await,
        Some(ModelLocation::Store(url)) => store::fetch(&url, notes).await,
        None => Err(HubError::NoPlace { found: location.to_owned(), allowed: ModelLocation::EXPECTED }),
    }
}
