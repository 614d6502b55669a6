//! `[parameters]`: the user's own values for `$name` in SQL.

use std::collections::BTreeMap;

use super::Parameter;
use super::document::{Entry, Node, Value};
use super::reader::Section;
use super::strings::{IDENTIFIER, LINE};
use super::values::Kind;
use crate::error::diagnostics::Problems;

/// Names of the parameters that the program itself gives to SQL; `[parameters]` may not have them.
pub const BUILT_IN_PARAMETERS: [&str; 30] = [
    "seed",
    "max_class_count",
    "classifier",
    "max_probability",
    "hard_fraction",
    "exclude_classes",
    "image_guidance",
    "unet_evaluations",
    "seeds",
    "timesteps",
    "guidance_scale",
    "negative_prompt",
    "min_text_similarity",
    "max_attempts",
    "epochs",
    "curriculum_epochs",
    "non_hard_fraction",
    "hard_share",
    "level",
    "trials",
    "probe_size",
    "class_balanced",
    "validation_sources",
    "strategy",
    "generation_prompt",
    "filter_prompt",
    "generator",
    "scheduler",
    "clip",
    "name",
];

/// Reads the section, whose keys are the names.
pub(super) fn parameters(mut section: Section<'_, '_>) -> BTreeMap<String, Parameter> {
    let mut out = BTreeMap::new();
    for Entry { key: name, place, node } in section.entries() {
        let key = section.key(name);
        if !(IDENTIFIER.holds)(name) {
            let message = format!("found this name, allowed are {}", IDENTIFIER.allowed);
            section.problems().add(Some(*place), &key, message);
        } else if BUILT_IN_PARAMETERS.contains(&name.as_str()) {
            let message = "found the name of a built-in parameter, which has its own key";
            section.problems().add(Some(*place), &key, message);
        } else if let Some(value) = ParameterValue.read(&key, node, section.problems()) {
            out.insert(name.clone(), value);
        }
    }
    out
}

/// A value that SQL can take.
struct ParameterValue;

impl Kind for ParameterValue {
    type Out = Parameter;

    fn expected(&self) -> String {
        "an integer, a finite number, a string or a truth value".to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Parameter> {
        match &node.value {
            Value::Integer(value) => Some(Parameter::Integer(*value)),
            Value::Float(value) if value.is_finite() => Some(Parameter::Float(*value + 0.0)),
            Value::Boolean(value) => Some(Parameter::Boolean(*value)),
            Value::String(_) => LINE.read(key, node, problems).map(Parameter::String),
            other => {
                let message = format!("found {}, expected {}", other.describe(), self.expected());
                problems.add(Some(node.place), key, message);
                None
            }
        }
    }
}
