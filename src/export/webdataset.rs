//! Tar shards for WebDataset: `NAME-epochNNNN-SSSSSS.tar`, with three members for each row of the manifest, in its
//! order: the image, its label as `.cls`, and the row as `.json`. Headers do not depend on the time or the machine.

use super::{
    Sample,
    error::ExportError,
    seal::{OpenFile, WholeFile},
};
use crate::{error::Result, storage::Location};

/// Bytes of a tar's header, and the multiple that every member is padded to.
const BLOCK: usize = 512;
const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The shards of an epoch.
pub(super) struct Shards {
    location: Location,
    stem: String,
    bound: u64,
    /// The shard that is being written.
    open: Option<OpenFile>,
    begun: usize,
}

impl Shards {
    /// Begins after the first `begun` shards.
    pub(super) fn new(location: Location, stem: String, bound: u64, begun: usize) -> Self {
        Self { location, stem, bound, open: None, begun }
    }

    pub(super) async fn add(&mut self, samples: &[Sample<'_>]) -> Result<Vec<WholeFile>> {
        let mut whole = Vec::new();
        for sample in samples {
            let bytes = members(sample)?;
            whole.extend(self.room(bytes.len() as u64).await?);
            if let Some(shard) = &mut self.open {
                shard.write(&bytes, 1).await?;
            }
        }
        Ok(whole)
    }

    /// Begins another shard if the open one has no room for `more` bytes, and returns the one that is whole then.
    async fn room(&mut self, more: u64) -> Result<Option<WholeFile>> {
        let end = ZEROS.len() as u64;
        let is_full = self.open.as_ref().is_some_and(|shard| shard.bytes + more + end > self.bound);
        let whole = if is_full { self.close().await? } else { None };
        if self.open.is_none() {
            let name = format!("{}{:06}.tar", self.stem, self.begun);
            self.open = Some(OpenFile::create(&self.location, name).await?);
            self.begun += 1;
        }
        Ok(whole)
    }

    async fn close(&mut self) -> Result<Option<WholeFile>> {
        let Some(mut shard) = self.open.take() else { return Ok(None) };
        shard.write(&ZEROS, 0).await?;
        shard.finish().await.map(Some)
    }

    pub(super) async fn finish(mut self) -> Result<Vec<WholeFile>> {
        Ok(self.close().await?.into_iter().collect())
    }

    pub(super) async fn abort(self) -> Result<()> {
        match self.open {
            Some(shard) => shard.abort().await,
            None => Ok(()),
        }
    }
}

/// Returns the members of a sample, with headers and padding. Members with the same name up to the first dot are one
/// sample to a reader.
fn members(sample: &Sample<'_>) -> Result<Vec<u8>> {
    let row = sample.row;
    let key = format!("{:04}-{:08}", row.epoch, row.position);
    let label = row.label.to_string();
    let json = serde_json::to_vec(row).map_err(|source| ExportError::Json { row: row.name(), source })?;
    let contents = [(sample.extension, &sample.image[..]), ("cls", label.as_bytes()), ("json", &json)];
    let mut bytes = Vec::with_capacity(sample.image.len() + json.len() + 8 * BLOCK);
    for (extension, content) in contents {
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{key}.{extension}")).map_err(|source| ExportError::Tar { row: row.name(), source })?;
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    Ok(bytes)
}
