//! The pictures of an export, fetched by their ids, chunk by chunk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::TryStreamExt;

use super::{
    Sample,
    rows::{Columns, Row},
};
use crate::{
    error::{Error, Result},
    identity,
    pipeline::Pipeline,
    schema,
    session::{self, Snapshot},
};

const QUERY: &str = "export/images.sql";
/// Rows of a chunk: what is asked for in one query, in which each id is looked for in the statistics of each file.
const CHUNK_ROWS: usize = 256;
/// Bytes of the pictures of a chunk; one alone may have more.
const CHUNK_BYTES: usize = 64 << 20;
/// Rows of the first chunk, before it is known how large pictures are.
const FIRST_ROWS: usize = 32;
/// Pictures that a partition of the query holds at once.
const BATCH_ROWS: usize = 8;
/// Pictures that are asked of the source at once, where the lake only refers to them.
const ASKED_OF_SOURCE: usize = 16;

/// Fetches pictures.
pub(super) struct Pictures<'a> {
    pipeline: &'a Pipeline,
    snapshot: &'a Snapshot,
    /// Rows of the next chunk.
    size: usize,
}

/// Pictures by id, and how many bytes they have.
#[derive(Default)]
struct Found {
    pictures: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl Found {
    fn put(&mut self, id: &str, picture: Bytes) {
        self.bytes += picture.len();
        self.pictures.insert(id.to_owned(), picture);
    }
}

impl<'a> Pictures<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, snapshot: &'a Snapshot) -> Self {
        Self { pipeline, snapshot, size: FIRST_ROWS }
    }

    /// The next rows of `rows`, with their pictures; they are taken away from `rows`. A chunk whose pictures turn out
    /// to be larger than they may be is given up, and asked for again by halves.
    ///
    /// # Errors
    /// Where the lake or the source cannot be read, and where a picture is not there, or another than was read before.
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
                let picture = found.pictures.get(&row.picture_id).cloned();
                Sample::new(row, picture.ok_or_else(|| Error::Data(format!("the picture of {row} is gone")))?)
            };
            return chunk.iter().map(sample).collect();
        }
    }

    /// The pictures of `rows`; none where they have too many bytes.
    async fn fetch(&self, rows: &[Row]) -> Result<Option<Found>> {
        let mut found = Found::default();
        let mut referenced = BTreeSet::new();
        let mut batches = self.query(rows).await?;
        while let Some(batch) = batches.try_next().await.map_err(|error| Error::query(QUERY, error))? {
            take(&batch, &mut found, &mut referenced)?;
            if found.bytes > CHUNK_BYTES && rows.len() > 1 {
                return Ok(None);
            }
        }
        // a picture may stand in several rows, and is read once
        let referenced: Vec<&Row> = rows.iter().filter(|row| referenced.remove(&row.picture_id)).collect();
        for asked in referenced.chunks(ASKED_OF_SOURCE) {
            self.read(asked, &mut found).await?;
            if found.bytes > CHUNK_BYTES && rows.len() > 1 {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    async fn query(&self, rows: &[Row]) -> Result<datafusion::execution::SendableRecordBatchStream> {
        let mut snapshot = self.snapshot.clone();
        let real = |real: bool| rows.iter().filter(move |row| row.path.is_some() == real);
        for (table, id, real_images) in [("pixels", "pixel_id", true), ("spectrum", "sample_id", false)] {
            // files are told apart by the source, rows by the id
            snapshot.restrict(table, &real(real_images).map(|row| row.source_id.as_str()).collect())?;
            snapshot.narrow(table, id, &real(real_images).map(|row| row.picture_id.as_str()).collect())?;
        }
        let context = self.pipeline.session.context_with(&snapshot, &Arc::default(), BATCH_ROWS)?;
        let statement = self.pipeline.catalogue.get(QUERY)?.bind(&self.pipeline.plan.parameters)?;
        let rows = session::query(&context, QUERY, &statement).await?;
        rows.execute_stream().await.map_err(|error| Error::query(QUERY, error))
    }

    /// Reads pictures of the source, which the lake only refers to.
    async fn read(&self, rows: &[&Row], found: &mut Found) -> Result<()> {
        let paths: Vec<Option<&str>> = rows.iter().map(|row| row.path.as_deref()).collect();
        let pictures = self.pipeline.session.functions().source.read(&paths).await?;
        for (row, picture) in rows.iter().zip(pictures) {
            let wrong = |what: &str| {
                Error::Data(format!("the picture of {row}, `{}`: {what}", row.path.as_deref().unwrap_or_default()))
            };
            let picture = picture.map_err(|reason| wrong(&reason))?.ok_or_else(|| wrong("it is not there"))?;
            if row.digest.as_ref().is_some_and(|digest| *digest != identity::content_digest(&picture)) {
                return Err(wrong(
                    "the source has another picture there than was read; `discl-pipe run` reads it again",
                ));
            }
            found.put(&row.picture_id, picture.into());
        }
        Ok(())
    }
}

/// Takes the pictures of a batch, and the ids of those whose bytes the lake has not.
fn take(batch: &RecordBatch, found: &mut Found, referenced: &mut BTreeSet<String>) -> Result<()> {
    let ids = Columns(QUERY, batch).texts("picture_id")?;
    let pictures = batch.column_by_name("image").and_then(schema::picture_bytes);
    let pictures = pictures
        .ok_or_else(|| Error::Query { query: QUERY.into(), message: "it has no column `image` of pictures".into() })?;
    for (id, picture) in ids.iter().zip(&pictures) {
        match (id, picture) {
            (Some(id), Some(picture)) => found.put(id, Bytes::copy_from_slice(picture)),
            (Some(id), None) => {
                referenced.insert(id.to_owned());
            }
            (None, _) => {}
        }
    }
    Ok(())
}
