//! Values of the `$name` placeholders of SQL.

use std::fmt;

use serde::Serialize;

/// The value of a `$name` placeholder.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    /// A 64-bit integer.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// A string without control characters.
    Text(String),
    /// The value of a key that is not set.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A list, for `unnest`.
    Integers(Vec<i64>),
    /// A list, for `unnest`.
    Texts(Vec<String>),
}

/// The value as fingerprints digest it: a change here makes every step of every lake stale.
impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Null => write!(f, "NULL"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integers(values) => write!(f, "{values:?}"),
            Self::Texts(values) => write!(f, "{values:?}"),
        }
    }
}

impl From<i64> for Parameter {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Parameter {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Parameter {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<String> for Parameter {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<i64>> for Parameter {
    fn from(values: Vec<i64>) -> Self {
        Self::Integers(values)
    }
}

impl From<Vec<String>> for Parameter {
    fn from(values: Vec<String>) -> Self {
        Self::Texts(values)
    }
}

impl<T: Into<Self>> From<Option<T>> for Parameter {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
