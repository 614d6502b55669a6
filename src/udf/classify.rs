//! `classify(name, image)`: class probabilities by the classifier `name` of `[models.classifiers]`, from class 0 on. NULL
//! if the image is NULL or cannot be decoded, or if the classifier's output is not finite.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::{
    embedding::{embedding_column, embedding_type},
    error::FunctionError,
    function::{Arguments, AsyncKernel, Shape, argument, awaiting, strings},
    load_image::load,
};
use crate::{
    error::text,
    models::{self, Models},
    source::Source,
};

const NAME: &str = "classify";

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
    Shape { name: NAME, arguments: Arguments::Exactly(2), returns: embedding_type(), fingerprint }
}

#[async_trait]
impl AsyncKernel for Classify {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let names = strings(NAME, argument(NAME, arguments, 0)?)?;
        let images = load(&self.source, NAME, argument(NAME, arguments, 1)?).await?;
        let Some(name) = (0..rows).find(|&row| names.is_valid(row)).map(|row| names.value(row)) else {
            return Ok(embedding_column(&vec![None; rows]));
        };
        if let Some(other) = names.iter().find(|other| *other != Some(name)) {
            let other = other.map_or("NULL".to_owned(), text::quote);
            return Err(FunctionError::SeveralClassifiers { first: text::quote(name), other }.into());
        }
        let classifier = self.models.classifier(name).await?;
        let with_bytes = (0..rows).filter_map(|row| Some((row, images.row(row).ok()??)));
        let (rows_with_bytes, bytes): (Vec<usize>, Vec<&[u8]>) = with_bytes.unzip();
        let found = tokio::task::block_in_place(|| classifier.probabilities(&bytes)).map_err(models::failed)?;
        let mut classes = vec![None; rows];
        for (row, probabilities) in rows_with_bytes.into_iter().zip(found) {
            if let Some(classes) = classes.get_mut(row) {
                *classes = probabilities.map(Arc::from);
            }
        }
        Ok(embedding_column(&classes))
    }
}
