//! Why the models of a pipeline cannot be used, and the class of error that this is.

use super::{
    classifier::ClassifierError,
    clip::{ClipError, EmbedError},
    diffusion::{DiffusionError, EngineError},
    hub::HubError,
    onnx::OnnxError,
};
use crate::error::Error;

/// A failure of any model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelError {
    /// A problem of the model that a key of the pipeline names.
    #[error("`{key}`")]
    At { key: String, source: Box<Self> },
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error(transparent)]
    Classifier(#[from] ClassifierError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error("no classifier `{name}`; `[models.classifiers]` has {known}")]
    UnknownClassifier {
        name: String,
        /// The known names, in backticks, or `none`.
        known: String,
    },
    #[error(
        "`{location}` is not a model: it has no `model_index.json`, `model.onnx` or `preprocessor_config.json`\n\
         hint: name a directory that `optimum-cli export onnx` has written"
    )]
    NotAModel { location: String },
    #[error(
        "`{location}` is not a diffusion model: it has no `model_index.json`\n\
         hint: `models bench` measures diffusion models; `models inspect` describes every kind"
    )]
    NotDiffusion { location: String },
}

impl ModelError {
    /// Returns a conversion for `map_err` that adds the key which names the model to each of its problems.
    pub(super) fn at<E: Into<Self>>(key: &str) -> impl Fn(Vec<E>) -> Vec<Self> {
        move |problems| {
            let at = |problem: E| Self::At { key: key.to_owned(), source: Box::new(problem.into()) };
            problems.into_iter().map(at).collect()
        }
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        Self::failed(error)
    }
}
