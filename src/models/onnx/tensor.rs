//! Plain tensors, so that no other module sees the runtime's.

use super::Element;

/// Values with a shape, in row-major order. Graphs that want half precision or 32-bit integers get them
/// converted; nothing else in the program computes in those.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tensor {
    /// 32-bit floats.
    F32 {
        /// Length of each axis; none for a scalar.
        shape: Vec<usize>,
        /// As many values as the axes multiply to.
        data: Vec<f32>,
    },
    /// 64-bit integers.
    I64 {
        /// Length of each axis; none for a scalar.
        shape: Vec<usize>,
        /// As many values as the axes multiply to.
        data: Vec<i64>,
    },
}

impl Tensor {
    /// A tensor of floats.
    pub(crate) fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self::F32 { shape: shape.into(), data }
    }

    /// A tensor of integers.
    pub(crate) fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Self {
        Self::I64 { shape: shape.into(), data }
    }

    /// Zeros of an element type that a graph's input has, as a dummy for a part that is not asked for.
    pub(crate) fn zeros(element: Element, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let values = shape.iter().product();
        if element.is_float() { Self::f32(shape, vec![0.0; values]) } else { Self::i64(shape, vec![0; values]) }
    }
}

/// What a graph gave, by name.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(super) by_name: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Outputs {
    /// Takes an output's shape and values out; half precision was widened. `None` where the graph has no such
    /// output or its elements are no floats.
    pub(crate) fn take(&mut self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let at = self.by_name.iter().position(|(other, _, _)| other == name)?;
        let (_, shape, data) = self.by_name.swap_remove(at);
        Some((shape, data))
    }
}
