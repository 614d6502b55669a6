//! Why a data set, or a table that the user keeps alongside it, cannot be used.

use std::{io, path::PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::{
    error::{Error, text},
    limited_read::StandIn,
    storage::StorageError,
};

pub(super) type Result<T, E = SourceError> = std::result::Result<T, E>;

/// Why a source cannot be used. `key` names the key of the pipeline that is concerned.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error(transparent)]
    Storage(StorageError),
    #[error("`{url}`: it has changed since the source was listed; run again to read the new version")]
    Changed { url: String },

    #[error(
        "`source.root` is `{root}`, and there is no directory `{}`\n\
         hint: relative paths of a pipeline file start at the directory where the command runs",
        directory.display()
    )]
    NoRoot { root: String, directory: PathBuf },

    // Files of the data set.
    #[error("`{url}`: {}", found.instead_of_the_file())]
    StandIn { url: String, found: StandIn },
    #[error("`source.splits`: no file below `source.root` has a name like `{pattern}`")]
    NoMatch { pattern: String },
    #[error("`{file}` is in the splits {first} and {second} (`source.splits`); name each file once")]
    FileTwice { file: String, first: &'static str, second: &'static str },
    #[error(
        "`{file}` is in the split {split} twice, as `{}` and as `{}` (`source.splits`); name each file once",
        patterns.0, patterns.1
    )]
    FileTwiceInSplit { file: String, split: &'static str, patterns: (String, String) },
    #[error("`{url}`: this file does not exist; it is one of {key}, below {below}{hint}")]
    NoSuchFile { url: String, key: &'static str, below: &'static str, hint: &'static str },
    #[error("`{url}`: it has {bytes} bytes, at most {max} are allowed; it is one of {key}")]
    ListTooLarge { url: String, bytes: u64, max: u64, key: &'static str },
    #[error("`{url}`: it is not a readable tar file; compressed ones are not supported")]
    NotTar { url: String, source: io::Error },
    #[error("`{url}`: it is not a Parquet file")]
    NotParquet { url: String, source: ParquetError },
    #[error("`{file}`: it is not valid CSV{}", line.map_or_else(String::new, |line| format!(" from line {line} on")))]
    NotCsv { file: String, line: Option<u64>, source: csv::Error },
    #[error("`{file}` {problem}; no file of images has so many")]
    TooManyRows { file: String, problem: String },
    #[error(
        "`{file}`: column `{column}` of row group {group} claims to decompress from {stored} to {size} bytes, at most \
         {max} are allowed; images do not compress that well"
    )]
    Inflated { file: String, column: String, group: usize, stored: u64, size: u64, max: u64 },
    #[error("`{file}` has no column `{column}` ({key}); its columns are {found}")]
    NoColumn { file: String, column: String, key: &'static str, found: String },
    #[error("`{file}` has the column `{column}` ({key}) twice")]
    ColumnTwice { file: String, column: String, key: &'static str },
    #[error("`{file}`: column `{column}` ({key}) holds {found}, expected {expected}")]
    ColumnType { file: String, column: String, key: &'static str, found: String, expected: &'static str },
    #[error("`{file}`: column `{column}` does not hold labels")]
    Labels { file: String, column: String, source: ArrowError },
    #[error("`{file}`: row {row} has no `{column}`; every image needs one")]
    NoLabel { file: String, row: usize, column: String },
    #[error("`{url}`: column `{column}` cannot be read")]
    ReadColumn { url: String, column: String, source: ParquetError },
    #[error("`{url}`: column `{column}` does not hold images")]
    NotImages { url: String, column: String },
    #[error("`{url}`: column `{column}` has more rows than the {rows} of the file")]
    MoreRows { url: String, column: String, rows: usize },
    #[error("images that were read got lost on their way")]
    Lost,
    #[error("`{folder}` has both `metadata.csv` and `metadata.jsonl`; remove the one that does not have the labels")]
    TwoMetadataFiles { folder: String },

    #[error(
        "`{}` and `{}` have other class names in their metadata: only the first has {}, only the second has {}; numbers \
         of a `ClassLabel` mean the same in all files only if the names are the same",
        .files.0, .files.1, .only.0, .only.1
    )]
    ClassLabels { files: (String, String), only: (String, String) },

    // Entries and their splits.
    #[error("the source has {}{}", entries(*.count, .first.len()), .first.concat())]
    Entries { count: usize, first: Vec<String> },
    #[error(
        "`{url}`: the split {split} has no images{}; expected is a folder for each class with images, or `metadata.csv` or \
         `metadata.jsonl`{hint}",
        if skipped.is_empty() { String::new() } else { format!(", only {skipped}") }
    )]
    EmptyFolder { url: String, split: &'static str, skipped: String, hint: &'static str },
    #[error(
        "the split {split} has no images{}; `source.splits` reads it from `{names}`",
        if skipped.is_empty() { String::new() } else { format!(", only {skipped}") }
    )]
    EmptySplit { split: &'static str, names: String, skipped: String },
    #[error(
        "`{file}`: no row has the split {missing} (`source.splits`); its splits, with their numbers of rows, are {found}{hint}"
    )]
    NoSuchSplit { file: String, missing: String, found: String, hint: &'static str },
    #[error(
        "none of the images of the split {split} exists; the first is {} of {origin}, below `{root}`\nhint: {}",
        text::quote(path),
        if path.contains(['*', '?']) { "each path names one image, without patterns such as `*`" }
        else { "is `source.root` the directory that the paths are relative to?" }
    )]
    NoImageExists { split: &'static str, path: String, origin: String, root: String },

    #[error("no image of the split {split} can be read; the first is {}: {reason}", text::quote(path))]
    NoReadableImage { split: &'static str, path: String, reason: String },

    // Labels and classes.
    #[error(
        "the split {split} has the class `{name}` in two forms of Unicode, which are one name; rename one of its folders or \
         labels"
    )]
    TwoForms { split: &'static str, name: String },
    #[error("`{path}` has the label {label}, and {names} {known}")]
    UnnamedLabel { path: String, label: i64, names: String, known: String },
    #[error("`{path}` has the label {label}, for which {names} has several names")]
    AmbiguousLabel { path: String, label: i64, names: String },
    #[error(
        "`{}` (`source.classes`) names the numbers of classes by other numbers ({pairs}), which can be meant either way\n\
         hint: with `source.label_kind = \"name\"` labels are matched with the names",
        file.display()
    )]
    NumbersAsNames { file: PathBuf, pairs: String },
    #[error(
        "`{}` (`source.classes`) does not fit the {count} class names of the source: {problem}; allowed are these names in \
         any order, as many other names in the order of these, or JSON with an object from these names to others",
        file.display()
    )]
    ClassNames { file: PathBuf, count: usize, problem: String },
    #[error(
        "the class names in the metadata of the Parquet files do not fit the {count} labels of the source, which are names: \
         {problem}\nhint: write all files with one `ClassLabel`, or all with strings; `source.label_kind` is `number` for a \
         `ClassLabel`"
    )]
    MetadataNames { count: usize, problem: String },
    #[error("the metadata of the Parquet files: {problem}\nhint: set other names with `source.classes`")]
    EmbeddedNames { problem: String },
    #[error("`hard_samples.exclude_classes`: the source has no images of the class {names}")]
    ExcludedClasses { names: String },

    // Tables that the user keeps alongside the data set.
    #[error("{key}: {} cannot be read", text::file(path))]
    ReadFile { path: PathBuf, key: &'static str, source: io::Error },
    #[error("`{}` ({key}): {problem}", path.display())]
    InvalidFile { path: PathBuf, key: &'static str, problem: String },
    #[error(
        "`prompts.descriptions`: {count} classes have no description, among them {some}; every class of the source needs \
         one"
    )]
    NoDescription { count: usize, some: String },
    #[error("{message}\nhint: its column `path` must have the values of `path` in the table `images`")]
    NoConfidence { message: String },
    #[error(
        "`prompts.common_names`: it names none of the {count} classes of the source{example}; its keys are class names"
    )]
    NoCommonName { count: usize, example: String },

    /// A fault of this program.
    #[error("the table `{name}` cannot be built")]
    Table { name: &'static str, source: ArrowError },
}

fn entries(count: usize, shown: usize) -> String {
    match count {
        1 => "an invalid entry:".to_owned(),
        count if count <= shown => format!("{count} invalid entries:"),
        count => format!("{count} invalid entries; the first {shown}:"),
    }
}

impl From<StorageError> for SourceError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Changed { url, .. } => Self::Changed { url },
            error => Self::Storage(error),
        }
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Storage(error) => error.into(),
            SourceError::Changed { .. }
            | SourceError::ReadColumn { .. }
            | SourceError::NotImages { .. }
            | SourceError::MoreRows { .. }
            | SourceError::Lost
            | SourceError::Table { .. } => Self::failed(error),
            _ => Self::input(error),
        }
    }
}
