//! `[parameters]`: the user's values for `$name` in SQL; and the parameters that are not keys.

use std::collections::BTreeMap;

use super::{
    declaration::Declaration,
    document::{Entry, Node, Value},
    key::{DefaultValue, Field, Key},
    parameter::Parameter,
    reader::Section,
    strings::{IDENTIFIER, LINE},
    value_types::{ValueType, refuse},
};
use crate::error::diagnostics::Problems;

/// An SQL parameter whose value is computed when the pipeline is opened. All other built-in parameters are the values
/// of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputedParameter {
    /// The digest of all that decides what an image looks like: model files, settings, and the query.
    Generator,
    /// The scheduler that the diffusion model runs with.
    Scheduler,
    /// UNet evaluations for one image, for each level of `image_guidance`.
    UnetEvaluations,
    /// The digest of all that decides a score: the CLIP model's files and the query.
    Clip,
}

impl ComputedParameter {
    /// All of them, as the reference lists them.
    pub const ALL: [Self; 4] = [Self::Generator, Self::Scheduler, Self::UnetEvaluations, Self::Clip];

    /// The name in SQL, without the `$`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Scheduler => "scheduler",
            Self::UnetEvaluations => "unet_evaluations",
            Self::Clip => "clip",
        }
    }

    /// What it is, for the reference.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Generator => {
                "A digest of all that decides what an image looks like: the model's files, the settings of \
                 `[spectrum]`, and the query that generates images."
            }
            Self::Scheduler => "The scheduler in use: `spectrum.scheduler`, or else the model's own.",
            Self::UnetEvaluations => "UNet evaluations for one image, for each level of `$image_guidance`.",
            Self::Clip => {
                "A digest of all that decides a score: the CLIP model's files, and the query that scores images."
            }
        }
    }
}

/// The section, whose keys are names that the user chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserParameters {
    /// Every key of the pipeline file, of which some have a built-in parameter.
    pub(super) keys: fn() -> &'static [Key],
}

impl Declaration for UserParameters {
    type Value = BTreeMap<String, Parameter>;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> BTreeMap<String, Parameter> {
        let mut section = section.section(name);
        let mut out = BTreeMap::new();
        for Entry { key: name, place, node } in section.entries() {
            let key = section.key(name);
            if !(IDENTIFIER.holds)(name) {
                let message = format!("not a valid name, expected {}", IDENTIFIER.expected);
                section.problems().add(Some(*place), &key, message);
            } else if let Some(help) = self.built_in(name) {
                let message = format!("`${name}` is a built-in parameter");
                section.problems().add_with_help(Some(*place), &key, message, Some(help));
            } else if let Some(value) = AnyValue.read(&key, node, section.problems()) {
                out.insert(name.clone(), value);
            }
        }
        out
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        let header = field.subsection(field.name);
        vec![Field { header: &header, name: "NAME", ..field.clone() }.key(AnyValue.expected(), DefaultValue::Unset)]
    }
}

impl UserParameters {
    /// What to do instead of setting the built-in parameter `name`; none if it is not built in.
    fn built_in(&self, name: &str) -> Option<String> {
        if ComputedParameter::ALL.iter().any(|computed| computed.name() == name) {
            return Some("choose another name".to_owned());
        }
        let key = (self.keys)().iter().find(|key| key.parameter == Some(name))?;
        Some(format!("set `{}` instead", key.path()))
    }
}

/// A value that SQL can take.
#[derive(Debug, Clone, Copy)]
struct AnyValue;

impl ValueType for AnyValue {
    type Value = Parameter;

    fn expected(&self) -> String {
        "an integer, a finite number, a string or a boolean".to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Parameter> {
        match &node.value {
            Value::Integer(value) => Some(Parameter::Integer(*value)),
            Value::Float(value) if value.is_finite() => Some(Parameter::Float(*value + 0.0)),
            Value::Boolean(value) => Some(Parameter::Boolean(*value)),
            Value::String(_) => LINE.read(key, node, problems).map(Parameter::Text),
            _ => {
                refuse(&self.expected(), key, node, problems);
                None
            }
        }
    }

    fn literal(&self, value: &Parameter) -> String {
        value.to_string()
    }
}
