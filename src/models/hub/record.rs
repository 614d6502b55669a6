//! Records the files of a repository at a commit before they are fetched. A commit never changes, so its record serves
//! without a network, and shows whether a snapshot is complete.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{HubError, settings::model_cache};
use crate::{identity::Digest, limited_read, models::model_dir::FileError};

/// The files of a repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The commit, 40 hexadecimal digits.
    pub(super) commit: String,
    /// All files of the repository whose paths can be those of files.
    pub(super) files: Vec<HubFile>,
}

/// A file of a repository, with what the hub states about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HubFile {
    /// The path in the repository.
    pub(super) path: String,
    pub(super) size: Option<u64>,
    /// The name of its contents in the cache: Git's digest of a small file, the SHA-256 of a large one.
    pub(super) blob: Option<String>,
}

/// The hub's response about a repository at a revision.
#[derive(Deserialize)]
pub(super) struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

impl From<Listing> for Record {
    fn from(listing: Listing) -> Self {
        let file = |Sibling { rfilename, size, blob, lfs }: Sibling| {
            let (size, blob) = match lfs {
                Some(LargeFile { sha256, size }) => (Some(size), Some(sha256)),
                None => (size, blob),
            };
            // The digest becomes a file name.
            HubFile { path: rfilename, size, blob: blob.filter(|blob| is_hex(blob, 40) || is_hex(blob, 64)) }
        };
        let plain = listing.siblings.into_iter().filter(|file| is_plain(&file.rfilename));
        Self { commit: listing.sha, files: plain.map(file).collect() }
    }
}

impl HubFile {
    /// Returns the SHA-256 of its contents in hex, if the hub states it.
    pub(super) fn sha256(&self) -> Option<&str> {
        self.blob.as_deref().filter(|blob| is_hex(blob, 64))
    }
}

impl Record {
    /// Loads the record of a repository of the hub at `endpoint`, at a commit, if there is one.
    pub(super) fn load(endpoint: &str, repository: &str, commit: &str) -> Option<Self> {
        let bytes = limited_read::read(&file(endpoint, repository, commit).ok()?, limited_read::TABLE).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|record: &Self| record.commit == commit)
    }

    /// Saves the record, by a single rename.
    ///
    /// # Errors
    /// Returns an error if the cache cannot be written.
    pub(super) fn save(&self, endpoint: &str, repository: &str) -> Result<(), HubError> {
        if Self::load(endpoint, repository, &self.commit).is_some_and(|known| known == *self) {
            return Ok(());
        }
        let path = file(endpoint, repository, &self.commit)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(FileError::io("create", directory))?;
        let partial = path.with_extension(format!("{}.part", std::process::id()));
        fs::write(&partial, serde_json::to_vec(self).unwrap_or_default()).map_err(FileError::io("write", &partial))?;
        Ok(fs::rename(&partial, &path).map_err(FileError::io("write", &path))?)
    }
}

/// Whether a revision is a commit and therefore never moves.
pub(super) fn is_commit(revision: &str) -> bool {
    is_hex(revision, 40)
}

/// Whether a path stays in the folder that it is relative to, and on one line of a message.
fn is_plain(path: &str) -> bool {
    path.split('/').all(|part| !["", ".", ".."].contains(&part)) && !path.contains(char::is_control)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn file(endpoint: &str, repository: &str, commit: &str) -> Result<PathBuf, HubError> {
    let folder = Digest::new("repository").text(endpoint).text(repository).id();
    Ok(model_cache()?.join("hub").join(folder).join(format!("{commit}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_elsewhere_or_controls_a_terminal_is_no_file() {
        let siblings = ["a/b.json", "a/../../b.json", "/b.json", "a//b.json", "a/./b", "a\u{1b}[2Jb.json", "a\nb.json"]
            .map(|path| serde_json::json!({ "rfilename": path, "size": 1 }));
        let listing = serde_json::json!({ "sha": "c", "siblings": siblings }).to_string();
        let record: Record = serde_json::from_str::<Listing>(&listing).unwrap().into();
        assert_eq!(record.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a/b.json"]);
    }

    #[test]
    fn a_listing_names_contents_as_the_cache_does() {
        let (git, sha) = ("a".repeat(40), "b".repeat(64));
        let listing = format!(
            r#"{{"sha": "c", "siblings": [
                {{"rfilename": "a.json", "size": 3, "blobId": "{git}"}},
                {{"rfilename": "m.onnx", "size": 130, "blobId": "{git}", 
                  "lfs": {{"sha256": "{sha}", "size": 5, "pointerSize": 130}}}},
                {{"rfilename": "x", "blobId": "../../x"}}]}}"#
        );
        let record: Record = serde_json::from_str::<Listing>(&listing).unwrap().into();
        let [small, large, odd] = record.files.as_slice() else { panic!("{record:?}") };
        assert_eq!((small.size, small.blob.as_deref(), small.sha256()), (Some(3), Some(git.as_str()), None));
        assert_eq!((large.size, large.sha256()), (Some(5), Some(sha.as_str())));
        assert_eq!((odd.size, &odd.blob), (None, &None));
    }
}
