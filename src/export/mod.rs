//! Exports manifests to trainers: the rows of each epoch in their order, with their images as encoded bytes, exactly as
//! they are in the lake. One format for each kind of reader: tar shards for WebDataset, class folders, Parquet.
//!
//! Rows are written in chunks that are bounded in rows and in bytes. In memory at once are the rows of one epoch without
//! images, some 500 bytes each, the names of its files, the images of one chunk, and what is being uploaded.
//!
//! An epoch is complete when its seal is there, which is written last. An export that was interrupted is continued by the
//! same command: see `seal`.

mod error;
mod files;
mod imagefolder;
mod images;
mod parquet_files;
mod rows;
mod seal;
mod webdataset;

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;

use self::{
    error::ExportError,
    files::{Files, rows_of},
    images::Images,
    rows::{Row, Selection},
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Tar shards of samples: image, `.cls` and `.json`.
    WebDataset,
    /// A folder for each label, and `metadata.jsonl` in training order.
    ImageFolder,
    /// Parquet files in training order, with Hugging Face's features.
    Parquet,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebDataset => "webdataset",
            Self::ImageFolder => "imagefolder",
            Self::Parquet => "parquet",
        })
    }
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
    /// Epochs that were written, or completed.
    pub epochs: Vec<i64>,
    /// Epochs that were complete before.
    pub complete: Vec<i64>,
    /// Rows that were written.
    pub rows: usize,
    /// Files that were written, of every kind.
    pub files: usize,
    /// Bytes of the images that were written.
    pub image_bytes: u64,
    /// Why a run would replace the manifest; `None` if the manifest is up to date.
    pub stale: Option<String>,
}

/// Writes epochs of the manifest to `destination`, a directory or URL, and seals each. An epoch that is complete is left
/// as it is, and one that was interrupted is continued; `note` is told. Equal tables give byte-identical files.
///
/// # Errors
/// Returns every problem with the rows and the destination before anything is written: rows without exactly one image, no
/// such epoch, several curricula or trials, files of another export. Later, an error if an image or the destination
/// fails; [`Error::ExportInterrupted`] if it was stopped.
pub(crate) async fn export(
    project: &Project,
    destination: &str,
    options: &Options,
    progress: &dyn Progress,
    note: &(dyn Fn(String) + Sync),
) -> Result<Summary> {
    let location = Location::open(destination)?;
    let selection = Selection::new(project, options).await?;
    let mut problems = selection.problems(options.format).await?;
    problems.extend(changed_tables(project, &selection));
    let files = Files { location: &location, selection: &selection, name: &project.config.name, options, progress };
    let there = files.there(&mut problems).await?;
    if !problems.is_empty() {
        return Err(Error::Multiple(problems));
    }
    let stale = staleness::reasons(project).await?;
    let manifest = project.plan.steps.iter().position(|step| step.table.name == schema::MANIFEST);
    let stale = manifest.and_then(|manifest| stale.into_iter().nth(manifest)).flatten();
    let mut images = Images::open(project, &selection.snapshot).await?;
    let mut summary = Summary { destination: location.url.to_string(), stale, ..Summary::default() };
    for (epoch, whole) in there.missing.iter().filter(|(_, whole)| !whole.is_empty()) {
        let (epoch, count, rows) = (epoch.epoch, whole.len(), rows_of(whole));
        note(format!("epoch {epoch} is incomplete, continuing after its first {rows} rows (files: {count})"));
    }
    progress.started(STEP, there.missing.iter().map(|(epoch, _)| epoch.rows).sum());
    summary.complete = there.complete;
    if options.format == Format::ImageFolder && !there.missing.is_empty() {
        location.put(imagefolder::CLASSES, files.classes().into()).await?;
        summary.files += 1;
    }
    for (epoch, whole) in there.missing {
        files.write(epoch, whole, &mut images, &mut summary).await?;
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
