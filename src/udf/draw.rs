//! `draw(n, …)`: a uniform integer in `0..n`, a pure function of the other arguments; NULL where `n` < 1.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array},
    datatypes::DataType,
};
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::{
    digest::digests,
    function::{Arguments, Kernel, Shape, argument, integers, plain},
};

struct Draw;

pub(super) fn function() -> ScalarUDF {
    let shape = Shape { name: "draw", arguments: Arguments::Any, returns: DataType::Int64, fingerprint: String::new() };
    plain(shape, Draw)
}

impl Kernel for Draw {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let bounds = cast_bound(argument("draw", arguments, 0)?)?;
        let digests = digests("draw", arguments.get(1..).unwrap_or_default(), rows)?;
        let drawn: Int64Array = digests
            .into_iter()
            .zip(&bounds)
            .map(|(digest, bound)| {
                let bound = bound.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0)?;
                i64::try_from(digest.draw(bound)).ok()
            })
            .collect();
        Ok(Arc::new(drawn))
    }
}

/// `array_length` counts in unsigned integers, which SQL mixes with its own.
fn cast_bound(array: &ArrayRef) -> Result<Int64Array> {
    integers("draw", array)
}
