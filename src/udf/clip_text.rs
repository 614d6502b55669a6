//! `clip_text(prompt)`: the text's CLIP embedding, L2-normalised. Each distinct text is embedded once.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::DataType};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};
use futures::future::try_join_all;

use super::{
    clip_image::embeddings,
    cosine_similarity::embedding_type,
    function::{Arguments, AsyncKernel, Shape, argument, awaiting, texts},
};
use crate::models::{self, Models};

struct ClipText(Arc<Models>);

pub(super) fn function(models: Arc<Models>) -> ScalarUDF {
    let shape = shape(models.clip_digest().to_owned());
    awaiting(shape, ClipText(models))
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape { name: "clip_text", arguments: Arguments::Exactly(1), returns: embedding_type() as DataType, fingerprint }
}

#[async_trait]
impl AsyncKernel for ClipText {
    async fn call(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let texts = texts("clip_text", argument("clip_text", arguments, 0)?)?;
        let clip = self.0.clip().await?;
        let rows: Result<Vec<_>, crate::error::Error> = try_join_all(texts.iter().map(|text| async move {
            match text {
                Some(text) => clip.embed_text(text).await.map(Some).map_err(models::failed),
                None => Ok(None),
            }
        }))
        .await;
        Ok(embeddings(&rows?))
    }
}
