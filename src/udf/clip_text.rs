//! `clip_text(prompt)`: the L2-normalized CLIP embedding of a prompt. Each distinct prompt is embedded once. NULL if
//! the prompt is NULL or the model fails on it: its output is not finite, or zero.

use std::sync::Arc;

use arrow::array::ArrayRef;
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};
use futures::future::try_join_all;

use super::{
    embedding::{embedding_column, embedding_type},
    function::{Arguments, AsyncKernel, Shape, argument, awaiting, strings},
};
use crate::models::{self, Models};

const NAME: &str = "clip_text";

struct ClipText(Arc<Models>);

pub(super) fn function(models: Arc<Models>) -> ScalarUDF {
    let shape = shape(models.clip_digest().to_owned());
    awaiting(shape, ClipText(models))
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape { name: NAME, arguments: Arguments::Exactly(1), returns: embedding_type(), fingerprint }
}

#[async_trait]
impl AsyncKernel for ClipText {
    async fn call(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let prompts = strings(NAME, argument(NAME, arguments, 0)?)?;
        let clip = self.0.clip().await?;
        let rows: Result<Vec<_>, crate::error::Error> = try_join_all(prompts.iter().map(|prompt| async move {
            match prompt {
                Some(prompt) => clip.embed_text(prompt).await.map(Some).map_err(models::failed),
                None => Ok(None),
            }
        }))
        .await;
        Ok(embedding_column(&rows?))
    }
}
