//! The sizes of a few images, to tell before a run what becomes of them.

use arrow::array::Array;

use super::Source;
use crate::{
    config::Split,
    error::Result,
    imaging::{self, Limits},
    schema::{self, columns::Columns},
};

/// Files that are read at once.
const CHUNK: usize = 16;

/// A training image and its sides in pixels, upright.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sized {
    pub(crate) path: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Source {
    /// Returns the sizes of at most `count` training images, which are drawn by a digest of their paths. Files are read
    /// but not decoded. What is not an image is left out: it becomes a reject when it is read. So are files that
    /// take long to read.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or has changed since it was listed.
    pub(crate) async fn sample_sizes(&self, count: usize) -> Result<Vec<Sized>> {
        let listing = Columns::new(schema::LISTING, &self.listing);
        let (ids, paths, splits) = (listing.strings("source_id")?, listing.strings("path")?, listing.strings("split")?);
        let in_training = (0..ids.len())
            .filter(|&row| splits.value(row) == Split::Train.as_str() && !self.is_large(paths.value(row)));
        let mut drawn: Vec<(&str, &str)> = in_training.map(|row| (ids.value(row), paths.value(row))).collect();
        drawn.sort_unstable();
        drawn.truncate(count);
        let mut sizes = Vec::new();
        for chunk in drawn.chunks(CHUNK) {
            let paths: Vec<Option<&str>> = chunk.iter().map(|(_, path)| Some(*path)).collect();
            for ((_, path), file) in chunk.iter().zip(self.read_files(&paths).await?) {
                let size = file.ok().flatten().and_then(|bytes| imaging::size(&bytes, &Limits::default()).ok());
                sizes.extend(size.map(|(width, height)| Sized { path: (*path).to_owned(), width, height }));
            }
        }
        Ok(sizes)
    }
}
