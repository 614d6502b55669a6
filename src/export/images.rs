//! The images of an export, fetched by their ids, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use super::{Sample, error::ExportError, rows::Row};
use crate::{
    error::{Error, Result},
    pipeline::Project,
    plan,
    schema::{self, columns::Columns},
    session::Snapshot,
    source::Source,
};

const QUERY: &str = "export/images.sql";
/// The most rows of a chunk, which one query fetches. The query looks for each id in the statistics of each file.
const CHUNK_ROWS: usize = 256;
/// The most bytes of the images of a chunk. A single image may have more.
const CHUNK_BYTES: usize = 64 << 20;
/// Rows of the first chunk, before the size of images is known.
const FIRST_ROWS: usize = 32;
/// Images that a partition of the query holds at once.
const BATCH_ROWS: usize = 8;
/// Images read from the source at once, if the lake only refers to them.
const SOURCE_CHUNK: usize = 16;

/// Fetches images.
pub(super) struct Images<'a> {
    project: &'a Project,
    snapshot: &'a Snapshot,
    /// Opened when the lake only refers to an image, with the `pixel_id`s of its images as they are now.
    source: OnceCell<(Source, HashSet<String>)>,
    /// Rows of the next chunk.
    size: usize,
}

/// Images by id, and their total size.
#[derive(Default)]
struct Found {
    images: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl Found {
    fn put(&mut self, id: &str, image: Bytes) {
        self.bytes += image.len();
        self.images.insert(id.to_owned(), image);
    }
}

impl<'a> Images<'a> {
    /// Opens the source only if the lake refers to images instead of holding them.
    ///
    /// # Errors
    /// Returns an error if the source cannot be opened.
    pub(super) async fn open(project: &'a Project, snapshot: &'a Snapshot) -> Result<Self> {
        let images = Self { project, snapshot, source: OnceCell::new(), size: FIRST_ROWS };
        let reads = project.catalogue.get(&project.config.source.sql)?;
        if !reads.functions.contains("read_image") {
            images.source().await?;
        }
        Ok(images)
    }

    async fn source(&self) -> Result<&(Source, HashSet<String>)> {
        let Project { config, catalogue, .. } = self.project;
        let open = || async {
            let source = Source::open(&config.source, &plan::reader(config, catalogue)?).await?;
            let ids = Columns::new(schema::LISTING, source.listing()).strings("pixel_id")?;
            let ids = ids.iter().flatten().map(str::to_owned).collect();
            Ok((source, ids))
        };
        self.source.get_or_try_init(open).await
    }

    /// Removes the next rows from `rows` and returns them with their images. A chunk whose images turn out to be too
    /// large is given up, and its halves are fetched.
    ///
    /// # Errors
    /// Returns an error if the lake or the source cannot be read, or if an image is missing or has changed.
    pub(super) async fn next<'r>(&mut self, rows: &mut &'r [Row]) -> Result<Vec<Sample<'r>>> {
        loop {
            let (chunk, rest) = rows.split_at(self.size.min(rows.len()));
            let Some(found) = self.fetch(chunk).await? else {
                self.size = (chunk.len() / 2).max(1);
                continue;
            };
            if found.bytes < CHUNK_BYTES / 2 {
                self.size = (2 * self.size).min(CHUNK_ROWS);
            }
            *rows = rest;
            let sample = |row: &'r Row| {
                let image = found.images.get(&row.image_id).cloned();
                Sample::new(row, image.ok_or_else(|| ExportError::ImageDisappeared { row: row.name() })?)
            };
            return chunk.iter().map(sample).collect();
        }
    }

    /// Fetches the images of `rows`; `None` if they have too many bytes.
    async fn fetch(&self, rows: &[Row]) -> Result<Option<Found>> {
        let mut found = Found::default();
        let mut referenced = BTreeSet::new();
        let mut batches = self.query(rows).await?;
        while let Some(batch) = batches.try_next().await.map_err(|error| Error::query(QUERY, error))? {
            collect(&batch, &mut found, &mut referenced)?;
            if found.bytes > CHUNK_BYTES && rows.len() > 1 {
                return Ok(None);
            }
        }
        // An image that is in several rows is read once.
        let referenced: Vec<&Row> = rows.iter().filter(|row| referenced.remove(&row.image_id)).collect();
        for rows_to_read in referenced.chunks(SOURCE_CHUNK) {
            self.read(rows_to_read, &mut found).await?;
            if found.bytes > CHUNK_BYTES && rows.len() > 1 {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    async fn query(&self, rows: &[Row]) -> Result<datafusion::execution::SendableRecordBatchStream> {
        let mut snapshot = self.snapshot.clone();
        let real = |real: bool| rows.iter().filter(move |row| row.path.is_some() == real);
        for (table, id, real_images) in [(schema::PIXELS, "pixel_id", true), (schema::SPECTRUM, "sample_id", false)] {
            // The source narrows the files, the id the rows.
            snapshot.restrict(table, &real(real_images).map(|row| row.source_id.as_str()).collect())?;
            snapshot.narrow(table, id, &real(real_images).map(|row| row.image_id.as_str()).collect())?;
        }
        let context = self.project.session.image_context(&snapshot, BATCH_ROWS)?;
        let rows = self.project.plan_query(&context, QUERY, &[]).await?;
        rows.execute_stream().await.map_err(|error| Error::query(QUERY, error))
    }

    /// Reads the images of `rows`, which the lake only refers to, from the source.
    async fn read(&self, rows: &[&Row], found: &mut Found) -> Result<()> {
        let paths: Vec<Option<&str>> = rows.iter().map(|row| row.path.as_deref()).collect();
        let (source, ids) = self.source().await?;
        let images = source.read(&paths).await?;
        for (row, image) in rows.iter().zip(images) {
            let wrong = |problem: &str| ExportError::SourceImage {
                row: row.name(),
                path: row.path.clone().unwrap_or_default(),
                problem: problem.to_owned(),
            };
            // The id says which version of the file was read.
            if !ids.contains(&row.image_id) {
                return Err(wrong("has changed since it was read; `discl-pipe run` reads it again").into());
            }
            let image = image
                .map_err(|reason| wrong(&format!("cannot be read: {reason}")))?
                .ok_or_else(|| wrong("does not exist"))?;
            found.put(&row.image_id, image.into());
        }
        Ok(())
    }
}

/// Collects the images of a batch, and the ids of those whose bytes are not in the lake.
fn collect(batch: &RecordBatch, found: &mut Found, referenced: &mut BTreeSet<String>) -> Result<()> {
    let columns = Columns::new(QUERY, batch);
    let (ids, images) = (columns.strings("image_id")?, columns.images("image")?);
    for (id, image) in ids.iter().zip(&images) {
        match (id, image) {
            (Some(id), Some(image)) => found.put(id, Bytes::copy_from_slice(image)),
            (Some(id), None) => {
                referenced.insert(id.to_owned());
            }
            (None, _) => {}
        }
    }
    Ok(())
}
