//! `image_info(image)`: width and height in pixels, format and SHA-256 of an image, or why it cannot be decoded.
//!
//! The image is decoded in full, so that a truncated one is found here rather than in the middle of a run.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int64Array, StringArray, StructArray},
    datatypes::DataType,
};
use datafusion::{error::Result, logical_expr::ScalarUDF};
use rayon::prelude::*;

use super::function::{Arguments, Kernel, Shape, argument, fallible, images, plain};
use crate::{
    imaging::{self, ImageInfo, Limits},
    schema,
};

const NAME: &str = "image_info";

struct Info;

pub(super) fn function() -> ScalarUDF {
    let shape = Shape {
        name: NAME,
        arguments: Arguments::Exactly(1),
        returns: DataType::Struct(fallible(&schema::info_fields())),
        fingerprint: String::new(),
    };
    plain(shape, Info)
}

impl Kernel for Info {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let bytes = images(NAME, argument(NAME, arguments, 0)?)?;
        let found: Vec<Option<Result<ImageInfo, String>>> = (0..rows)
            .into_par_iter()
            .map(|row| {
                bytes
                    .is_valid(row)
                    .then(|| imaging::info(bytes.value(row), &Limits::default()).map_err(|error| error.chain()))
            })
            .collect();
        let ok = |row: &Option<Result<ImageInfo, String>>| row.as_ref().and_then(|row| row.as_ref().ok()).cloned();
        let infos: Vec<Option<ImageInfo>> = found.iter().map(ok).collect();
        let widths: Int64Array = infos.iter().map(|info| info.as_ref().map(|i| i64::from(i.width))).collect();
        let heights: Int64Array = infos.iter().map(|info| info.as_ref().map(|i| i64::from(i.height))).collect();
        let formats: StringArray = infos.iter().map(|info| info.as_ref().map(|i| i.format.to_string())).collect();
        let digests: StringArray = infos.iter().map(|info| info.as_ref().map(|i| i.digest.clone())).collect();
        let errors: StringArray = found.iter().map(|row| row.as_ref().and_then(|row| row.as_ref().err())).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(widths), Arc::new(heights), Arc::new(formats), Arc::new(digests), Arc::new(errors)];
        Ok(Arc::new(StructArray::try_new(fallible(&schema::info_fields()), columns, None)?))
    }
}
