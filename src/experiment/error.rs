//! Why an experiment fails.

use std::{io, path::PathBuf};

use arrow::error::ArrowError;

use crate::error::Error;

#[derive(Debug, thiserror::Error)]
pub(super) enum ExperimentError {
    #[error("`{}` (`experiment.pretraining`) is not a file", .path.display())]
    Pretraining { path: PathBuf },
    #[error("an image has the label {label}; the built-in learner supports the labels 0 to {max}")]
    Label { label: i64, max: u32 },
    #[error("`{image}`: {reason}")]
    Image { image: String, reason: String },
    #[error("a manifest names the sample `{sample}`, whose image does not exist")]
    NoImage { sample: String },
    #[error("epoch {epoch} of `{method}` has no rows to train on")]
    NoRows { epoch: usize, method: String },
    #[error(
        "split {split}: epoch {epoch} of the strategy `{strategy}` has no image to train on: nothing was kept at level \
         {levels}\nhint: lower `filter.min_text_similarity`, raise `filter.max_attempts`, or leave the level out"
    )]
    NoSynthetic { split: i64, epoch: i64, strategy: String, levels: String },
    #[error(
        "split {split}: the strategy `{strategy}` has nothing to measure on: no hard image has a kept image at every \
         level\nhint: lower `filter.min_text_similarity`, or raise `filter.max_attempts`"
    )]
    EmptyValidation { split: i64, strategy: String },
    #[error("split {split}: no level has a kept image for the strategy `fixed`")]
    NoLevel { split: i64 },
    #[error("a learner's thread cannot be started")]
    Thread(#[from] rayon::ThreadPoolBuildError),
    #[error("a learner's thread panicked")]
    Panicked,
    #[error("the rows of `{table}` do not fit its columns")]
    Columns { table: &'static str, source: ArrowError },
    #[error("`{}` cannot be written", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl From<ExperimentError> for Error {
    /// Most of the input is checked before an experiment begins, so nearly everything here fails while it runs.
    fn from(error: ExperimentError) -> Self {
        match error {
            ExperimentError::Pretraining { .. } => Self::input(error),
            _ => Self::failed(error),
        }
    }
}
