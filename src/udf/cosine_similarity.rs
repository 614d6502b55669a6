//! `cosine_similarity(a, b)`: the cosine of two embeddings, in −1..=1. NULL if one is NULL, zero, or not
//! finite.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array},
    compute::cast,
    datatypes::{DataType, Float32Type},
};
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::{
    embedding::embedding_type,
    error::FunctionError,
    function::{Arguments, Kernel, Shape, argument, plain},
};

const NAME: &str = "cosine_similarity";

struct Cosine;

pub(super) fn function() -> ScalarUDF {
    let shape =
        Shape { name: NAME, arguments: Arguments::Exactly(2), returns: DataType::Float32, fingerprint: String::new() };
    plain(shape, Cosine)
}

impl Kernel for Cosine {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let a = cast(argument(NAME, arguments, 0)?, &embedding_type())?;
        let b = cast(argument(NAME, arguments, 1)?, &embedding_type())?;
        let (a, b) = (a.as_list::<i32>(), b.as_list::<i32>());
        let mut cosines = Vec::with_capacity(rows);
        for row in 0..rows {
            if a.is_null(row) || b.is_null(row) {
                cosines.push(None);
                continue;
            }
            let (x, y) = (a.value(row), b.value(row));
            if x.len() != y.len() {
                return Err(FunctionError::EmbeddingLengths { a: x.len(), b: y.len() }.into());
            }
            cosines.push(cosine(x.as_primitive::<Float32Type>().values(), y.as_primitive::<Float32Type>().values()));
        }
        Ok(Arc::new(Float32Array::from(cosines)))
    }
}

/// Sums in `f64` and in order, so that the result does not depend on how the rows are batched.
fn cosine(x: &[f32], y: &[f32]) -> Option<f32> {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let norms = (dot(x, x) * dot(y, y)).sqrt();
    let cosine = dot(x, y) / norms;
    cosine.is_finite().then_some(cosine.clamp(-1.0, 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::cosine;

    #[test]
    fn cosines_are_between_minus_one_and_one() {
        assert_eq!(cosine(&[1.0, 0.0], &[2.0, 0.0]), Some(1.0));
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[1.0, 1.0], &[-1.0, -1.0]), Some(-1.0));
        assert_eq!(cosine(&[0.0], &[1.0]), None);
        assert_eq!(cosine(&[f32::NAN], &[1.0]), None);
        assert_eq!(cosine(&[f32::INFINITY], &[1.0]), None);
    }
}
