//! Element types of tensors.

use std::fmt;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I64,
    I32,
    /// Any other, by its code in `onnx.proto3`; -1 if the runtime has no code for it.
    Other(i64),
}

impl Element {
    pub(super) fn from_code(code: u64) -> Self {
        match code {
            1 => Self::F32,
            6 => Self::I32,
            7 => Self::I64,
            10 => Self::F16,
            other => Self::Other(i64::try_from(other).unwrap_or(-1)),
        }
    }

    /// Whether the values are floats.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("float32"),
            Self::F16 => f.write_str("float16"),
            Self::I64 => f.write_str("int64"),
            Self::I32 => f.write_str("int32"),
            Self::Other(code) => write!(f, "element type {code}"),
        }
    }
}
