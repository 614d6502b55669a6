//! A model in a store: each file is fetched once into `models/<digest of the URL>/<digest of the listing>` of our
//! cache. Another listing is another folder, so that a model that has changed is never mixed with what it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::HubError;
use super::files::{INDEX, is_needed};
use super::notes::{Notes, Waiting, bytes, files as files_in_words};
use super::settings::cache_of_models;
use crate::error::Error;
use crate::identity::Digest;
use crate::models::diffusion::PARTS;
use crate::storage::{Location, StoredObject};

/// Fetches what is missing of the model at `url`, and gives its directory.
pub(super) async fn fetch(url: &str, notes: &Notes) -> Result<PathBuf, HubError> {
    let location = Location::open(url).map_err(Error::from)?;
    let files = needed(&location, url).await?;
    let listing = files.iter().fold(Digest::new("listing"), |digest, file| {
        digest.text(file.name()).part(&file.size().to_le_bytes()).text(file.version().mark())
    });
    let directory = cache_of_models()?.join(Digest::new("store").text(url).id()).join(listing.id());
    let missing: Vec<&StoredObject> = files.iter().filter(|file| !is_here(file, &directory)).collect();
    if missing.is_empty() {
        return Ok(directory);
    }
    let total = missing.iter().map(|file| file.size()).sum();
    notes.say(&format!(
        "fetching `{url}`: {}, {}, into {}",
        files_in_words(missing.len()),
        bytes(total),
        directory.display()
    ));
    let fetched = Arc::new(AtomicU64::new(0));
    let mut waiting = Waiting::new(url, total, &fetched, notes);
    for file in missing {
        let target = directory.join(file.name());
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(HubError::io("create", folder))?;
        // the store has bounds of its own on how long it may be silent
        waiting.during(file.download(&target, &fetched)).await.map_err(Error::from)?;
    }
    Ok(directory)
}

/// The files of the model, in the order of their names.
async fn needed(location: &Location, url: &str) -> Result<Vec<StoredObject>, HubError> {
    let mut all = location.list_folder("").await.map_err(Error::from)?.objects;
    let is_pipeline = all.iter().any(|file| file.name() == INDEX);
    if is_pipeline {
        for part in PARTS {
            all.extend(location.list_folder(part).await.map_err(Error::from)?.objects);
        }
    }
    let found = all.len();
    all.retain(|file| is_needed(file.name(), is_pipeline));
    if all.is_empty() {
        return Err(HubError::NoModel { url: url.to_owned(), found: files_in_words(found) });
    }
    all.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(all)
}

/// A file gets its name when it is whole, so its size is looked at for what somebody else did to it.
fn is_here(file: &StoredObject, directory: &Path) -> bool {
    fs::metadata(directory.join(file.name())).is_ok_and(|found| found.is_file() && found.len() == file.size())
}
