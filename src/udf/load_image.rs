//! `load_image(image)`: an image with its bytes, which are read from the source by its `path` if `pixels` only refers to
//! it. A row that cannot be read has its reason in `error`.
//!
//! The functions of models load images themselves, since DataFusion cannot await a call within a call.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, StringArray},
    datatypes::DataType,
};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::function::{Arguments, AsyncKernel, Shape, argument, awaiting, fallible, image_column, images, strings};
use crate::{
    schema,
    source::{Read, Source},
};

const NAME: &str = "load_image";

struct LoadImage(Arc<Source>);

pub(super) fn function(source: Arc<Source>) -> ScalarUDF {
    let shape = shape(source.fingerprint().to_owned());
    awaiting(shape, LoadImage(source))
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
impl AsyncKernel for LoadImage {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let loaded = load(&self.0, NAME, argument(NAME, arguments, 0)?).await?;
        image_column((0..rows).map(|row| loaded.row(row).map(|bytes| bytes.map(<[u8]>::to_vec))).collect())
    }
}

/// The bytes of a column of images, or why they cannot be read.
#[derive(Debug)]
pub(super) struct Loaded {
    bytes: BinaryArray,
    reasons: Option<StringArray>,
}

impl Loaded {
    /// Returns the image of a row, if it is not NULL, or why it cannot be read.
    pub(super) fn row(&self, row: usize) -> Result<Option<&[u8]>, String> {
        match &self.reasons {
            Some(reasons) if reasons.is_valid(row) => Err(reasons.value(row).to_owned()),
            _ => Ok(self.bytes.is_valid(row).then(|| self.bytes.value(row))),
        }
    }
}

/// Loads the images of `column`, an argument of `function`. Those that only have a path are read from `source`.
pub(super) async fn load(source: &Source, function: &'static str, column: &ArrayRef) -> Result<Loaded> {
    let bytes = images(function, column)?;
    let part = |field: &str| {
        let part = column.as_struct_opt().and_then(|parts| parts.column_by_name(field));
        part.map(|part| strings(function, part)).transpose()
    };
    let (paths, reasons) = (part("path")?, part(schema::ERROR_FIELD)?);
    let paths = paths.unwrap_or_else(|| StringArray::new_null(bytes.len()));
    let missing: Vec<Option<&str>> =
        paths.iter().enumerate().map(|(row, path)| path.filter(|_| bytes.is_null(row))).collect();
    if missing.iter().all(Option::is_none) {
        return Ok(Loaded { bytes, reasons });
    }
    let found: Vec<Read> = source.read(&missing).await?;
    let present = (0..bytes.len()).map(|row| bytes.is_valid(row).then(|| bytes.value(row)));
    let read = found.iter().map(|read| read.as_ref().ok().and_then(|read| read.as_deref()));
    let earlier = (0..bytes.len()).map(|row| reasons.as_ref().filter(|r| r.is_valid(row)).map(|r| r.value(row)));
    Ok(Loaded {
        bytes: present.zip(read).map(|(present, read)| present.or(read)).collect(),
        reasons: Some(
            found.iter().zip(earlier).map(|(read, e)| read.as_ref().err().map(String::as_str).or(e)).collect(),
        ),
    })
}
