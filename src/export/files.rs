//! The files of an export: what is there already, and writing the rest, epoch by epoch.

use std::collections::{BTreeSet, HashMap};

use futures::TryStreamExt;

use super::{
    Format, Options, STEP, Sample, Summary,
    error::ExportError,
    imagefolder::{self, Folder},
    images::Images,
    parquet_files::Parts,
    rows::{Epoch, Row, Selection},
    seal::{Found, List, Seal, WholeFile},
    webdataset::Shards,
};
use crate::{
    error::{Error, Result},
    identity::Digest,
    run::Progress,
    schema,
    storage::{self, Location, StoredObject},
};

/// Tables whose rows and images an export has.
const TABLES: [&str; 4] = [schema::MANIFEST, "images", schema::PIXELS, schema::SPECTRUM];

/// The files of an export, by epoch.
pub(super) struct Files<'a> {
    pub(super) location: &'a Location,
    pub(super) selection: &'a Selection<'a>,
    /// The name of the pipeline.
    pub(super) name: &'a str,
    pub(super) options: &'a Options,
    pub(super) progress: &'a dyn Progress,
}

/// What is there of the epochs of an export.
#[derive(Default)]
pub(super) struct There<'a> {
    /// Epochs that are complete.
    pub(super) complete: Vec<i64>,
    /// The others, with the files that hold their first rows.
    pub(super) missing: Vec<(&'a Epoch, Vec<WholeFile>)>,
}

impl<'a> Files<'a> {
    /// Returns the start of the names of an epoch's shards, or the name of its folder.
    fn stem(&self, epoch: i64) -> String {
        match self.options.format {
            Format::WebDataset => format!("{}-epoch{epoch:04}-", self.name),
            Format::ImageFolder | Format::Parquet => format!("epoch_{epoch:04}"),
        }
    }

    pub(super) fn classes(&self) -> String {
        imagefolder::classes(&self.selection.classes)
    }

    /// Returns what is there of each epoch. Adds files that prevent the export to `problems`.
    ///
    /// # Errors
    /// Returns an error if the lake or the destination cannot be read.
    pub(super) async fn there(&self, problems: &mut Vec<Error>) -> Result<There<'a>> {
        let names = self.location.names().await?;
        let mut there = There::default();
        for epoch in &self.selection.epochs {
            match self.found(epoch, &names).await {
                Ok(Found::Complete) => there.complete.push(epoch.epoch),
                Ok(Found::Incomplete(files)) => there.missing.push((epoch, files)),
                Err(error @ Error::Input(_)) => problems.push(error),
                Err(error) => return Err(error),
            }
        }
        if self.options.format == Format::ImageFolder && names.contains(imagefolder::CLASSES) {
            let found = self.location.get(imagefolder::CLASSES).await?;
            if found.is_some_and(|found| found != self.classes()) {
                problems.push(ExportError::OtherClasses { file: self.location.url_of(imagefolder::CLASSES) }.into());
            }
        }
        Ok(there)
    }

    async fn found(&self, epoch: &Epoch, names: &BTreeSet<String>) -> Result<Found> {
        let stem = self.stem(epoch.epoch);
        let (seal, list) = (Seal::name(&stem), Seal::name_of_list(&stem));
        let is_sealed = names.contains(&seal);
        let name = if is_sealed { seal } else { list };
        if !names.contains(&name) {
            let is_of_epoch = |name: &&String| match self.options.format {
                Format::WebDataset => name.starts_with(&stem),
                Format::ImageFolder | Format::Parquet => **name == stem,
            };
            return match names.iter().find(is_of_epoch) {
                Some(name) => {
                    Err(ExportError::NotSealed { file: self.location.url_of(name), epoch: epoch.epoch }.into())
                }
                None => Ok(Found::Incomplete(Vec::new())),
            };
        }
        let there = Seal::load(self.location, &name, epoch.epoch).await?;
        let rows = self.selection.rows(epoch).await?;
        if let Some(difference) = self.seal(epoch, &rows).difference(&there) {
            let (file, files) = (self.location.url_of(&name), self.location.url_of(&stem));
            return Err(ExportError::OtherExport { file, difference, files }.into());
        }
        Seal::found(there, is_sealed, &self.listed(&stem).await?).await
    }

    /// Returns the files of the destination among which those of an epoch are, by name.
    async fn listed(&self, stem: &str) -> Result<HashMap<String, StoredObject>> {
        let objects = match self.options.format {
            Format::WebDataset => self.location.list_folder("").await?.objects,
            Format::ImageFolder | Format::Parquet => {
                let object = |found| async move {
                    match found {
                        storage::Found::Object(object) => Ok(Some(object)),
                        storage::Found::Fault(_) => Ok(None),
                    }
                };
                self.location.list_tree(stem).try_filter_map(object).try_collect().await?
            }
        };
        Ok(objects.into_iter().map(|object| (object.name().to_owned(), object)).collect())
    }

    /// Returns the seal of an epoch without its files.
    fn seal(&self, epoch: &Epoch, rows: &[Row]) -> Seal {
        let Options { format, shard_size, .. } = self.options;
        let shard_bytes = (*format != Format::ImageFolder).then_some(shard_size.0);
        let mut content = Digest::new("export").text(self.name).text(&format.to_string()).text(&self.classes());
        content = content.text(&format!("{shard_bytes:?}"));
        for row in rows {
            content = row.digest(content);
        }
        let version = |table: &str| Some((table.to_owned(), self.selection.snapshot.version(table)?));
        Seal {
            program: concat!("discl-pipe ", env!("CARGO_PKG_VERSION")).to_owned(),
            pipeline: self.name.to_owned(),
            curriculum: epoch.curriculum.clone(),
            trial: epoch.trial.clone(),
            epoch: epoch.epoch,
            format: *format,
            shard_bytes,
            tables: TABLES.into_iter().filter_map(version).collect(),
            content: content.id(),
            rows: rows.len(),
            files: Vec::new(),
        }
    }

    /// Writes the rows of an epoch that are not in the files `whole`, and seals it.
    ///
    /// # Errors
    /// Returns an error if an image or the destination fails, and [`Error::ExportInterrupted`] if the export was stopped.
    /// The next export continues after the files that are whole.
    pub(super) async fn write(
        &self,
        epoch: &Epoch,
        whole: Vec<WholeFile>,
        images: &mut Images<'_>,
        summary: &mut Summary,
    ) -> Result<()> {
        let rows = self.selection.rows(epoch).await?;
        let (done, todo) = rows.split_at(rows_of(&whole).min(rows.len()));
        self.progress.advanced(STEP, done.len());
        let stem = self.stem(epoch.epoch);
        let mut writer = self.writer(&stem, done, &whole).await?;
        let seal = Seal { files: whole, ..self.seal(epoch, &rows) };
        let mut list = List::start(self.location, &stem, seal).await?;
        if let Err(error) = self.write_rows(epoch, todo, &mut writer, &mut list, images, summary).await {
            // The first error is reported.
            let _ = writer.abort().await;
            let _ = list.save().await;
            return Err(error);
        }
        let rest = writer.finish().await?;
        // With the seal.
        summary.files += rest.len() + 1;
        list.seal(rest).await?;
        summary.epochs.push(epoch.epoch);
        Ok(())
    }

    async fn writer(&self, stem: &str, done: &[Row], whole: &[WholeFile]) -> Result<Writer> {
        let (location, bound) = (self.location.clone(), self.options.shard_size.0);
        let (stem, classes) = (stem.to_owned(), &self.selection.classes);
        Ok(match self.options.format {
            Format::WebDataset => Writer::WebDataset(Shards::new(location, stem, bound, whole.len())),
            Format::ImageFolder => Writer::ImageFolder(Folder::new(location, stem, classes, done, whole).await?),
            Format::Parquet => Writer::Parquet(Parts::new(location, stem, classes, bound, whole.len())),
        })
    }

    async fn write_rows(
        &self,
        epoch: &Epoch,
        mut rows: &[Row],
        writer: &mut Writer,
        list: &mut List<'_>,
        images: &mut Images<'_>,
        summary: &mut Summary,
    ) -> Result<()> {
        while !rows.is_empty() {
            if self.options.stop.is_requested() {
                return Err(Error::ExportInterrupted { epoch: epoch.epoch });
            }
            let samples = images.next(&mut rows).await?;
            let files = writer.add(&samples).await?;
            summary.files += files.len();
            list.add(files).await?;
            summary.rows += samples.len();
            summary.image_bytes += samples.iter().map(|sample| sample.image.len() as u64).sum::<u64>();
            self.progress.advanced(STEP, samples.len());
        }
        Ok(())
    }
}

/// Returns the number of rows in files.
pub(super) fn rows_of(files: &[WholeFile]) -> usize {
    files.iter().map(|file| file.rows).sum()
}

/// Writes one epoch.
enum Writer {
    WebDataset(Shards),
    ImageFolder(Folder),
    Parquet(Parts),
}

impl Writer {
    /// Adds rows, and returns the files that are whole now.
    async fn add(&mut self, samples: &[Sample<'_>]) -> Result<Vec<WholeFile>> {
        match self {
            Self::WebDataset(shards) => shards.add(samples).await,
            Self::ImageFolder(folder) => folder.add(samples).await,
            Self::Parquet(parts) => parts.add(samples).await,
        }
    }

    /// Finishes the last files and returns them.
    async fn finish(self) -> Result<Vec<WholeFile>> {
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
