//! Plain tensors, so that no other module depends on the runtime's.

use super::element::Element;

/// Values with a shape, in row-major order. Conversions to half precision and 32-bit integers happen when a graph runs;
/// nothing else in the program computes in those types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tensor {
    F32 {
        /// The length of each axis; empty for a scalar.
        shape: Vec<usize>,
        /// As many values as the product of the axes.
        data: Vec<f32>,
    },
    I64 {
        /// The length of each axis; empty for a scalar.
        shape: Vec<usize>,
        /// As many values as the product of the axes.
        data: Vec<i64>,
    },
}

impl Tensor {
    /// Creates a tensor of floats.
    pub(crate) fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self::F32 { shape: shape.into(), data }
    }

    /// Creates a tensor of integers.
    pub(crate) fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Self {
        Self::I64 { shape: shape.into(), data }
    }

    /// Creates zeros of an input's element type, as a placeholder for a part of a graph whose output is not needed.
    pub(crate) fn zeros(element: Element, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let values = shape.iter().product();
        if element.is_float() { Self::f32(shape, vec![0.0; values]) } else { Self::i64(shape, vec![0; values]) }
    }
}

/// The outputs of a graph, by name.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(super) by_name: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Outputs {
    /// Removes and returns an output's shape and values; half precision was widened. Returns `None` if the graph has no
    /// such output or its elements are not floats.
    pub(crate) fn take(&mut self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let at = self.by_name.iter().position(|(other, _, _)| other == name)?;
        let (_, shape, data) = self.by_name.swap_remove(at);
        Some((shape, data))
    }
}
