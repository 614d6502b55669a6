//! `classify(name, image)`: the probability of each class under the classifier of that name in `[models.classifiers]`,
//! 0 to 1, the class 0 first; NULL where the image is NULL or cannot be decoded.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef},
    datatypes::DataType,
};
use async_trait::async_trait;
use datafusion::{common::exec_err, error::Result, logical_expr::ScalarUDF};

use super::{
    clip_image::embeddings,
    cosine_similarity::embedding_type,
    function::{Arguments, AsyncKernel, Shape, argument, awaiting, texts},
    load_image::load,
};
use crate::{
    models::{self, Models},
    source::Source,
};

struct Classify {
    models: Arc<Models>,
    source: Arc<Source>,
}

pub(super) fn function(models: Arc<Models>, source: Arc<Source>) -> ScalarUDF {
    let shape = shape(models.classifiers_digest().to_owned());
    awaiting(shape, Classify { models, source })
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape { name: "classify", arguments: Arguments::Exactly(2), returns: embedding_type() as DataType, fingerprint }
}

#[async_trait]
impl AsyncKernel for Classify {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let names = texts("classify", argument("classify", arguments, 0)?)?;
        let images = load(&self.source, "classify", argument("classify", arguments, 1)?).await?;
        let Some(name) = (0..rows).find(|&row| names.is_valid(row)).map(|row| names.value(row)) else {
            return Ok(embeddings(&vec![None; rows]));
        };
        if names.iter().any(|other| other != Some(name)) {
            return exec_err!("`classify`: one call has one classifier; found `{name}` and another name");
        }
        let classifier = self.models.classifier(name).await?;
        let there = (0..rows).filter_map(|row| Some((row, images.row(row).ok()??)));
        let (there, bytes): (Vec<usize>, Vec<&[u8]>) = there.unzip();
        let found = tokio::task::block_in_place(|| classifier.probabilities(&bytes)).map_err(models::failed)?;
        let mut answers = vec![None; rows];
        for (row, probabilities) in there.into_iter().zip(found) {
            if let Some(answer) = answers.get_mut(row) {
                *answer = probabilities.map(Arc::from);
            }
        }
        Ok(embeddings(&answers))
    }
}
