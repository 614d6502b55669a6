//! Why an export fails. Wrong input is found before anything is written.

use std::fmt;

use crate::{error::Error, imaging::ImageError};

#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// Files of an epoch without a seal, or without the list of an export that has not ended.
    #[error(
        "`{file}` exists, but nothing there says what it is: an earlier version or another program wrote it\nhint: delete epoch {epoch} there, choose others with `--epoch`, or export to another destination"
    )]
    NotSealed { file: String, epoch: i64 },
    #[error(
        "`{file}` {difference}\nhint: delete it and `{files}…`, choose other epochs with `--epoch`, or export to another destination"
    )]
    OtherExport {
        /// The seal or list that is there.
        file: String,
        /// A verb phrase.
        difference: String,
        /// The start of the names of the files that it lists.
        files: String,
    },
    #[error(
        "`{file}` is not the list of an export\nhint: delete it and epoch {epoch} there, or export to another destination"
    )]
    NotASeal { file: String, epoch: i64, source: serde_json::Error },
    #[error("the seal of epoch {epoch} cannot be written as JSON")]
    Seal { epoch: i64, source: serde_json::Error },
    #[error("`{file}` lists other classes than this pipeline has\nhint: export to another destination")]
    OtherClasses { file: String },
    #[error("the manifest has several curricula or trials, and an export contains one\nhint: choose with `--curriculum` and `--trial` among {}", .runs.join(", "))]
    SeveralRuns { runs: Vec<String> },
    #[error(
        "the label {label} cannot be a folder, expected labels from 0 to {max}\nhint: `--as parquet` and `--as webdataset` take any label"
    )]
    LabelOutOfRange { label: i64, max: i64 },
    #[error("the manifest has no rows for {epochs}, curriculum {curriculum}, trial {trial}\nhint: {hint}")]
    NoRows { epochs: String, curriculum: String, trial: String, hint: String },
    #[error("{total} rows of the manifest do not have exactly one image: {}\nhint: `discl-pipe verify` looks for the cause, `discl-pipe run` brings the manifest up to date", .rows.join("; "))]
    NoSingleImage { total: i64, rows: Vec<String> },
    #[error(
        "`{table}` is not what its step made: another program changed it in version {version}\nhint: `discl-pipe run` makes it again, `discl-pipe verify` counts the rows that differ"
    )]
    ChangedTable { table: String, version: u64 },
    #[error(
        "the image of {row} has disappeared from the lake\nhint: run the export again when no other run writes to the lake"
    )]
    ImageDisappeared { row: RowName },
    #[error("the image of {row}, `{path}`, {problem}")]
    SourceImage { row: RowName, path: String, problem: String },
    #[error("the image of {row} is not an image")]
    NotAnImage { row: RowName, source: ImageError },
    #[error("{row} cannot be written as JSON")]
    Json { row: RowName, source: serde_json::Error },
    #[error("{row} cannot be written into a tar")]
    Tar { row: RowName, source: std::io::Error },
    #[error("the rows of the export do not fit their columns")]
    Columns(#[from] arrow::error::ArrowError),
}

impl From<ExportError> for Error {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::NotSealed { .. }
            | ExportError::OtherExport { .. }
            | ExportError::NotASeal { .. }
            | ExportError::OtherClasses { .. }
            | ExportError::SeveralRuns { .. }
            | ExportError::LabelOutOfRange { .. }
            | ExportError::NoRows { .. }
            | ExportError::NoSingleImage { .. }
            | ExportError::ChangedTable { .. } => Self::input(error),
            _ => Self::failed(error),
        }
    }
}

/// Identifies a row in messages.
#[derive(Debug)]
pub(super) struct RowName {
    pub(super) epoch: i64,
    pub(super) position: i64,
    pub(super) sample_id: String,
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, position {}, sample `{}`", self.epoch, self.position, self.sample_id)
    }
}
