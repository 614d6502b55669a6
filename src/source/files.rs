//! Images that are single files in a directory or a bucket.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Read,
    entry::{Entry, File},
    error::Result,
    object::read_image,
};
use crate::storage::{Location, Version};

/// Requests to the store at the same time.
pub(super) const MAX_CONCURRENT_REQUESTS: usize = 16;

/// The files of a data set, with the versions that were listed.
#[derive(Debug)]
pub(super) struct Files {
    location: Location,
    /// By path; the reason for a file that cannot be read.
    versions: HashMap<String, Result<Version, String>>,
}

impl Files {
    /// Looks up the files of `entries` by listing the folders that they are in: a request per file would take hours.
    /// Symbolic links below a directory are followed, also those that lead out of it.
    ///
    /// # Errors
    /// Returns an error if a folder cannot be listed.
    pub(super) async fn open(location: Location, entries: &mut [Entry]) -> Result<Self> {
        let mut folders: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        for (row, entry) in entries.iter().enumerate().filter(|(_, entry)| matches!(entry.file, File::NotLookedUp)) {
            let (folder, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            folders.entry(folder).or_default().push((name, row));
        }
        let found: Vec<Vec<(usize, File)>> = stream::iter(folders)
            .map(|(folder, wanted)| look_up(&location, folder, wanted))
            .buffer_unordered(MAX_CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        for (row, file) in found.into_iter().flatten() {
            entries[row].file = file;
        }
        let state = |entry: &Entry| match &entry.file {
            File::Found(version) => Ok(version.clone()),
            File::Unreadable(reason) => Err(reason.clone()),
            File::NotLookedUp if entry.path.contains(['*', '?']) => {
                Err("no such file; each path names one image, without patterns".to_owned())
            }
            File::NotLookedUp => Err("no such file".to_owned()),
        };
        let versions = entries.iter().map(|entry| (entry.path.clone(), state(entry))).collect();
        Ok(Self { location, versions })
    }

    /// Returns the size of the image at `path`, if it is known.
    pub(super) fn size(&self, path: &str) -> Option<u64> {
        self.versions.get(path)?.as_ref().ok().map(Version::size)
    }

    /// Returns the size of all images that exist.
    pub(super) fn bytes(&self) -> u64 {
        self.versions.values().flatten().map(Version::size).sum()
    }

    /// Reads the images at `paths`, up to [`MAX_CONCURRENT_REQUESTS`] in parallel.
    pub(super) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let images: Vec<_> = paths.iter().map(|path| self.image(*path)).collect();
        stream::iter(images).buffered(MAX_CONCURRENT_REQUESTS).try_collect().await
    }

    async fn image(&self, path: Option<&str>) -> Result<Read> {
        let Some(path) = path else { return Ok(Ok(None)) };
        match self.versions.get(path) {
            None => Ok(Err(format!("`{path}` is not an image of the source"))),
            Some(Err(reason)) => Ok(Err(reason.clone())),
            Some(Ok(version)) => read_image(&self.location.object(path, version.clone()), 0..version.size()).await,
        }
    }
}

/// Looks up the `wanted` files in a folder, each with its row. Those that do not exist are left out.
async fn look_up(location: &Location, folder: &str, wanted: Vec<(&str, usize)>) -> Result<Vec<(usize, File)>> {
    let listed = location.list_folder(folder).await?;
    let objects = listed.objects.iter().map(|object| (object.file_name(), File::Found(object.version().clone())));
    let broken = listed
        .faults
        .iter()
        .map(|fault| (fault.name.rsplit('/').next().unwrap_or_default(), File::Unreadable(fault.kind.to_string())));
    let files: HashMap<&str, File> = objects.chain(broken).collect();
    Ok(wanted.into_iter().filter_map(|(name, row)| Some((row, (*files.get(name)?).clone()))).collect())
}
