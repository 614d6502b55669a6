//! The real images where they are: a listing of them, and their bytes. So far one kind, Parquet files
//! in the image convention of Hugging Face `datasets`.

mod confidences;
mod parquet_files;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

pub use confidences::confidences;

use arrow::array::{ArrayRef, AsArray, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};

use crate::{
    bounded,
    config::{self, Config},
    error::{Error, Result},
    identity::{self, Digest},
    lake::Place,
    schema,
};

/// Encoded bytes of a picture: readers of Parquet fail on values of 8 MiB and more.
const LARGEST: usize = (8 << 20) - 1;

/// A picture that was asked for: its bytes, nothing where nothing was asked, or why there is none.
pub type Read = Result<Option<Vec<u8>>, String>;

/// The data set of a pipeline.
#[derive(Debug)]
pub struct Source {
    files: parquet_files::ParquetFiles,
    listing: RecordBatch,
    fingerprint: String,
}

impl Source {
    /// Lists the data set: every image and its label, none of its pixels. `reader` names the query that
    /// reads the pictures: with another one they are read again.
    ///
    /// # Errors
    /// Where a file is missing or is no Parquet, a column is missing or has the wrong type, or a row has
    /// no label.
    pub async fn open(config: &config::Source, reader: &str) -> Result<Self> {
        let place = Place::open(&config.root)?;
        let files = parquet_files::ParquetFiles::open(place, config).await?;
        let classes = match &config.classes {
            Some(path) => read_classes(path)?,
            None => files.class_names(),
        };
        let rows = files.labels().await?;
        if let Some(path) = &config.classes {
            check_named(&rows, &classes, path)?;
        }
        let listing = listing(rows, &classes, reader)?;
        let fingerprint = files.fingerprint(Digest::new("listing")).text(&classes.join("\n")).id();
        Ok(Self { files, listing, fingerprint })
    }

    /// The table `listing`.
    pub fn listing(&self) -> &RecordBatch {
        &self.listing
    }

    /// A digest of what is listed: each file's path, size and entity tag or time, and the class names.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The pictures at `paths` of the listing, in their order.
    ///
    /// # Errors
    /// Where a file cannot be read or has changed since it was listed; a picture that is not there is
    /// an error of its own row.
    pub async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let mut pictures = self.files.read(paths).await?;
        for picture in &mut pictures {
            let bytes = picture.as_ref().ok().and_then(Option::as_ref).map_or(0, Vec::len);
            if bytes > LARGEST {
                *picture = Err(format!("it has {bytes} bytes, {LARGEST} are allowed"));
            }
        }
        Ok(pictures)
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

/// A file of names that lacks one is an error: its class would go into prompts as a number.
fn check_named(rows: &[Listed], classes: &[String], path: &Path) -> Result<()> {
    let named = |row: &&Listed| usize::try_from(row.label).is_ok_and(|label| label < classes.len());
    match rows.iter().find(|row| !named(row)) {
        None => Ok(()),
        Some(row) => Err(Error::Data(format!(
            "`{}` has the label {}, and `{}` (`source.classes`) names the labels 0 to {} only",
            row.path,
            row.label,
            path.display(),
            classes.len().saturating_sub(1)
        ))),
    }
}

fn listing(rows: Vec<Listed>, classes: &[String], reader: &str) -> Result<RecordBatch> {
    let class_name = |label: i64| {
        usize::try_from(label).ok().and_then(|index| classes.get(index).cloned()).unwrap_or_else(|| label.to_string())
    };
    let text = |of: &dyn Fn(&Listed) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|row| identity::source_id(&row.path)),
        text(&|row| Digest::new("pixels").text(reader).text(&row.path).text(&row.version).id()),
        text(&|row| row.path.clone()),
        Arc::new(rows.iter().map(|row| row.label).collect::<Int64Array>()),
        text(&|row| class_name(row.label)),
        text(&|row| row.split.to_owned()),
    ];
    let table = schema::find(schema::LISTING).map(|table| Arc::clone(&table.schema));
    let table = table.ok_or_else(|| Error::Data("no schema of `listing`".into()))?;
    RecordBatch::try_new(table, columns).map_err(|error| Error::Data(format!("the listing is no table: {error}")))
}

/// The texts per class of the generation prompt.
#[derive(Debug, Clone)]
pub struct Descriptions {
    /// The table `descriptions`.
    pub rows: RecordBatch,
    /// A digest of it.
    pub digest: String,
    classes: BTreeSet<String>,
}

/// The texts per class of the generation prompt: the table `descriptions`.
///
/// # Errors
/// Where the file is unreadable, or is not an object from class to a list of texts that are not blank.
pub fn descriptions(config: &Config) -> Result<Descriptions> {
    let texts: BTreeMap<String, Vec<String>> = match &config.prompts.descriptions {
        None => BTreeMap::new(),
        Some(path) => read_json(path, "an object from class name to a list of texts")?,
    };
    let blank = |(class, texts): &(&String, &Vec<String>)| {
        (texts.is_empty() || texts.iter().any(|text| text.trim().is_empty())).then(|| (*class).clone())
    };
    if let Some(class) = texts.iter().find_map(|entry| blank(&entry)) {
        return Err(Error::Data(format!("`prompts.descriptions`: class `{class}` has no text, or a blank one")));
    }
    let names: StringArray = texts.keys().map(Some).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut digest = Digest::new("descriptions");
    for (class, texts) in &texts {
        digest = digest.text(class).part(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            digest = digest.text(text);
            lists.values().append_value(text);
        }
        lists.append(true);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(lists.finish())];
    let table = schema::find(schema::DESCRIPTIONS).map(|table| Arc::clone(&table.schema));
    let table = table.ok_or_else(|| Error::Data("no schema of `descriptions`".into()))?;
    let batch = RecordBatch::try_new(table, columns)
        .map_err(|error| Error::Data(format!("the descriptions are no table: {error}")))?;
    Ok(Descriptions { rows: batch, digest: digest.id(), classes: texts.into_keys().collect() })
}

impl Descriptions {
    /// Sees that every class of `source` has a text.
    ///
    /// # Errors
    /// Where one has none; the first of them are named.
    pub fn cover(&self, source: &Source) -> Result<()> {
        if self.classes.is_empty() {
            return Ok(());
        }
        let names = source.listing.column_by_name("class_name").and_then(|names| names.as_string_opt::<i32>());
        let missing: BTreeSet<&str> =
            names.into_iter().flatten().flatten().filter(|name| !self.classes.contains(*name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let some: Vec<_> = missing.iter().take(5).map(|name| format!("`{name}`")).collect();
        Err(Error::Data(format!(
            "`prompts.descriptions`: {} classes have no text, among them {}; every class of the source needs one",
            missing.len(),
            some.join(", ")
        )))
    }
}

/// Class names by number: a JSON list, or an object from number to name.
fn read_classes(path: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Classes {
        List(Vec<String>),
        // JSON's keys are texts
        Numbered(BTreeMap<String, String>),
    }
    const EXPECTED: &str = "a list of class names, or an object from number to name";
    let value: serde_json::Value = read_json(path, EXPECTED)?;
    let other = || Error::Data(format!("`{}` (`source.classes`) is not {EXPECTED}", path.display()));
    match serde_json::from_value(value).map_err(|_| other())? {
        Classes::List(names) => Ok(names),
        Classes::Numbered(names) => {
            let numbered = names.into_iter().map(|(number, name)| Some((number.parse::<usize>().ok()?, name)));
            let names: BTreeMap<usize, String> = numbered.collect::<Option<_>>().ok_or_else(other)?;
            let count = names.keys().next_back().map_or(0, |last| last.saturating_add(1));
            if count > names.len() {
                let missing = (0..count).find(|number| !names.contains_key(number)).unwrap_or(0);
                return Err(Error::Data(format!(
                    "`{}` (`source.classes`): class {missing} has no name; every number below {count} needs one",
                    path.display()
                )));
            }
            Ok(names.into_values().collect())
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    let text = bounded::read_text(path, bounded::TABLE)
        .map_err(|error| Error::Data(format!("`{}` cannot be read: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| Error::Data(format!("`{}` is not {expected}: {error}", path.display())))
}
