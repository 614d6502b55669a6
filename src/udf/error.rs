//! Why a call of a function fails as a whole. A row that fails has its reason in its `error` field instead.

use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;

/// Names the function: a query may call several.
#[derive(Debug, thiserror::Error)]
pub(super) enum FunctionError {
    #[error("`{function}`: argument {position} is missing")]
    MissingArgument { function: &'static str, position: usize },
    #[error("`{function}`: expected {expected}, found {found}")]
    ArgumentType { function: &'static str, expected: &'static str, found: DataType },
    #[error(
        "`{function}` runs a model and cannot be called here\nhint: select it in a subquery, and use its column outside"
    )]
    NotAwaitable { function: &'static str },
    #[error("`{function}` needs the pipeline's models and source, which this command does not open")]
    Unavailable { function: &'static str },
    #[error("`classify`: one call uses one classifier, found {first} and {other}")]
    SeveralClassifiers { first: String, other: String },
    #[error("`cosine_similarity`: expected embeddings of the same length, found {a} and {b} numbers")]
    EmbeddingLengths { a: usize, b: usize },
}

impl From<FunctionError> for DataFusionError {
    fn from(error: FunctionError) -> Self {
        Self::External(Box::new(error))
    }
}
