//! `clip_image(image)`: the L2-normalized CLIP embedding of an image. NULL if the image is NULL or cannot be decoded
//! (`image_info` has the reason), or if the model fails on it: its output is not finite, or zero.

use std::sync::Arc;

use arrow::array::ArrayRef;
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};
use futures::future::try_join_all;

use super::{
    embedding::{embedding_column, embedding_type},
    function::{Arguments, AsyncKernel, Shape, argument, awaiting},
    load_image::load,
};
use crate::{
    models::{self, Models, clip::EmbedError},
    source::Source,
};

const NAME: &str = "clip_image";

struct ClipImage {
    models: Arc<Models>,
    source: Arc<Source>,
}

pub(super) fn function(models: Arc<Models>, source: Arc<Source>) -> ScalarUDF {
    let shape = shape(models.clip_digest().to_owned());
    awaiting(shape, ClipImage { models, source })
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape { name: NAME, arguments: Arguments::Exactly(1), returns: embedding_type(), fingerprint }
}

#[async_trait]
impl AsyncKernel for ClipImage {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let images = load(&self.source, NAME, argument(NAME, arguments, 0)?).await?;
        let clip = self.models.clip().await?;
        let images = (0..rows).map(|row| images.row(row));
        let rows: Result<Vec<_>, crate::error::Error> = try_join_all(images.map(|image| async move {
            let Ok(Some(image)) = image else {
                return Ok(None);
            };
            match clip.embed_image(Arc::from(image)).await {
                Ok(embedding) => Ok(Some(embedding)),
                Err(EmbedError::Image(_)) => Ok(None),
                Err(error) => Err(models::failed(error)),
            }
        }))
        .await;
        Ok(embedding_column(&rows?))
    }
}
