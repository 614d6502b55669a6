//! Exports manifests to trainers: the rows of each epoch in their order, with their images as encoded bytes, exactly as
//! they are in the lake. One format for each kind of reader: tar shards for WebDataset, class folders, Parquet.
//!
//! Rows are written in chunks that are bounded in rows and in bytes. In memory at once are the rows of one epoch without
//! images, some 500 bytes each, the images of one chunk, and what is being uploaded.

mod error;
mod imagefolder;
mod images;
mod parquet_files;
mod rows;
mod webdataset;

use std::{collections::BTreeMap, str::FromStr};

use bytes::Bytes;

use self::{
    error::ExportError,
    imagefolder::Folder,
    images::Images,
    parquet_files::Parts,
    rows::{Epoch, Row, Selection},
    webdataset::Shards,
};
use crate::{
    error::{Error, Result},
    imaging,
    pipeline::{Project, staleness},
    run::{Progress, Stop},
    schema,
    storage::Location,
};

/// The name of the step in progress reports.
const STEP: &str = "export";

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tar shards of samples: image, `.cls` and `.json`.
    WebDataset,
    /// A folder for each label, and `metadata.jsonl` in training order.
    ImageFolder,
    /// Parquet files in training order, with Hugging Face's features.
    Parquet,
}

/// Epochs from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epochs {
    first: i64,
    last: i64,
}

impl Default for Epochs {
    /// All epochs.
    fn default() -> Self {
        Self { first: 0, last: i64::MAX }
    }
}

impl FromStr for Epochs {
    type Err = String;

    /// `3`, or `3..5` for 3, 4 and 5.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map(i64::from).ok();
        let found = match text.split_once("..") {
            Some((first, last)) => number(first).zip(number(last)),
            None => number(text).map(|epoch| (epoch, epoch)),
        };
        match found {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            _ => Err("an epoch is expected, such as `3`, or the first and the last of several, such as `3..5`".into()),
        }
    }
}

/// The size of a shard in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardSize(u64);

impl FromStr for ShardSize {
    type Err = String;

    /// A number of bytes, or of `KB`, `MB` and `GB`, which are powers of 1000.
    fn from_str(text: &str) -> Result<Self, String> {
        let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => Some(1),
            "KB" => Some(1000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        match bytes {
            Some(bytes) if (MIN_SHARD_BYTES..=MAX_SHARD_BYTES).contains(&bytes) => Ok(Self(bytes)),
            _ => Err("a size from 10KB to 50GB is expected, such as `500MB` or `1GB`".into()),
        }
    }
}

const MIN_SHARD_BYTES: u64 = 10_000;
/// An upload has at most 80 GB, and a shard may exceed its size by one sample.
const MAX_SHARD_BYTES: u64 = 50_000_000_000;

/// What is exported, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub format: Format,
    pub epochs: Epochs,
    /// The curriculum, if the manifest has several.
    pub curriculum: Option<String>,
    /// The trial, if the manifest has several.
    pub trial: Option<String>,
    /// The approximate size of a tar shard or a Parquet file; a sample is never split.
    pub shard_size: ShardSize,
    /// Stops the export after the current chunk.
    pub stop: Stop,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Summary {
    pub destination: String,
    /// Epochs that were written.
    pub epochs: Vec<i64>,
    pub rows: usize,
    /// Files, of every kind.
    pub files: usize,
    /// Bytes of the images.
    pub image_bytes: u64,
    /// Why a run would replace the manifest; `None` if the manifest is up to date.
    pub stale: Option<String>,
}

/// Writes epochs of the manifest to `destination`, a directory or URL. An epoch is written once: its files must not exist.
/// Equal tables give byte-identical files.
///
/// # Errors
/// Returns every problem with the rows and the destination before anything is written: rows without exactly one image, no
/// such epoch, several curricula or trials, files that exist. Later, an error if an image or the destination fails;
/// [`Error::ExportInterrupted`] if it was stopped: then the epoch has whole files, but not all of them.
pub(crate) async fn export(
    project: &Project,
    destination: &str,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let location = Location::open(destination)?;
    let selection = Selection::new(project, options).await?;
    let mut problems = selection.problems(options.format).await?;
    problems.extend(changed_tables(project, &selection));
    let files = Files { location: &location, selection: &selection, name: &project.config.name, options };
    problems.extend(files.check().await?);
    if !problems.is_empty() {
        return Err(Error::Multiple(problems));
    }
    let stale = staleness::reasons(project).await?;
    let manifest = project.plan.steps.iter().position(|step| step.table.name == schema::MANIFEST);
    let stale = manifest.and_then(|manifest| stale.into_iter().nth(manifest)).flatten();
    let mut images = Images::open(project, &selection.snapshot).await?;
    let mut summary = Summary { destination: location.url.to_string(), stale, ..Summary::default() };
    progress.started(STEP, selection.epochs.iter().map(|epoch| epoch.rows).sum());
    if options.format == Format::ImageFolder {
        location.put(imagefolder::CLASSES, files.classes().into()).await?;
        summary.files += 1;
    }
    for epoch in &selection.epochs {
        files.write(epoch, &mut images, &mut summary, progress).await?;
    }
    Ok(summary)
}

/// Returns the tables of the export, and those that its manifest was made from, that another program has changed.
fn changed_tables<'a>(project: &'a Project, selection: &'a Selection<'_>) -> impl Iterator<Item = Error> + 'a {
    let manifest = project.plan.step(schema::MANIFEST);
    let is_used = move |name: &str| {
        [schema::MANIFEST, "images", schema::PIXELS, schema::SPECTRUM].contains(&name)
            || manifest.is_some_and(|manifest| manifest.query.tables.contains(name))
    };
    let steps = project.plan.steps.iter().map(|step| step.table.name.as_str());
    steps.filter(move |table| is_used(table)).filter_map(|table| {
        let version = selection.snapshot.changed(table)?;
        Some(ExportError::ChangedTable { table: table.to_owned(), version }.into())
    })
}

/// The files of an export, by epoch.
struct Files<'a> {
    location: &'a Location,
    selection: &'a Selection<'a>,
    /// The name of the pipeline.
    name: &'a str,
    options: &'a Options,
}

impl Files<'_> {
    /// Returns the start of the names of an epoch's shards, or the name of its folder.
    fn stem(&self, epoch: i64) -> String {
        match self.options.format {
            Format::WebDataset => format!("{}-epoch{epoch:04}-", self.name),
            Format::ImageFolder | Format::Parquet => format!("epoch_{epoch:04}"),
        }
    }

    fn classes(&self) -> String {
        imagefolder::classes(&self.selection.classes)
    }

    /// Returns the files that prevent the export.
    async fn check(&self) -> Result<Vec<Error>> {
        let names = self.location.names().await?;
        let mut problems = Vec::new();
        for Epoch { epoch, .. } in &self.selection.epochs {
            let stem = self.stem(*epoch);
            let existing = names.iter().find(|name| match self.options.format {
                Format::WebDataset => name.starts_with(&stem),
                Format::ImageFolder | Format::Parquet => **name == stem,
            });
            if let Some(name) = existing {
                let file = format!("{}{name}", self.location.url);
                problems.push(ExportError::EpochExists { file, epoch: *epoch }.into());
            }
        }
        if self.options.format == Format::ImageFolder && names.contains(imagefolder::CLASSES) {
            let found = self.location.get(imagefolder::CLASSES).await?;
            if found.is_some_and(|found| found != self.classes()) {
                let file = format!("{}{}", self.location.url, imagefolder::CLASSES);
                problems.push(ExportError::OtherClasses { file }.into());
            }
        }
        Ok(problems)
    }

    async fn write(
        &self,
        epoch: &Epoch,
        images: &mut Images<'_>,
        summary: &mut Summary,
        progress: &dyn Progress,
    ) -> Result<()> {
        let rows = self.selection.rows(epoch).await?;
        let mut writer = self.writer(epoch).await?;
        let written = self.write_rows(epoch, &rows, &mut writer, images, summary, progress).await;
        match written {
            Ok(()) => summary.files += writer.finish().await?,
            Err(error) => {
                // The first error is reported.
                let _ = writer.abort().await;
                return Err(error);
            }
        }
        summary.epochs.push(epoch.epoch);
        Ok(())
    }

    async fn writer(&self, epoch: &Epoch) -> Result<Writer> {
        let (location, bound) = (self.location.clone(), self.options.shard_size.0);
        let (stem, classes) = (self.stem(epoch.epoch), &self.selection.classes);
        Ok(match self.options.format {
            Format::WebDataset => Writer::WebDataset(Shards::new(location, stem, bound)),
            Format::ImageFolder => Writer::ImageFolder(Folder::new(location.below(&stem)?, classes).await?),
            Format::Parquet => Writer::Parquet(Parts::new(location.below(&stem)?, classes, bound)),
        })
    }

    async fn write_rows(
        &self,
        epoch: &Epoch,
        mut rows: &[Row],
        writer: &mut Writer,
        images: &mut Images<'_>,
        summary: &mut Summary,
        progress: &dyn Progress,
    ) -> Result<()> {
        while !rows.is_empty() {
            if self.options.stop.is_requested() {
                return Err(Error::ExportInterrupted {
                    epoch: epoch.epoch,
                    files: format!("{}{}", self.location.url, self.stem(epoch.epoch)),
                });
            }
            let samples = images.next(&mut rows).await?;
            writer.add(&samples).await?;
            summary.rows += samples.len();
            summary.image_bytes += samples.iter().map(|sample| sample.image.len() as u64).sum::<u64>();
            progress.advanced(STEP, samples.len());
        }
        Ok(())
    }
}

/// A row and its image.
struct Sample<'a> {
    row: &'a Row,
    /// Encoded bytes.
    image: Bytes,
    /// The extension of its file, which follows from its contents.
    extension: &'static str,
}

impl<'a> Sample<'a> {
    fn new(row: &'a Row, image: Bytes) -> Result<Self> {
        match imaging::extension(&image) {
            Ok(extension) => Ok(Self { row, image, extension }),
            Err(source) => Err(ExportError::NotAnImage { row: row.name(), source }.into()),
        }
    }
}

/// Class names by label.
type Classes = BTreeMap<i64, String>;

/// Writes one epoch.
enum Writer {
    WebDataset(Shards),
    ImageFolder(Folder),
    Parquet(Parts),
}

impl Writer {
    async fn add(&mut self, samples: &[Sample<'_>]) -> Result<()> {
        match self {
            Self::WebDataset(shards) => shards.add(samples).await,
            Self::ImageFolder(folder) => folder.add(samples).await,
            Self::Parquet(parts) => parts.add(samples).await,
        }
    }

    /// Finishes the last file and returns the number of files.
    async fn finish(self) -> Result<usize> {
        match self {
            Self::WebDataset(shards) => shards.finish().await,
            Self::ImageFolder(folder) => folder.finish().await,
            Self::Parquet(parts) => parts.finish().await,
        }
    }

    /// Removes unfinished files.
    async fn abort(self) -> Result<()> {
        match self {
            Self::WebDataset(shards) => shards.abort().await,
            Self::ImageFolder(folder) => folder.abort().await,
            Self::Parquet(parts) => parts.abort().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_and_sizes_are_read_as_people_write_them() {
        assert_eq!("3".parse(), Ok(Epochs { first: 3, last: 3 }));
        assert_eq!("3..5".parse(), Ok(Epochs { first: 3, last: 5 }));
        for wrong in ["", "-1", "5..3", "..", "3..", "a", "99999999999"] {
            assert!(wrong.parse::<Epochs>().is_err(), "{wrong}");
        }
        assert_eq!("1GB".parse(), Ok(ShardSize(1_000_000_000)));
        assert_eq!("20 kb".parse(), Ok(ShardSize(20_000)));
        assert_eq!("12345".parse(), Ok(ShardSize(12_345)));
        for wrong in ["", "0", "1", "GB", "1TB", "51GB", "99999999999999999999GB", "-1MB"] {
            assert!(wrong.parse::<ShardSize>().is_err(), "{wrong}");
        }
    }
}
