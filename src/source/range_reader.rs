//! Presents a stored object as a file with `Read` and `Seek`, by fetching a range whenever the previous one is left.

use std::io::{Error, Read, Result, Seek, SeekFrom};

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::storage::StoredObject;

/// Bytes of a range from a local file, where a seek costs nothing.
const LOCAL_RANGE_BYTES: u64 = 64 << 10;
/// Bytes of a range from a cloud, where a request takes as long as a megabyte of data.
const REMOTE_RANGE_BYTES: u64 = 1 << 20;
/// Bytes that are read without a seek. Indexing an archive reads a few; one that claims to have a member name of
/// gigabytes ends here.
const MAX_SEQUENTIAL_READ: u64 = 64 << 20;

/// Reads block until the store responds, so a reader belongs on a thread that may block.
#[derive(Debug)]
pub(super) struct RangeReader {
    object: StoredObject,
    handle: Handle,
    position: u64,
    /// Where `bytes` start in the object.
    start: u64,
    bytes: Bytes,
    /// Bytes that were read since the last seek.
    sequential: u64,
}

impl RangeReader {
    /// Creates a reader of `object`. The calling thread has to belong to the runtime.
    pub(super) fn new(object: StoredObject) -> Self {
        Self { object, handle: Handle::current(), position: 0, start: 0, bytes: Bytes::new(), sequential: 0 }
    }

    fn fetch(&mut self) -> Result<()> {
        let length = if self.object.is_local() { LOCAL_RANGE_BYTES } else { REMOTE_RANGE_BYTES };
        let range = self.position..self.object.size().min(self.position + length);
        self.bytes = self.handle.block_on(self.object.read_range(range)).map_err(Error::other)?;
        self.start = self.position;
        Ok(())
    }

    /// Returns the fetched bytes from the current position on.
    fn fetched(&self) -> &[u8] {
        let offset = self.position.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.bytes.get(offset..)).unwrap_or_default()
    }
}

impl Read for RangeReader {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.position >= self.object.size() || into.is_empty() {
            return Ok(0);
        }
        if self.sequential > MAX_SEQUENTIAL_READ {
            return Err(Error::other("the descriptions of its members are impossibly long"));
        }
        if self.fetched().is_empty() {
            self.fetch()?;
        }
        let count = self.fetched().len().min(into.len());
        into[..count].copy_from_slice(&self.fetched()[..count]);
        self.position += count as u64;
        self.sequential += count as u64;
        Ok(count)
    }
}

impl Seek for RangeReader {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.object.size().checked_add_signed(by),
        };
        let position = position.ok_or_else(|| Error::other("a seek to before the start or beyond 64 bits"))?;
        if position != self.position {
            self.sequential = 0;
        }
        self.position = position;
        Ok(position)
    }
}
