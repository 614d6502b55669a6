//! Images that are files of their own, in a directory or a bucket.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;

use super::{
    Read,
    entry::Entry,
    object::{Version, image},
};
use crate::{
    error::{Error, Result},
    storage::Location,
};

/// Requests to the store at one time.
pub(super) const AT_ONCE: usize = 16;

/// The files of a data set: which versions of them were listed.
#[derive(Debug)]
pub(super) struct Files {
    location: Location,
    /// By path; none for a file that is not there.
    versions: HashMap<String, Option<Version>>,
}

impl Files {
    /// Finds the files that are named, by listing the folders that they are in: a question for each file would take
    /// hours. Symbolic links below a directory are followed, also out of it.
    ///
    /// # Errors
    /// Where a folder cannot be listed.
    pub(super) async fn open(location: Location, named: &mut [Entry]) -> Result<Self> {
        let mut folders: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        for (row, named) in named.iter().enumerate().filter(|(_, named)| named.version.is_none()) {
            let (folder, name) = named.path.rsplit_once('/').unwrap_or(("", &named.path));
            folders.entry(folder).or_default().push((name, row));
        }
        let found: Vec<Vec<(usize, Version)>> = stream::iter(folders)
            .map(|(folder, wanted)| versions(&location, folder, wanted))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for (row, version) in found.into_iter().flatten() {
            named[row].version = Some(version);
        }
        let versions = named.iter().map(|named| (named.path.clone(), named.version.clone())).collect();
        Ok(Self { location, versions })
    }

    /// The size of all images that are there.
    pub(super) fn bytes(&self) -> u64 {
        self.versions.values().flatten().map(|version| version.size).sum()
    }

    /// The images at `paths`, up to [`AT_ONCE`] side by side.
    pub(super) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let images: Vec<_> = paths.iter().map(|path| self.image(*path)).collect();
        stream::iter(images).buffered(AT_ONCE).try_collect().await
    }

    async fn image(&self, path: Option<&str>) -> Result<Read> {
        let Some(path) = path else { return Ok(Ok(None)) };
        match self.versions.get(path) {
            None => Ok(Err(format!("`{path}` is no image of the source"))),
            Some(None) => Ok(Err("no such file".into())),
            Some(Some(version)) => image(&self.location, path, version, 0..version.size).await,
        }
    }
}

/// The versions of the files called so in a folder, each with its row; those that are not there are left out.
async fn versions(location: &Location, folder: &str, wanted: Vec<(&str, usize)>) -> Result<Vec<(usize, Version)>> {
    let listed = location.store.list_with_delimiter(Some(&location.path(folder))).await;
    let listed =
        listed.map_err(|error| Error::lake(format!("{}{folder}", location.url), "it cannot be listed", error))?;
    let files: HashMap<&str, &ObjectMeta> =
        listed.objects.iter().filter_map(|meta| Some((meta.location.filename()?, meta))).collect();
    Ok(wanted.into_iter().filter_map(|(name, row)| Some((row, Version::of(files.get(name)?)))).collect())
}
