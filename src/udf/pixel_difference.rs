//! `pixel_difference(a, b)`: the largest difference between the channel values of two images, 0 to 255. 255 if their sizes
//! differ, NULL if one is NULL or cannot be decoded.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BinaryArray, Int64Array},
    datatypes::DataType,
};
use datafusion::{error::Result, logical_expr::ScalarUDF};
use rayon::prelude::*;

use super::function::{Arguments, Kernel, Shape, argument, images, plain};
use crate::imaging::{Limits, decode};

const NAME: &str = "pixel_difference";

struct PixelDifference;

pub(super) fn function() -> ScalarUDF {
    let arguments = Arguments::Exactly(2);
    plain(Shape { name: NAME, arguments, returns: DataType::Int64, fingerprint: String::new() }, PixelDifference)
}

impl Kernel for PixelDifference {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let a = images(NAME, argument(NAME, arguments, 0)?)?;
        let b = images(NAME, argument(NAME, arguments, 1)?)?;
        let found: Vec<Option<i64>> = (0..rows).into_par_iter().map(|row| difference(&a, &b, row)).collect();
        Ok(Arc::new(Int64Array::from(found)))
    }
}

fn difference(a: &BinaryArray, b: &BinaryArray, row: usize) -> Option<i64> {
    let open = |column: &BinaryArray| {
        let bytes = column.is_valid(row).then(|| column.value(row))?;
        decode(bytes, &Limits::default()).ok()
    };
    let (a, b) = (open(a)?, open(b)?);
    if a.dimensions() != b.dimensions() {
        return Some(i64::from(u8::MAX));
    }
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| i64::from(a.abs_diff(*b))).max()
}
