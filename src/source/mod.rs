//! The real images where they are: a listing of them, and their bytes.
//!
//! ```text
//! Parquet files ─────────────────────► parquet_files ─┐
//! list, csv_table, image_folder ─► named ─► files ────┼─► listing; images by path
//! tar files ─────────────────────► named ─► tars ─────┘
//! ```

mod classes;
mod csv_table;
mod entry;
mod files;
mod image_folder;
mod list;
mod object;
mod parquet_files;
mod range_reader;
mod side_tables;
mod tars;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use side_tables::{CommonNames, Line, check_excluded, common_names, confidences, descriptions, lines};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use self::{
    classes::Classes,
    entry::{Entry, Problems},
    object::too_large,
};
use crate::{
    config::{self, SourceKind, Split},
    error::{Error, Result},
    identity::{self, Digest},
    schema,
    storage::Location,
};

/// The version of a file that is named and not there.
const MISSING: &str = "missing";

/// An image that was asked for: its bytes, nothing where nothing was asked, or why there is none.
pub type Read = Result<Option<Vec<u8>>, String>;

/// The data set of a pipeline.
#[derive(Debug)]
pub struct Source {
    reader: Reader,
    listing: RecordBatch,
    fingerprint: String,
}

/// What has the images.
#[derive(Debug)]
enum Reader {
    Parquet(parquet_files::ParquetFiles),
    Files(files::Files),
    Tars(tars::Tars),
}

impl Source {
    /// Lists the data set: every image and its label, none of its pixels. `reader` names the query that
    /// reads the images: with another one they are read again.
    ///
    /// # Errors
    /// Where a file that lists images is missing or is not what the kind says, a column is missing or has the wrong
    /// type, an image has no label or an unsafe path, is named twice, or a split has no image. An image alone that is
    /// not there is a row of the listing, and an error of its row when it is read.
    pub async fn open(config: &config::Source, reader: &str) -> Result<Self> {
        let location = Location::open(&config.root)?;
        let (files, rows, classes, digest) = match &config.kind {
            SourceKind::Parquet { image_column, label_column } => {
                let files = parquet_files::ParquetFiles::open(location, config, image_column, label_column).await?;
                let given = config.classes.as_deref().map(Classes::read).transpose()?;
                let classes = given.unwrap_or_else(|| Classes::of(files.class_names().iter().map(String::as_str)));
                classes.check_names().map_err(|said| {
                    Error::Data(format!("the metadata of the Parquet files: {said}; `source.classes` gives others"))
                })?;
                let rows = files.labels().await?;
                let digest = files.fingerprint(Digest::new("listing"));
                (Reader::Parquet(files), rows, classes, digest)
            }
            _ => named_source(location, config).await?,
        };
        for row in &rows {
            classes.check(&row.path, row.label)?;
        }
        let listing = listing(&rows, &classes, reader)?;
        let fingerprint = digest.text(&classes.text()).id();
        Ok(Self { reader: files, listing, fingerprint })
    }

    /// The table `listing`.
    pub fn listing(&self) -> &RecordBatch {
        &self.listing
    }

    /// A digest of what is listed: each file's path, size and entity tag or time, and the class names.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Encoded bytes of an image in the mean; of a Parquet file all bytes are counted. None without an image.
    pub fn mean_bytes(&self) -> Option<f64> {
        let bytes = match &self.reader {
            Reader::Parquet(files) => files.bytes(),
            Reader::Files(files) => files.bytes(),
            Reader::Tars(tars) => tars.bytes(),
        };
        (self.listing.num_rows() > 0).then(|| bytes as f64 / self.listing.num_rows() as f64)
    }

    /// The images at `paths` of the listing, in their order.
    ///
    /// # Errors
    /// Where a file cannot be read or has changed since it was listed; an image that is not there is
    /// an error of its own row.
    pub async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let mut found = match &self.reader {
            Reader::Parquet(files) => files.read(paths).await?,
            Reader::Files(files) => files.read(paths).await?,
            Reader::Tars(tars) => tars.read(paths).await?,
        };
        for image in &mut found {
            let bytes = image.as_ref().ok().and_then(Option::as_ref).map_or(0, Vec::len);
            if let Some(why) = too_large(bytes as u64) {
                *image = Err(why);
            }
        }
        Ok(found)
    }
}

/// One real image of the listing.
struct Listed {
    path: String,
    /// Of the file that holds it.
    version: String,
    label: i64,
    split: &'static str,
}

/// A source that names its images: all that is wrong with names and labels is said at once.
async fn named_source(location: Location, config: &config::Source) -> Result<(Reader, Vec<Listed>, Classes, Digest)> {
    let given = config.classes.as_deref().map(Classes::read).transpose()?;
    let (splits, mut problems) = (&config.splits, Problems::default());
    let (reader, named) = match &config.kind {
        SourceKind::WebDataset { label_field } => {
            let (tars, named) = tars::Tars::open(location, label_field.as_deref(), splits, &mut problems).await?;
            check(&named, splits, problems)?;
            (Reader::Tars(tars), named)
        }
        kind => {
            let mut named = match kind {
                SourceKind::List { lists } => {
                    let lists = lists.as_deref().map_or_else(|| Ok(location.clone()), Location::open)?;
                    list::read(&lists, splits, &mut problems).await?
                }
                SourceKind::ImageFolder { label_column } => {
                    image_folder::read(&location, label_column, splits, &mut problems).await?
                }
                _ => csv_table::read(&location, kind, splits, &mut problems).await?,
            };
            check(&named, splits, problems)?;
            (Reader::Files(files::Files::open(location, &mut named).await?), named)
        }
    };
    refuse_absent(&named, splits, &config.root)?;
    let (labels, classes) = entry::assign_labels(&named, given)?;
    let mut digest = Digest::new("listing of names");
    let mut rows = Vec::with_capacity(named.len());
    for (Entry { path, split, version, .. }, label) in named.into_iter().zip(labels) {
        let version = version.map_or_else(|| MISSING.to_owned(), |version| version.text());
        digest = digest.text(&path).text(&version).text(split.as_str()).part(&label.to_le_bytes());
        rows.push(Listed { path, version, label, split: split.as_str() });
    }
    Ok((reader, rows, classes, digest))
}

/// Sees that names are sound, none is there twice, and every split has one.
fn check(named: &[Entry], splits: &[(Split, Vec<String>)], mut problems: Problems) -> Result<()> {
    entry::refuse_twice(named, &mut problems);
    problems.finish()?;
    match splits.iter().find(|(split, _)| !named.iter().any(|row| row.split == *split)) {
        None => Ok(()),
        Some((split, of)) => Err(Error::Data(format!(
            "the split {} has no image; it is `{}` (`source.splits`)",
            split.as_str(),
            of.join("`, `")
        ))),
    }
}

/// Where not one image of a split is there, it is not the images that are wrong.
fn refuse_absent(named: &[Entry], splits: &[(Split, Vec<String>)], root: &str) -> Result<()> {
    for (split, _) in splits {
        let mut rows = named.iter().filter(|row| row.split == *split);
        let Some(first) = rows.next() else { continue };
        if first.version.is_none() && rows.all(|row| row.version.is_none()) {
            return Err(Error::Data(format!(
                "none of the images of the split {} is there; the first is {} of {}, below `{root}`\nhint: is \
                 `source.root` the directory that the paths are relative to?",
                split.as_str(),
                entry::quote(&first.path),
                first.origin
            )));
        }
    }
    Ok(())
}

fn listing(rows: &[Listed], classes: &Classes, reader: &str) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&Listed) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|row| identity::source_id(&row.path)),
        text(&|row| Digest::new("pixels").text(reader).text(&row.path).text(&row.version).id()),
        text(&|row| row.path.clone()),
        Arc::new(rows.iter().map(|row| row.label).collect::<Int64Array>()),
        text(&|row| classes.name(row.label)),
        text(&|row| row.split.to_owned()),
    ];
    let table = schema::find(schema::LISTING).map(|table| Arc::clone(&table.schema));
    let table = table.ok_or_else(|| Error::Data("no schema of `listing`".into()))?;
    RecordBatch::try_new(table, columns).map_err(|error| Error::Data(format!("the listing is no table: {error}")))
}
