//! `draw(n, …)`: a uniform integer in `0..n`, determined by the other arguments. NULL if `n` < 1.

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

const NAME: &str = "draw";

struct Draw;

pub(super) fn function() -> ScalarUDF {
    let shape = Shape { name: NAME, arguments: Arguments::Any, returns: DataType::Int64, fingerprint: String::new() };
    plain(shape, Draw)
}

impl Kernel for Draw {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let bounds = integers(NAME, argument(NAME, arguments, 0)?)?;
        let digests = digests(NAME, arguments.get(1..).unwrap_or_default(), rows)?;
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
