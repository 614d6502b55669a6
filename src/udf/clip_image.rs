//! `clip_image(image)`: the image's CLIP embedding, L2-normalised; NULL where the image is NULL or
//! cannot be decoded (`image_info` says why).

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Builder, ListBuilder},
    datatypes::DataType,
};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};
use futures::future::try_join_all;

use super::{
    cosine_similarity::embedding_type,
    function::{Arguments, AsyncKernel, Shape, argument, awaiting},
    load_image::load,
};
use crate::{
    models::clip::EmbedError,
    models::{self, Models},
    source::Source,
};

struct ClipImage {
    models: Arc<Models>,
    source: Arc<Source>,
}

pub(super) fn function(models: Arc<Models>, source: Arc<Source>) -> ScalarUDF {
    let shape = Shape {
        name: "clip_image",
        arguments: Arguments::Exactly(1),
        returns: embedding_type() as DataType,
        fingerprint: models.clip_digest().to_owned(),
    };
    awaiting(shape, ClipImage { models, source })
}

#[async_trait]
impl AsyncKernel for ClipImage {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let images = load(&self.source, "clip_image", argument("clip_image", arguments, 0)?).await?;
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
        Ok(embeddings(&rows?))
    }
}

/// A column of embeddings.
pub(super) fn embeddings(rows: &[Option<Arc<[f32]>>]) -> ArrayRef {
    let mut list = ListBuilder::new(Float32Builder::new());
    for row in rows {
        if let Some(row) = row {
            list.values().append_slice(row);
        }
        list.append(row.is_some());
    }
    Arc::new(list.finish())
}
