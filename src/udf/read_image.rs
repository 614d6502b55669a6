//! `read_image(path)`: an image of the source, as encoded bytes; `path` is that of the listing.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::DataType};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::function::{Arguments, AsyncKernel, Shape, argument, awaiting, fallible, image_column, texts};
use crate::{schema, source::Source};

struct ReadImage(Arc<Source>);

pub(super) fn function(source: Arc<Source>) -> ScalarUDF {
    let shape = shape(source.fingerprint().to_owned());
    awaiting(shape, ReadImage(source))
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape {
        name: "read_image",
        arguments: Arguments::Exactly(1),
        returns: DataType::Struct(fallible(&schema::image_fields())),
        fingerprint,
    }
}

#[async_trait]
impl AsyncKernel for ReadImage {
    async fn call(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let paths = texts("read_image", argument("read_image", arguments, 0)?)?;
        let paths: Vec<Option<&str>> = paths.iter().collect();
        image_column(self.0.read(&paths).await?)
    }
}
