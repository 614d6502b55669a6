//! Tar shards for WebDataset: `NAME-epochNNNN-SSSSSS.tar`, with three members for each row of the manifest, in its
//! order: the image, its label as `.cls`, and the row as `.json`. Headers do not depend on the time or the machine.

use super::{Sample, error::ExportError};
use crate::{
    error::Result,
    storage::{Location, Upload},
};

/// Bytes of a tar's header, and the multiple that every member is padded to.
const BLOCK: usize = 512;
const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The shards of an epoch.
pub(super) struct Shards {
    location: Location,
    stem: String,
    bound: u64,
    /// The shard that is being written, and its bytes so far.
    open: Option<(Upload, u64)>,
    begun: usize,
}

impl Shards {
    pub(super) fn new(location: Location, stem: String, bound: u64) -> Self {
        Self { location, stem, bound, open: None, begun: 0 }
    }

    pub(super) async fn add(&mut self, samples: &[Sample<'_>]) -> Result<()> {
        for sample in samples {
            let bytes = members(sample)?;
            self.room(bytes.len() as u64).await?;
            if let Some((shard, used)) = &mut self.open {
                shard.write(&bytes).await?;
                *used += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Begins another shard if the open one has no room for `more` bytes.
    async fn room(&mut self, more: u64) -> Result<()> {
        let end = ZEROS.len() as u64;
        if self.open.as_ref().is_some_and(|(_, used)| used + more + end > self.bound) {
            self.close().await?;
        }
        if self.open.is_none() {
            let name = format!("{}{:06}.tar", self.stem, self.begun);
            self.open = Some((self.location.upload(&name).await?, 0));
            self.begun += 1;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        if let Some((mut shard, _)) = self.open.take() {
            shard.write(&ZEROS).await?;
            shard.finish().await?;
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<usize> {
        self.close().await?;
        Ok(self.begun)
    }

    pub(super) async fn abort(self) -> Result<()> {
        match self.open {
            Some((shard, _)) => Ok(shard.abort().await?),
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
