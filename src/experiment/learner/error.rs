//! What can go wrong in the learner.

use super::Shape;
use crate::error::Error;

/// A failure to train a network, to measure its predictions, or to compare two methods.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LearnerError {
    /// An error of candle. Either there is a bug here, or memory ran out.
    #[error("the learner cannot {action}")]
    Candle { action: &'static str, source: Box<candle_core::Error> },

    #[error("unknown {kind} `{found}`; valid values are {allowed}")]
    UnknownName { kind: &'static str, found: String, allowed: String },
    #[error("`{name}` is {found}; it must be {allowed}")]
    OutOfRange { name: &'static str, found: f64, allowed: &'static str },
    #[error("`few` is {few}; it must not exceed `many`, which is {many}")]
    BucketsOverlap { few: usize, many: usize },

    #[error("every size of a shape must be at least 1, found {0}")]
    EmptyShape(Shape),
    #[error("{rows} rows need {expected} pixel values, found {found}")]
    PixelCount { rows: usize, expected: usize, found: usize },
    #[error("class {class} is out of range; there are {classes} classes")]
    UnknownClass { class: u32, classes: usize },
    #[error("row {row} is out of range; there are {rows} rows")]
    UnknownRow { row: usize, rows: usize },
    #[error("the learner expects images of {expected}, found {found}")]
    OtherShape { expected: Shape, found: Shape },
    #[error("expected one count for each of the {classes} classes, found {found}")]
    ClassCounts { classes: usize, found: usize },
    #[error("class {0} has no training image, and this loss needs one of every class")]
    ClassWithoutImages(usize),

    #[error("training needs at least one row")]
    NoRows,
    #[error("{requested} iterations were requested, but only {left} are left in the training")]
    TooManyIterations { requested: usize, left: usize },
    #[error("the loss is {loss} at iteration {iteration}\nhint: lower `learner.learning_rate`")]
    Diverged { iteration: usize, loss: f32 },

    #[error("metrics need at least one label")]
    NoLabels,
    #[error("found {predictions} predictions for {labels} labels")]
    PredictionCount { predictions: usize, labels: usize },

    #[error("a comparison needs at least one run of each method")]
    NoScores,
    #[error("split seed {split_seed} with learner seed {learner_seed} scores {value}, which is not a finite number")]
    InfiniteScore { split_seed: u64, learner_seed: u64, value: f64 },
    #[error("split seed {split_seed} with learner seed {learner_seed} has two scores")]
    DuplicateScore { split_seed: u64, learner_seed: u64 },
    #[error("split seed {split_seed} with learner seed {learner_seed} was run with only one of the two methods")]
    UnpairedRun { split_seed: u64, learner_seed: u64 },
}

impl LearnerError {
    /// Returns a function that wraps an error of candle. The action completes the sentence "the learner cannot ...".
    pub(super) fn candle(action: &'static str) -> impl Fn(candle_core::Error) -> Self {
        move |source| Self::Candle { action, source: Box::new(source) }
    }
}

impl From<LearnerError> for Error {
    /// Configuration is checked before anything is trained, so whatever fails here fails while the command runs.
    fn from(error: LearnerError) -> Self {
        Self::failed(error)
    }
}
