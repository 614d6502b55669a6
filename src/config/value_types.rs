//! What a value may be: numbers in a range, strings with a rule, choices, lists.
//!
//! A type reads one value or reports why it cannot, so that sections stay a list of keys.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf};

use super::{
    document::{Node, Value},
    strings::{PATH, StringRule},
};
use crate::error::{diagnostics::Problems, text};

/// A type of value.
pub(super) trait ValueType {
    type Value;

    /// The type and range with an article, for "expected ...".
    fn expected(&self) -> String;

    /// Reads the value of `key`. Returns none after it has reported a problem.
    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Self::Value>;

    /// The value as it is written in TOML.
    fn literal(&self, value: &Self::Value) -> String;
}

/// Reports a value that is not of the type or not in its range.
pub(super) fn refuse(expected: &str, key: &str, node: &Node, problems: &mut Problems) {
    problems.add(Some(node.place), key, format!("found {}, expected {expected}", node.value.describe()));
}

/// An integer in a range.
#[derive(Debug, Clone)]
pub(super) struct Integer {
    range: RangeInclusive<i64>,
    /// What is counted, for messages; may be empty.
    unit: &'static str,
}

pub(super) const fn integer(range: RangeInclusive<i64>, unit: &'static str) -> Integer {
    Integer { range, unit }
}

fn with_unit(expected: String, unit: &str) -> String {
    if unit.is_empty() { expected } else { format!("{expected} ({unit})") }
}

impl ValueType for Integer {
    type Value = i64;

    fn expected(&self) -> String {
        let expected = match (*self.range.start(), *self.range.end()) {
            (i64::MIN, i64::MAX) => "a 64-bit integer".to_owned(),
            (low, i64::MAX) => format!("an integer of at least {low}"),
            (low, high) => format!("an integer from {low} to {high}"),
        };
        with_unit(expected, self.unit)
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<i64> {
        match node.value {
            Value::Integer(value) if self.range.contains(&value) => Some(value),
            _ => {
                refuse(&self.expected(), key, node, problems);
                None
            }
        }
    }

    fn literal(&self, value: &i64) -> String {
        value.to_string()
    }
}

/// A finite number in a range; an integer is one too.
#[derive(Debug, Clone)]
pub(super) struct Number {
    low: f64,
    high: f64,
    /// Whether `high` itself is refused.
    below_high: bool,
    /// What is measured, for messages.
    unit: &'static str,
}

pub(super) fn number(range: RangeInclusive<f64>, unit: &'static str) -> Number {
    Number { low: *range.start(), high: *range.end(), below_high: false, unit }
}

/// A number from `low` to less than `high`.
pub(super) fn number_below(low: f64, high: f64, unit: &'static str) -> Number {
    Number { low, high, below_high: true, unit }
}

impl Number {
    fn contains(&self, value: f64) -> bool {
        // NaN is in no range, and no range has an infinite end.
        value >= self.low && (value < self.high || (!self.below_high && value <= self.high))
    }
}

/// The shortest form of a number: `1e-9`, `0.3`, `10`.
fn shortest(value: f64) -> String {
    format!("{value:?}").trim_end_matches(".0").to_owned()
}

impl ValueType for Number {
    type Value = f64;

    fn expected(&self) -> String {
        let to = if self.below_high { "to less than" } else { "to" };
        with_unit(format!("a number from {} {to} {}", shortest(self.low), shortest(self.high)), self.unit)
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<f64> {
        let value = match &node.value {
            Value::Float(value) => *value,
            // Beyond 2^53 the conversion rounds, but every range ends long before.
            Value::Integer(value) => *value as f64,
            _ => f64::NAN,
        };
        if self.contains(value) {
            // -0.0 becomes 0.0: two spellings of one configuration must not differ.
            return Some(value + 0.0);
        }
        refuse(&self.expected(), key, node, problems);
        None
    }

    fn literal(&self, value: &f64) -> String {
        shortest(*value)
    }
}

impl ValueType for StringRule {
    type Value = String;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<String> {
        match &node.value {
            Value::String(value) if (self.holds)(value) => Some(value.clone()),
            _ => {
                refuse(self.expected, key, node, problems);
                None
            }
        }
    }

    fn literal(&self, value: &String) -> String {
        format!("\"{value}\"")
    }
}

/// A file or directory on this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalPath;

impl ValueType for LocalPath {
    type Value = PathBuf;

    fn expected(&self) -> String {
        PATH.expected()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<PathBuf> {
        PATH.read(key, node, problems).map(PathBuf::from)
    }

    fn literal(&self, value: &PathBuf) -> String {
        format!("\"{}\"", value.display())
    }
}

/// One of several words.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneOf(pub(super) &'static [&'static str]);

impl ValueType for OneOf {
    type Value = String;

    fn expected(&self) -> String {
        text::one_of(self.0)
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<String> {
        let Value::String(found) = &node.value else {
            refuse(&self.expected(), key, node, problems);
            return None;
        };
        if self.0.contains(&found.as_str()) {
            return Some(found.clone());
        }
        let message = format!("found {}, expected {}", text::quote(found), self.expected());
        let help = text::similar(found, self.0).map(|word| format!("did you mean `{word}`?"));
        problems.add_with_help(Some(node.place), key, message, help);
        None
    }

    fn literal(&self, value: &String) -> String {
        format!("\"{value}\"")
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boolean;

impl ValueType for Boolean {
    type Value = bool;

    fn expected(&self) -> String {
        "a boolean".to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<bool> {
        let Value::Boolean(found) = node.value else {
            refuse(&self.expected(), key, node, problems);
            return None;
        };
        Some(found)
    }

    fn literal(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A list of at least one value, all different.
#[derive(Debug, Clone)]
pub(super) struct DistinctList<K> {
    of: K,
    /// Whether a string may stand without brackets.
    or_one: bool,
}

/// A list of values.
pub(super) fn list_of<K>(of: K) -> DistinctList<K> {
    DistinctList { of, or_one: false }
}

/// A list of strings, or one of them without brackets.
pub(super) fn one_or_list_of<K>(of: K) -> DistinctList<K> {
    DistinctList { of, or_one: true }
}

impl<K: ValueType> ValueType for DistinctList<K>
where
    K::Value: Ord + Clone,
{
    type Value = Vec<K::Value>;

    fn expected(&self) -> String {
        match self.or_one {
            true => format!("{}, or a list of them", self.of.expected()),
            false => format!("a list, each item {}", self.of.expected()),
        }
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Vec<K::Value>> {
        let Value::List(items) = &node.value else {
            if self.or_one && matches!(node.value, Value::String(_)) {
                return self.of.read(key, node, problems).map(|value| vec![value]);
            }
            refuse(&self.expected(), key, node, problems);
            return None;
        };
        if items.is_empty() {
            problems.add(Some(node.place), key, "found an empty list, expected at least one item");
        }
        let before = problems.count();
        let mut seen = BTreeSet::new();
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let key = format!("{key}[{index}]");
            let Some(value) = self.of.read(&key, item, problems) else {
                continue;
            };
            if !seen.insert(value.clone()) {
                problems.add(Some(item.place), &key, format!("duplicate value {}", item.value.describe()));
            }
            values.push(value);
        }
        (problems.count() == before && !values.is_empty()).then_some(values)
    }

    fn literal(&self, values: &Vec<K::Value>) -> String {
        let items: Vec<String> = values.iter().map(|value| self.of.literal(value)).collect();
        format!("[{}]", items.join(", "))
    }
}
