//! An object of a store as a file that is read and sought in: through a window that is fetched when it is left.

use std::io::{Error, Read, Result, Seek, SeekFrom};

use bytes::Bytes;
use object_store::{GetOptions, GetRange};
use tokio::runtime::Handle;

use super::object::Version;
use crate::storage::Location;

/// Bytes that are fetched at once from a directory, where seeking costs nothing.
const NEAR: u64 = 64 << 10;
/// The same from a cloud, where a request costs as much time as a megabyte of data.
const FAR: u64 = 1 << 20;
/// Most bytes that are read without a seek. An index reads a few; an archive that claims a name of gigabytes ends here.
const MAX_SEQUENTIAL_READ: u64 = 64 << 20;

/// Reads wait for the store, so a window belongs on a thread that may block.
#[derive(Debug)]
pub(super) struct RangeReader {
    location: Location,
    name: String,
    version: Version,
    handle: Handle,
    at: u64,
    start: u64,
    bytes: Bytes,
    read: u64,
}

impl RangeReader {
    /// The object `name` as it was listed. To be made on a thread of the runtime.
    pub(super) fn new(location: &Location, name: &str, version: &Version) -> Self {
        Self {
            location: location.clone(),
            name: name.to_owned(),
            version: version.clone(),
            handle: Handle::current(),
            at: 0,
            start: 0,
            bytes: Bytes::new(),
            read: 0,
        }
    }

    fn fetch(&mut self) -> Result<()> {
        let window = if self.location.url.scheme() == "file" { NEAR } else { FAR };
        let range = self.at..self.version.size.min(self.at + window);
        let wanted = range.end - range.start;
        let options =
            GetOptions { range: Some(GetRange::Bounded(range)), if_match: self.version.tag(), ..GetOptions::default() };
        let (store, path) = (&self.location.store, self.location.path(&self.name));
        let bytes = self.handle.block_on(async { store.get_opts(&path, options).await?.bytes().await });
        let bytes = bytes.map_err(Error::other)?;
        if bytes.len() as u64 != wanted {
            return Err(Error::other(format!("{} bytes came, {wanted} were asked for", bytes.len())));
        }
        (self.start, self.bytes) = (self.at, bytes);
        Ok(())
    }

    /// What of the window is from here on.
    fn rest(&self) -> &[u8] {
        let offset = self.at.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.bytes.get(offset..)).unwrap_or_default()
    }
}

impl Read for RangeReader {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.at >= self.version.size || into.is_empty() {
            return Ok(0);
        }
        if self.read > MAX_SEQUENTIAL_READ {
            return Err(Error::other("it describes its members at impossible length"));
        }
        if self.rest().is_empty() {
            self.fetch()?;
        }
        let count = self.rest().len().min(into.len());
        into[..count].copy_from_slice(&self.rest()[..count]);
        self.at += count as u64;
        self.read += count as u64;
        Ok(count)
    }
}

impl Seek for RangeReader {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.version.size.checked_add_signed(by),
        };
        let at = at.ok_or_else(|| Error::other("a seek before its beginning, or beyond all ends"))?;
        if at != self.at {
            self.read = 0;
        }
        self.at = at;
        Ok(at)
    }
}
