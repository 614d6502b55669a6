//! What can go wrong with a table.

use parquet::errors::ParquetError;

use crate::{error::Error, storage::StorageError};

/// Why a table cannot be used. `url` names the table or file.
#[derive(Debug, thiserror::Error)]
pub(super) enum LakeError {
    #[error("`{url}`: {problem}")]
    Delta { url: String, problem: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("`{url}`: Delta does not support the types of its columns")]
    Columns { url: String, source: arrow::error::ArrowError },
    #[error("`{url}`: its new rows cannot be filtered")]
    Filter { url: String, source: arrow::error::ArrowError },
    #[error("`{url}`: the table does not exist although it was created")]
    Vanished { url: String },
    #[error(
        "`{url}`: the table has the columns of another version of this program; set another location with `--lake`"
    )]
    OtherVersion { url: String },
    #[error("`{url}`: {attempts} commits in a row lost to other writers; run again")]
    Contended { url: String, attempts: u32 },
    #[error("`{url}`: a data file cannot be written; is the lake's root writable? `--lake` sets another")]
    WriteFile { url: String, source: StorageError },
    #[error("`{url}`: its unused files cannot be listed or deleted")]
    Collect { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("`{url}`: column `{column}` cannot be read; `verify` checks the files of the lake")]
    ReadColumn { url: String, column: String, source: ParquetError },
    #[error("`{url}`: expected a column `{column}` of strings in the rows of the table")]
    IdColumn { url: String, column: String },
    #[error("`{file}`: the rows cannot be written as Parquet")]
    WriteParquet { file: String, source: ParquetError },
}

impl From<LakeError> for Error {
    fn from(error: LakeError) -> Self {
        Self::failed(error)
    }
}
