//! The data set: a listing of its images, and their bytes.
//!
//! ```text
//! Parquet files ─────────────────────► parquet_files ─┐
//! list, csv_table, image_folder ─► entry ─► files ────┼─► listing; images by path
//! tar files ─────────────────────► entry ─► tars ─────┘
//! ```

mod census;
mod classes;
mod csv_table;
mod entry;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image_folder;
mod label;
mod list;
mod names;
mod numbering;
mod object;
mod parquet_files;
mod patterns;
mod range_reader;
mod sample;
mod shares;
mod side_tables;
mod skips;
mod tars;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::SchemaRef,
    error::ArrowError,
};
use rayon::prelude::*;
use tokio::sync::oneshot;

pub(crate) use census::{Census, ClassSize, Count, SplitCensus};
pub(crate) use sample::Sized;
pub(crate) use side_tables::{CommonNames, Descriptions, Line, common_names, confidences, descriptions, lines};
pub(crate) use skips::listed;

use self::{
    classes::Classes,
    entry::{Collected, Entry},
    error::SourceError,
    object::{MAX_IMAGE_BYTES, too_large},
};
use crate::{
    config::{self, SourceKind, Split},
    error::{Result, Warning, text},
    identity::{self, Digest},
    imaging::{self, Color, Limits},
    schema,
    storage::{Location, Version},
};

/// The version, in a listing, of a file that does not exist. It is part of ids: never change it.
const MISSING: &str = "missing";

/// Names the form in which images are read. It is part of `pixel_id`s and changes with the form, so that images are read
/// again.
const FORM: &str = "8-bit rgb, upright, 1";

/// The bytes of an image, `None` if no path was given, or why the image cannot be read.
pub(crate) type Read = Result<Option<Vec<u8>>, String>;

/// The data set of a pipeline.
#[derive(Debug)]
pub(crate) struct Source {
    reader: Reader,
    listing: RecordBatch,
    fingerprint: String,
    census: Census,
    warnings: Vec<Warning>,
    background: Color,
}

#[derive(Debug)]
enum Reader {
    Parquet(parquet_files::ParquetFiles),
    Files(files::Files),
    Tars(tars::Tars),
}

/// One real image of the listing.
struct Listed {
    path: String,
    /// The version of the file that holds the image.
    version: String,
    label: i64,
    split: &'static str,
}

impl Source {
    /// Lists the data set: every image and its label, but no pixels. `reader` names the query that reads the images; with
    /// another query they are read again.
    ///
    /// # Errors
    /// Returns an error if a file that lists images is missing or has another format, a column is missing or has the
    /// wrong type, an image has no label, has an unsafe path or is named twice, or a split has no image. A single image
    /// that does not exist is a row of the listing, and an error of that row when it is read.
    pub(crate) async fn open(config: &config::Source, reader: &str) -> Result<Self> {
        Ok(Self::list(config, reader).await?)
    }

    async fn list(config: &config::Source, reader: &str) -> Result<Self, SourceError> {
        let location = Location::open(&config.root)?;
        object::check_root(&location, &config.root).await?;
        let given = config.classes.as_deref().map(Classes::read).transpose()?;
        let splits = patterns::expand(&location, config).await?;
        let (files, mut out, metadata) = collect(location, config, &splits).await?;
        check(&mut out, &splits)?;
        check_existence(&out.entries, &splits, &config.root)?;
        let mut warnings = Vec::new();
        let (labels, classes) =
            numbering::assign_labels(&out.entries, config.label_kind, given, metadata, &mut warnings)?;
        shares::draw(&mut out.entries, &labels, &config.splits.shares);
        let census = census::census(&out.entries, &labels, &classes, &out.skips);
        warnings.extend(census::warnings(&census, &out.skips));
        let (rows, digest) = rows(out.entries, &labels);
        let background = config.background();
        let reader = Digest::new("reader").text(reader).text(FORM).part(&background).id();
        let listing = listing(&rows, &classes, &reader)?;
        let fingerprint = digest.text(&classes.text()).text(&reader).id();
        Ok(Self { reader: files, listing, fingerprint, census, warnings, background })
    }

    /// Returns what the data set holds.
    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// Returns what is probably not intended.
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Returns the table `listing`.
    pub(crate) fn listing(&self) -> &RecordBatch {
        &self.listing
    }

    /// Returns a digest of the listing: the path, size and entity tag or time of each file, the class names, and how the
    /// files are read.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the names of the classes that have images, in any split.
    pub(crate) fn class_names(&self) -> BTreeSet<&str> {
        let names = self.listing.column_by_name("class_name").and_then(|names| names.as_string_opt::<i32>());
        names.into_iter().flatten().flatten().collect()
    }

    /// Returns the path and the class name of each training image.
    pub(crate) fn training_images(&self) -> impl Iterator<Item = (&str, &str)> {
        let strings = |name| self.listing.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let columns = strings("path").zip(strings("class_name")).zip(strings("split"));
        let rows = columns.into_iter().flat_map(|((paths, classes), splits)| paths.iter().zip(classes).zip(splits));
        rows.filter(|(_, split)| *split == Some(Split::Train.as_str())).filter_map(|((path, class), _)| path.zip(class))
    }

    /// Returns the mean number of encoded bytes of an image, or `None` if there are no images. All bytes of a Parquet
    /// file count.
    pub(crate) fn mean_bytes(&self) -> Option<f64> {
        let bytes = match &self.reader {
            Reader::Parquet(files) => files.bytes(),
            Reader::Files(files) => files.bytes(),
            Reader::Tars(tars) => tars.bytes(),
        };
        (self.listing.num_rows() > 0).then(|| bytes as f64 / self.listing.num_rows() as f64)
    }

    /// Reads the images at `paths` of the listing, in their order and in their standard form: see
    /// [`standardize`](imaging::standardize). An image that does not exist or is corrupt is an error of its row.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or has changed since it was listed.
    pub(crate) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let usual: Vec<Option<&str>> = paths.iter().map(|path| path.filter(|path| !self.is_large(path))).collect();
        let mut images = self.standardize(self.read_files(&usual).await?).await?;
        // One at a time, so that they do not fill the memory together.
        for (image, path) in
            images.iter_mut().zip(paths).filter(|(_, path)| path.is_some_and(|path| self.is_large(path)))
        {
            if let Some(large) = self.standardize(self.read_files(&[*path]).await?).await?.pop() {
                *image = large;
            }
        }
        Ok(images)
    }

    /// Whether the file of an image is larger than any that is stored.
    fn is_large(&self, path: &str) -> bool {
        let size = match &self.reader {
            // The size of an image is known when it has been read.
            Reader::Parquet(_) => None,
            Reader::Files(files) => files.size(path),
            Reader::Tars(tars) => tars.size(path),
        };
        size.is_some_and(|size| size > MAX_IMAGE_BYTES as u64)
    }

    /// Returns images in their standard form.
    async fn standardize(&self, files: Vec<Read>) -> Result<Vec<Read>, SourceError> {
        let background = self.background;
        let (sender, receiver) = oneshot::channel();
        let standard = move |file: Read| -> Read {
            let Some(bytes) = file? else { return Ok(None) };
            let image = imaging::standardize(bytes, &Limits::default(), background, MAX_IMAGE_BYTES);
            image.map(Some).map_err(|error| error.chain())
        };
        imaging::spawn(
            move || Ok(files.into_par_iter().map(standard).collect()),
            // The caller may have gone away.
            |images| drop(sender.send(images)),
        );
        let images: Option<Vec<Read>> = receiver.await.ok().and_then(Result::ok);
        images.ok_or(SourceError::Lost)
    }

    /// Reads the files as they are.
    async fn read_files(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let mut found = match &self.reader {
            Reader::Parquet(files) => files.read(paths).await?,
            Reader::Files(files) => files.read(paths).await?,
            Reader::Tars(tars) => tars.read(paths).await?,
        };
        for image in &mut found {
            let bytes = image.as_ref().ok().and_then(Option::as_ref).map_or(0, Vec::len);
            if let Some(reason) = too_large(bytes as u64) {
                *image = Err(reason);
            }
        }
        Ok(found)
    }
}

/// Checks that `excluded` (`hard_samples.exclude_classes`) are classes of `source`.
///
/// # Errors
/// Returns an error that names the others, with the most similar classes.
pub(crate) fn check_excluded(source: &Source, excluded: &[String]) -> Result<()> {
    let classes: Vec<&str> = source.class_names().into_iter().collect();
    let unknown = excluded.iter().filter(|name| !classes.contains(&name.as_str()));
    let names: Vec<String> = unknown
        .map(|name| match text::similar(name, &classes) {
            Some(meant) => format!("`{name}`, did you mean `{meant}`?"),
            None => format!("`{name}`"),
        })
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(SourceError::ExcludedClasses { names: names.join(" ") }.into())
}

/// Lists the images of a source, with the names of classes that its metadata has.
async fn collect(
    location: Location,
    config: &config::Source,
    splits: &[(Split, Vec<String>)],
) -> Result<(Reader, Collected, Option<Classes>), SourceError> {
    let mut out = Collected::default();
    match &config.kind {
        SourceKind::Parquet { image_column, label_column } => {
            let files = parquet_files::ParquetFiles::open(&location, splits, image_column, label_column).await?;
            out.entries = files.entries(&mut out.problems).await?;
            let names = files.class_names().map(Classes::of_metadata);
            return Ok((Reader::Parquet(files), out, names));
        }
        SourceKind::WebDataset { label_field, image_member } => {
            let members = tars::Members { label_field: label_field.clone(), image: image_member.clone() };
            let tars = tars::Tars::open(&location, &members, splits, &mut out).await?;
            return Ok((Reader::Tars(tars), out, None));
        }
        SourceKind::List { lists } => {
            let lists = lists.as_deref().map_or_else(|| Ok(location.clone()), Location::open)?;
            list::read(&lists, splits, &mut out).await?;
        }
        SourceKind::ImageFolder { label_column } => {
            image_folder::read(&location, label_column, splits, &mut out).await?;
        }
        kind @ SourceKind::Csv { .. } => csv_table::read(&location, kind, splits, &mut out).await?,
    }
    let files = files::Files::open(location, &mut out.entries).await?;
    Ok((Reader::Files(files), out, None))
}

/// Checks that all entries are valid, none is repeated, and every split has one.
fn check(out: &mut Collected, splits: &[(Split, Vec<String>)]) -> Result<(), SourceError> {
    entry::reject_duplicates(&out.entries, &mut out.problems);
    std::mem::take(&mut out.problems).finish()?;
    match splits.iter().find(|(split, _)| !out.entries.iter().any(|entry| entry.split == *split)) {
        None => Ok(()),
        Some((split, names)) => {
            let skipped = out.skips.describe(*split);
            Err(SourceError::EmptySplit { split: split.as_str(), names: names.join("`, `"), skipped })
        }
    }
}

/// Rejects a split of which no image can be read. If none exists, the root is probably wrong.
fn check_existence(entries: &[Entry], splits: &[(Split, Vec<String>)], root: &str) -> Result<(), SourceError> {
    for (split, _) in splits {
        let mut found = entries.iter().filter(|entry| entry.split == *split);
        let Some(first) = found.next() else { continue };
        if first.file.version().is_none() && found.all(|entry| entry.file.version().is_none()) {
            if let entry::File::Unreadable(reason) = &first.file {
                let (split, path, reason) = (split.as_str(), first.path.clone(), reason.clone());
                return Err(SourceError::NoReadableImage { split, path, reason });
            }
            return Err(SourceError::NoImageExists {
                split: split.as_str(),
                path: first.path.clone(),
                origin: first.origin.to_string(),
                root: root.to_owned(),
            });
        }
    }
    Ok(())
}

/// Returns the rows of the listing, and a digest of all that follows from the source.
fn rows(entries: Vec<Entry>, labels: &[i64]) -> (Vec<Listed>, Digest) {
    let mut digest = Digest::new("listing of names");
    let mut rows = Vec::with_capacity(entries.len());
    for (Entry { path, split, file, .. }, &label) in entries.into_iter().zip(labels) {
        let version = file.version().map_or_else(|| MISSING.to_owned(), Version::text);
        digest = digest.text(&path).text(&version).text(split.as_str()).part(&label.to_le_bytes());
        rows.push(Listed { path, version, label, split: split.as_str() });
    }
    (rows, digest)
}

fn listing(rows: &[Listed], classes: &Classes, reader: &str) -> Result<RecordBatch, SourceError> {
    let strings = |of: &dyn Fn(&Listed) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        strings(&|row| identity::source_id(&row.path)),
        strings(&|row| Digest::new("pixels").text(reader).text(&row.path).text(&row.version).id()),
        strings(&|row| row.path.clone()),
        Arc::new(rows.iter().map(|row| row.label).collect::<Int64Array>()),
        strings(&|row| classes.name(row.label)),
        strings(&|row| row.split.to_owned()),
    ];
    table(schema::LISTING, columns)
}

/// Returns the rows of the built-in table `name`.
fn table(name: &'static str, columns: Vec<ArrayRef>) -> Result<RecordBatch, SourceError> {
    RecordBatch::try_new(schema_of(name)?, columns).map_err(|source| SourceError::Table { name, source })
}

fn schema_of(name: &'static str) -> Result<SchemaRef, SourceError> {
    let schema = schema::find(name).map(|table| Arc::clone(&table.schema));
    schema.ok_or_else(|| SourceError::Table { name, source: ArrowError::SchemaError("it has no schema".to_owned()) })
}
