//! The seal of an epoch: a file beside the epoch's files, written last, that lists them. Until then the same list, under
//! another name, has the files that are whole so far, and a later export continues after them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Format, error::ExportError};
use crate::{
    error::{Error, Result},
    identity::hex,
    storage::{Location, StoredObject, Upload},
};

/// The prefix of the name of a seal. Readers of folders pass over names that begin with `_`.
const SEALED: &str = "_SUCCESS-";
/// The prefix of the name of the list of an epoch that is not complete.
const UNSEALED: &str = "_INCOMPLETE-";
/// The list is saved when it has grown by one part in this many, so that saving takes a fixed share of the time.
const SAVED_SHARE: usize = 16;
/// Bytes of a file that are read at once to compare its digest.
const READ_BYTES: u64 = 8 << 20;
/// Files that are compared at once.
const FILES_IN_FLIGHT: usize = 16;

/// A file that was written in whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WholeFile {
    /// Relative to the destination.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// In lower-case hexadecimal digits.
    pub(super) sha256: String,
    /// Rows of the manifest that are in it.
    pub(super) rows: usize,
}

impl WholeFile {
    pub(super) fn new(name: String, content: &[u8], rows: usize) -> Self {
        Self { name, bytes: content.len() as u64, sha256: hex(&Sha256::digest(content)), rows }
    }

    /// Whether `found` has the size and the digest of this file.
    async fn is(&self, found: &StoredObject) -> Result<bool> {
        if found.size() != self.bytes {
            return Ok(false);
        }
        let mut digest = Sha256::new();
        for range in ranges(self.bytes) {
            digest.update(&found.read_range(range).await?);
        }
        Ok(hex(&digest.finalize()) == self.sha256)
    }
}

fn ranges(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..bytes.div_ceil(READ_BYTES)).map(move |part| part * READ_BYTES..((part + 1) * READ_BYTES).min(bytes))
}

/// A file that is being written. It appears under its name when it is finished.
pub(super) struct OpenFile {
    name: String,
    upload: Upload,
    digest: Sha256,
    pub(super) bytes: u64,
    rows: usize,
}

impl OpenFile {
    pub(super) async fn create(location: &Location, name: String) -> Result<Self> {
        let upload = location.upload(&name).await?;
        Ok(Self { name, upload, digest: Sha256::new(), bytes: 0, rows: 0 })
    }

    /// Adds `bytes`, with which `rows` more rows are in the file.
    pub(super) async fn write(&mut self, bytes: &[u8], rows: usize) -> Result<()> {
        self.upload.write(bytes).await?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.rows += rows;
        Ok(())
    }

    pub(super) async fn finish(self) -> Result<WholeFile> {
        let Self { name, upload, digest, bytes, rows } = self;
        upload.finish().await?;
        Ok(WholeFile { name, bytes, sha256: hex(&digest.finalize()), rows })
    }

    pub(super) async fn abort(self) -> Result<()> {
        Ok(self.upload.abort().await?)
    }
}

/// What an export of an epoch is, and its files. Equal tables give equal seals, except for the versions of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// The program that wrote it, with its version.
    pub(super) program: String,
    pub(super) pipeline: String,
    pub(super) curriculum: String,
    pub(super) trial: String,
    pub(super) epoch: i64,
    pub(super) format: Format,
    /// The approximate size of a file in bytes; `None` if each image is a file.
    pub(super) shard_bytes: Option<u64>,
    /// Versions of the tables that the rows and images are from.
    pub(super) tables: BTreeMap<String, u64>,
    /// A digest of everything that decides the bytes of the files: the rows in order, the ids of their images, the
    /// classes, and the fields above except `program` and `tables`.
    pub(super) content: String,
    /// Rows of the epoch.
    pub(super) rows: usize,
    /// In the order of the rows.
    pub(super) files: Vec<WholeFile>,
}

/// What is there of an epoch that the export writes.
pub(super) enum Found {
    /// Its files are there, and their sizes are those of its seal.
    Complete,
    /// Its first files, of which there may be none. They are whole and hold the first rows.
    Incomplete(Vec<WholeFile>),
}

impl Seal {
    /// Returns the name of the seal of an epoch whose files begin with `stem`.
    pub(super) fn name(stem: &str) -> String {
        format!("{SEALED}{}.json", stem.trim_end_matches('-'))
    }

    /// Returns the name of the list of an epoch that is not complete.
    pub(super) fn name_of_list(stem: &str) -> String {
        format!("{UNSEALED}{}.json", stem.trim_end_matches('-'))
    }

    /// Returns in what another export of the same epoch, which is there, differs from this one: the end of a sentence.
    pub(super) fn difference(&self, there: &Self) -> Option<String> {
        let size = |seal: &Self| seal.shard_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        let fields = [
            ("pipeline", &there.pipeline, &self.pipeline),
            ("format", &there.format.to_string(), &self.format.to_string()),
            ("curriculum", &there.curriculum, &self.curriculum),
            ("trial", &there.trial, &self.trial),
            ("shard size", &size(there), &size(self)),
        ];
        if let Some((field, theirs, ours)) = fields.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            return Some(format!("has the {field} `{theirs}`, not `{ours}`"));
        }
        let version = |seal: &Self| seal.tables.get("manifest").map_or("?".to_owned(), |version| version.to_string());
        (self.content != there.content).then(|| {
            format!(
                "has other rows, images or classes than the lake now: it is of version {} of the manifest, which now has \
                 version {}",
                version(there),
                version(self)
            )
        })
    }

    /// Returns what is there of the epoch, if `there` is its seal or its list. `listed` are the files of the destination
    /// by name. Files of a list are compared by digest, since the export that wrote them has not ended.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(super) async fn found(there: Self, is_sealed: bool, listed: &HashMap<String, StoredObject>) -> Result<Found> {
        let has_size = |file: &WholeFile| listed.get(&file.name).is_some_and(|found| found.size() == file.bytes);
        if is_sealed && there.files.iter().all(has_size) {
            return Ok(Found::Complete);
        }
        // Files without rows end an epoch, and are written with its end.
        let files: Vec<WholeFile> = there.files.into_iter().filter(|file| file.rows > 0).collect();
        let is_whole = |file: WholeFile| async move {
            let whole = match listed.get(&file.name) {
                Some(found) => file.is(found).await?,
                None => false,
            };
            Ok::<_, Error>(whole.then_some(file))
        };
        // Only files before the first that is not whole can be continued.
        let mut compared = stream::iter(files).map(is_whole).buffered(FILES_IN_FLIGHT);
        let mut whole = Vec::new();
        while let Some(Some(file)) = compared.try_next().await? {
            whole.push(file);
        }
        Ok(Found::Incomplete(whole))
    }

    /// Reads the seal or list `name`.
    ///
    /// # Errors
    /// Returns an error if it cannot be read, or is none.
    pub(super) async fn load(location: &Location, name: &str, epoch: i64) -> Result<Self> {
        let bytes = location.get(name).await?.unwrap_or_default();
        let not_a_seal = |source| ExportError::NotASeal { file: location.url_of(name), epoch, source };
        Ok(serde_json::from_slice(&bytes).map_err(not_a_seal)?)
    }

    async fn save(&self, location: &Location, name: &str) -> Result<()> {
        let unwritable = |source| ExportError::Seal { epoch: self.epoch, source };
        let text = serde_json::to_string(self).map_err(unwritable)? + "\n";
        Ok(location.put(name, text.into()).await?)
    }
}

/// The list of an epoch that is being written.
pub(super) struct List<'a> {
    location: &'a Location,
    stem: &'a str,
    seal: Seal,
    /// How many of the files were saved.
    saved: usize,
}

impl<'a> List<'a> {
    /// Saves the list before any other file of the epoch is written, and removes an earlier seal, of which files are
    /// missing.
    pub(super) async fn start(location: &'a Location, stem: &'a str, seal: Seal) -> Result<Self> {
        let mut list = Self { location, stem, seal, saved: 0 };
        list.save().await?;
        if location.exists(&Seal::name(stem)).await? {
            location.remove(&Seal::name(stem)).await?;
        }
        Ok(list)
    }

    /// Adds files that are whole.
    pub(super) async fn add(&mut self, files: Vec<WholeFile>) -> Result<()> {
        self.seal.files.extend(files);
        if self.seal.files.len() - self.saved > self.saved / SAVED_SHARE { self.save().await } else { Ok(()) }
    }

    pub(super) async fn save(&mut self) -> Result<()> {
        self.saved = self.seal.files.len();
        self.seal.save(self.location, &Seal::name_of_list(self.stem)).await
    }

    /// Seals the epoch, whose last files are `rest`.
    pub(super) async fn seal(mut self, rest: Vec<WholeFile>) -> Result<()> {
        self.seal.files.extend(rest);
        self.seal.save(self.location, &Seal::name(self.stem)).await?;
        // The epoch is complete. A list that stays, as where nothing may be removed, is not looked at.
        let _ = self.location.remove(&Seal::name_of_list(self.stem)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_a_file() {
        assert_eq!(ranges(0).count(), 0);
        assert_eq!((ranges(READ_BYTES).count(), ranges(READ_BYTES).next()), (1, Some(0..READ_BYTES)));
        assert_eq!(ranges(READ_BYTES + 1).last(), Some(READ_BYTES..READ_BYTES + 1));
    }
}
