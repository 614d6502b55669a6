//! `read_image(path)`: the encoded bytes of an image of the source, by its path in the listing.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::DataType};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::function::{Arguments, AsyncKernel, Shape, argument, awaiting, fallible, image_column, strings};
use crate::{schema, source::Source};

const NAME: &str = "read_image";

struct ReadImage(Arc<Source>);

pub(super) fn function(source: Arc<Source>) -> ScalarUDF {
    let shape = shape(source.fingerprint().to_owned());
    awaiting(shape, ReadImage(source))
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape {
        name: NAME,
        arguments: Arguments::Exactly(1),
        returns: DataType::Struct(fallible(&schema::image_fields())),
        fingerprint,
    }
}

#[async_trait]
impl AsyncKernel for ReadImage {
    async fn call(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let paths = strings(NAME, argument(NAME, arguments, 0)?)?;
        let paths: Vec<Option<&str>> = paths.iter().collect();
        image_column(self.0.read(&paths).await?)
    }
}
