//! Manifests out to trainers: the rows of each epoch in their order, with their images as encoded bytes, exactly as
//! they are in the lake. One form for each kind of reader: tar shards for WebDataset, class folders, Parquet.
//!
//! Rows are written in chunks that are bounded in rows and in bytes. What is in memory at once: the rows of one epoch
//! without images, some 500 bytes each; the images of a chunk; and what is on its way to the store.

mod imagefolder;
mod images;
mod parquet_files;
mod rows;
mod webdataset;

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;

use self::{
    imagefolder::Folder,
    images::Images,
    parquet_files::Parts,
    rows::{Epoch, Row, Selection},
    webdataset::Shards,
};
use crate::{
    error::{Error, Result},
    imaging,
    pipeline::{Pipeline, staleness::why},
    run::{Progress, Stop},
    storage::Location,
};

/// What progress is told under.
const STEP: &str = "export";

/// The form that an export has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Tar shards of samples: image, `.cls` and `.json`.
    WebDataset,
    /// A folder for each label, and `metadata.jsonl` in training order.
    ImageFolder,
    /// Parquet files in training order, with Hugging Face's features.
    Parquet,
}

/// Epochs from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epochs {
    first: i64,
    last: i64,
}

/// Every epoch that there is.
impl Default for Epochs {
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

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound(u64);

impl FromStr for Bound {
    type Err = String;

    /// A number of bytes, or of `KB`, `MB` and `GB`, which are thousands, millions and thousand millions.
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
            Some(bytes) if (LEAST_BOUND..=MOST_BOUND).contains(&bytes) => Ok(Self(bytes)),
            _ => Err("a size from 10KB to 50GB is expected, such as `500MB` or `1GB`".into()),
        }
    }
}

const LEAST_BOUND: u64 = 10_000;
/// An upload has at most 80 GB; a shard may exceed its bound by a sample.
const MOST_BOUND: u64 = 50_000_000_000;

/// What is exported, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The form.
    pub form: Form,
    /// Which epochs.
    pub epochs: Epochs,
    /// The curriculum, where the manifest has several.
    pub curriculum: Option<String>,
    /// The trial, where the manifest has several.
    pub trial: Option<String>,
    /// About how large a tar shard or a Parquet file is; a sample is never cut in two.
    pub shard_size: Bound,
    /// Asks the export to end after the chunk that it is at.
    pub stop: Stop,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Where it is.
    pub destination: String,
    /// Epochs that were written.
    pub epochs: Vec<i64>,
    /// Their rows.
    pub rows: usize,
    /// Files, of every kind.
    pub files: usize,
    /// Bytes of the images.
    pub image_bytes: u64,
    /// Why a run would choose the manifest anew; nothing where it is up to date.
    pub stale: Option<String>,
}

/// Writes epochs of the manifest to `destination`, a directory or URL. An epoch is written once: its files must not be
/// there. Equal tables give equal files, to the byte.
///
/// # Errors
/// Every problem with the rows and the destination, before anything is written: rows without exactly one image, no
/// such epoch, several curricula or trials, files that are there. Later, where an image or the destination fails;
/// [`Error::ExportInterrupted`] where it was asked to stop. Then the epoch has whole files, but not all of them.
pub async fn export(
    pipeline: &Pipeline,
    destination: &str,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let location = Location::open(destination).map_err(|error| Error::Several(vec![error.into()]))?;
    let selection = Selection::new(pipeline, options).await?;
    let mut problems = selection.problems(options.form).await?;
    let files = Files { location: &location, selection: &selection, name: &pipeline.config.name, options };
    problems.extend(files.check().await?);
    if !problems.is_empty() {
        return Err(Error::Several(problems));
    }
    let manifest = pipeline.plan.steps.iter().find(|step| step.table.name == "manifest");
    let stale = match manifest {
        Some(manifest) => why(&pipeline.session, &pipeline.own_tables, manifest).await?,
        None => None,
    };
    let mut summary = Summary { destination: location.url.to_string(), stale, ..Summary::default() };
    progress.started(STEP, selection.epochs.iter().map(|epoch| epoch.rows).sum());
    if options.form == Form::ImageFolder {
        location.put(imagefolder::CLASSES, files.classes().into()).await?;
        summary.files += 1;
    }
    let mut images = Images::new(pipeline, &selection.snapshot);
    for epoch in &selection.epochs {
        files.write(epoch, &mut images, &mut summary, progress).await?;
    }
    Ok(summary)
}

/// The files of an export, by epoch.
struct Files<'a> {
    location: &'a Location,
    selection: &'a Selection<'a>,
    /// The pipeline's.
    name: &'a str,
    options: &'a Options,
}

impl Files<'_> {
    /// How the names of an epoch's files begin: those of its shards, or of its folder.
    fn stem(&self, epoch: i64) -> String {
        match self.options.form {
            Form::WebDataset => format!("{}-epoch{epoch:04}-", self.name),
            Form::ImageFolder | Form::Parquet => format!("epoch_{epoch:04}"),
        }
    }

    fn classes(&self) -> String {
        imagefolder::classes(&self.selection.classes)
    }

    /// What is in the way of the export.
    async fn check(&self) -> Result<Vec<Error>> {
        let names = self.location.names().await?;
        let mut problems = Vec::new();
        for Epoch { epoch, .. } in &self.selection.epochs {
            let stem = self.stem(*epoch);
            let there = names.iter().find(|name| match self.options.form {
                Form::WebDataset => name.starts_with(&stem),
                Form::ImageFolder | Form::Parquet => **name == stem,
            });
            if let Some(name) = there {
                problems.push(Error::Data(format!(
                    "`{}{name}` is there already, and an epoch is written once; delete epoch {epoch} there, choose \
                     others by `--epoch`, or name another destination",
                    self.location.url
                )));
            }
        }
        if self.options.form == Form::ImageFolder && names.contains(imagefolder::CLASSES) {
            let found = self.location.get(imagefolder::CLASSES).await?;
            if found.is_some_and(|found| found != self.classes()) {
                problems.push(Error::Data(format!(
                    "`{}{}` names other classes than this pipeline has; name another destination",
                    self.location.url,
                    imagefolder::CLASSES
                )));
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
                // what went wrong first is what is said
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
        Ok(match self.options.form {
            Form::WebDataset => Writer::WebDataset(Shards::new(location, stem, bound)),
            Form::ImageFolder => Writer::ImageFolder(Folder::new(location.below(&stem)?, classes).await?),
            Form::Parquet => Writer::Parquet(Parts::new(location.below(&stem)?, classes, bound)),
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
            if self.options.stop.is_asked() {
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

/// A row with its image.
struct Sample<'a> {
    row: &'a Row,
    /// Its encoded bytes.
    image: Bytes,
    /// How its file's name ends, by its contents.
    extension: &'static str,
}

impl<'a> Sample<'a> {
    fn new(row: &'a Row, image: Bytes) -> Result<Self> {
        match imaging::extension(&image) {
            Ok(extension) => Ok(Self { row, image, extension }),
            Err(error) => Err(Error::Data(format!("the image of {row}: {error}"))),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, position {}, sample `{}`", self.epoch, self.position, self.sample_id)
    }
}

/// Names of the classes by label.
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

    /// Ends the last file; gives the number of files.
    async fn finish(self) -> Result<usize> {
        match self {
            Self::WebDataset(shards) => shards.finish().await,
            Self::ImageFolder(folder) => folder.finish().await,
            Self::Parquet(parts) => parts.finish().await,
        }
    }

    /// Leaves no file half written.
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
        assert_eq!("1GB".parse(), Ok(Bound(1_000_000_000)));
        assert_eq!("20 kb".parse(), Ok(Bound(20_000)));
        assert_eq!("12345".parse(), Ok(Bound(12_345)));
        for wrong in ["", "0", "1", "GB", "1TB", "51GB", "99999999999999999999GB", "-1MB"] {
            assert!(wrong.parse::<Bound>().is_err(), "{wrong}");
        }
    }
}
