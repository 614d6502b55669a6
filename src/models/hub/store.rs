//! A model in an object store. Each file is fetched once into `models/<digest of the URL>/<digest of the listing>` of
//! this program's cache. Another listing gets another folder, so that files of two versions of a model never mix.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    HubError,
    files::{FOLDERS, INDEX, needed},
    progress::{FetchProgress, Watch, files as count_files},
    settings::model_cache,
};
use crate::{
    error::{Error, text::bytes},
    identity::Digest,
    models::{diffusion::PARTS, model_dir::FileError},
    storage::{Location, StoredObject},
};

/// Fetches the missing files of the model at `url` and returns its directory.
pub(super) async fn fetch(url: &str, progress: &FetchProgress) -> Result<PathBuf, HubError> {
    let location = Location::open(url).map_err(Error::from)?;
    let files = list(&location, url).await?;
    let listing = files.iter().fold(Digest::new("listing"), |digest, file| {
        digest.text(file.name()).part(&file.size().to_le_bytes()).text(file.version().mark())
    });
    let directory = model_cache()?.join(Digest::new("store").text(url).id()).join(listing.id());
    let missing: Vec<&StoredObject> = files.iter().filter(|file| !is_present(file, &directory)).collect();
    if missing.is_empty() {
        return Ok(directory);
    }
    let total = missing.iter().map(|file| file.size()).sum();
    progress.report(&format!(
        "fetching `{url}`: {}, {}, into {}",
        count_files(missing.len()),
        bytes(total),
        directory.display()
    ));
    let fetched = Arc::new(AtomicU64::new(0));
    let mut watch = Watch::new(url, total, &fetched, progress);
    for file in missing {
        let target = directory.join(file.name());
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(FileError::io("create", folder))?;
        // The store has its own timeouts.
        watch.during(file.download(&target, &fetched)).await.map_err(Error::from)?;
    }
    Ok(directory)
}

/// Returns the files of the model, sorted by name.
async fn list(location: &Location, url: &str) -> Result<Vec<StoredObject>, HubError> {
    let mut all = location.list_folder("").await.map_err(Error::from)?.objects;
    let folders: &[&str] = if all.iter().any(|file| file.name() == INDEX) { &PARTS } else { &FOLDERS };
    for folder in folders {
        all.extend(location.list_folder(folder).await.map_err(Error::from)?.objects);
    }
    let found = all.len();
    let names: Vec<String> = all.iter().map(|file| file.name().to_owned()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let needed = needed(&names, url, "COPY_OF_THE_FOLDER")?;
    all.retain(|file| needed.contains(file.name()));
    if all.is_empty() {
        return Err(HubError::NoModel { url: url.to_owned(), found: count_files(found) });
    }
    all.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(all)
}

/// Whether a file is present. A file gets its name only when it is complete, so the size is compared only to detect later
/// changes.
fn is_present(file: &StoredObject, directory: &Path) -> bool {
    fs::metadata(directory.join(file.name())).is_ok_and(|found| found.is_file() && found.len() == file.size())
}
