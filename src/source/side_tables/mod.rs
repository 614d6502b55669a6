//! Tables that the user keeps alongside the data set: descriptions and common names of classes, and class probabilities
//! of images.

mod class_text;
mod common_names;
mod confidences;
mod descriptions;

#[cfg(any(test, fuzzing))]
pub(super) use class_text::read_descriptions;
pub(crate) use class_text::{Line, lines};
pub(super) use class_text::{read_json, read_text};
pub(crate) use common_names::{CommonNames, common_names};
pub(crate) use confidences::confidences;
pub(crate) use descriptions::{Descriptions, descriptions};
