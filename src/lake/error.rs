//! What can go wrong with a table.

use parquet::errors::ParquetError;

use crate::{error::Error, storage::StorageError};

/// Why a table cannot be used. `url` names the table or file.
#[derive(Debug, thiserror::Error)]
pub(super) enum LakeError {
    #[error("`{url}`: {problem}")]
    Delta { url: String, problem: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("`{root}`: the path of a lake must not have `%` or a backslash; set another one with `--lake`")]
    UnreadablePath { root: String },
    #[error("`{url}`: Delta does not support the types of its columns")]
    Columns { url: String, source: arrow::error::ArrowError },
    #[error("`{url}`: its new rows cannot be filtered")]
    Filter { url: String, source: arrow::error::ArrowError },
    #[error("`{url}`: the table does not exist although it was created")]
    Vanished { url: String },
    /// The table is as another program, or another version of this one, left it.
    #[error(
        "`{url}`: {problem}, and this program cannot write such a table\nhint: undo what another program has changed, or \
         set another lake with `--lake`"
    )]
    Foreign { url: String, problem: String },
    #[error("`{url}`: the rows of this file have no column `{column}`\nhint: set another lake with `--lake`")]
    NoIdColumn { url: String, column: String },
    #[error(
        "`{url}`: two rows have the id `{id}`, which only another program can have added\nhint: delete the rows that it \
         added, or restore the version before with Delta's RESTORE, and run again"
    )]
    Duplicate { url: String, id: String },
    #[error(
        "`{url}`: the store ignores `If-None-Match`, so two runs at once would lose commits\nhint: Amazon S3, Google Cloud \
         Storage, Azure, Cloudflare R2 and current versions of MinIO keep lakes; or set a directory with `--lake`"
    )]
    Unconditional { url: String },
    #[error(
        "`{url}`: the store does not take conditional writes (`If-None-Match`), which a lake needs; is it writable?"
    )]
    Probe { url: String, source: object_store::Error },
    #[error("`{url}`: other writers were faster for {minutes} minutes; run again when fewer of them work")]
    Contended { url: String, minutes: u64 },
    #[error("`{url}`: a data file cannot be written; is the lake's root writable? `--lake` sets another")]
    WriteFile { url: String, source: StorageError },
    #[error("`{url}`: its unused files cannot be listed or deleted")]
    Collect { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("`{url}` {problem}\nhint: `discl-pipe verify PIPELINE --repair --dry-run` shows what can be done about it")]
    Damaged { url: String, problem: String },
    #[error("`{url}`: column `{column}` cannot be read; `verify` checks the files of the lake")]
    ReadColumn { url: String, column: String, source: ParquetError },
    #[error("`{url}`: expected a column `{column}` of strings in the rows of the table")]
    IdColumn { url: String, column: String },
    #[error("`{file}`: the rows cannot be written as Parquet")]
    WriteParquet { file: String, source: ParquetError },
}

impl From<LakeError> for Error {
    fn from(error: LakeError) -> Self {
        match error {
            LakeError::Foreign { .. } | LakeError::Unconditional { .. } | LakeError::UnreadablePath { .. } => {
                Self::input(error)
            }
            _ => Self::failed(error),
        }
    }
}
