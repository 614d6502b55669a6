//! What a value may be: numbers in a range, strings with a rule, choices, lists.
//!
//! A kind reads one value or reports why it cannot, so that sections stay a list of keys.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::document::{Node, Value};
use super::strings::Rule;
use crate::error::diagnostics::Problems;
use crate::error::text;

/// A kind of value.
pub(super) trait Kind {
    /// What reading gives.
    type Out;

    /// One such value, for "expected …".
    fn expected(&self) -> String;

    /// Reads the value of `key`; none after a problem was reported.
    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Self::Out>;
}

/// Reports a value of a wrong type.
fn wrong_type<K: Kind>(kind: &K, key: &str, node: &Node, problems: &mut Problems) {
    let found = node.value.describe();
    problems.add(Some(node.place), key, format!("found {found}, expected {}", kind.expected()));
}

/// Reports a value of the right type that is not allowed.
fn not_allowed(key: &str, node: &Node, allowed: &str, problems: &mut Problems) {
    let found = node.value.describe();
    problems.add(Some(node.place), key, format!("found {found}, allowed are {allowed}"));
}

/// An integer in a range.
#[derive(Debug, Clone)]
pub(super) struct Integer {
    pub(super) range: RangeInclusive<i64>,
    /// What is counted, for messages; may be empty.
    pub(super) unit: &'static str,
}

/// An integer in this range, of this unit.
pub(super) fn integer(range: RangeInclusive<i64>, unit: &'static str) -> Integer {
    Integer { range, unit }
}

impl Integer {
    /// "0 to 100 (percent)", "from 0 (seed)".
    fn range_in_words(&self) -> String {
        let (low, high) = (*self.range.start(), *self.range.end());
        let range = match (low, high) {
            (i64::MIN, i64::MAX) => "of 64 bits".to_owned(),
            (low, i64::MAX) => format!("from {low}"),
            (low, high) => format!("{low} to {high}"),
        };
        with_unit(range, self.unit)
    }
}

fn with_unit(range: String, unit: &str) -> String {
    if unit.is_empty() { range } else { format!("{range} ({unit})") }
}

impl Kind for Integer {
    type Out = i64;

    fn expected(&self) -> String {
        format!("an integer {}", self.range_in_words())
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<i64> {
        match &node.value {
            Value::Integer(value) if self.range.contains(value) => return Some(*value),
            Value::Integer(_) | Value::HugeInteger(_) => {
                not_allowed(key, node, &format!("integers {}", self.range_in_words()), problems);
            }
            _ => wrong_type(self, key, node, problems),
        }
        None
    }
}

/// A finite number in a range; an integer is one too.
#[derive(Debug, Clone)]
pub(super) struct Number {
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whether `high` itself is refused.
    pub(super) below_high: bool,
    /// What is measured, for messages.
    pub(super) unit: &'static str,
}

/// A number from `low` to `high`, of this unit.
pub(super) fn number(low: f64, high: f64, unit: &'static str) -> Number {
    Number { low, high, below_high: false, unit }
}

/// A number from `low` to below `high`, of this unit.
pub(super) fn number_below(low: f64, high: f64, unit: &'static str) -> Number {
    Number { low, high, below_high: true, unit }
}

impl Number {
    fn range_in_words(&self) -> String {
        let to = if self.below_high { "to below" } else { "to" };
        with_unit(format!("{} {to} {}", self.low, self.high), self.unit)
    }

    fn contains(&self, value: f64) -> bool {
        // Not a number is in no range, and infinities are in no range with finite ends.
        value >= self.low && (value < self.high || (!self.below_high && value <= self.high))
    }
}

impl Kind for Number {
    type Out = f64;

    fn expected(&self) -> String {
        format!("a number {}", self.range_in_words())
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<f64> {
        let value = match &node.value {
            Value::Float(value) => *value,
            // Beyond 2^53 the conversion rounds, but every range ends long before.
            Value::Integer(value) => *value as f64,
            Value::HugeInteger(_) => f64::NAN,
            _ => {
                wrong_type(self, key, node, problems);
                return None;
            }
        };
        if self.contains(value) {
            // -0.0 becomes 0.0: two spellings of one configuration must not differ.
            return Some(value + 0.0);
        }
        not_allowed(key, node, &format!("numbers {}", self.range_in_words()), problems);
        None
    }
}

/// A string that keeps a rule.
impl Kind for Rule {
    type Out = String;

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<String> {
        match &node.value {
            Value::String(value) if (self.holds)(value) => return Some(value.clone()),
            Value::String(_) => not_allowed(key, node, self.allowed, problems),
            _ => wrong_type(self, key, node, problems),
        }
        None
    }
}

/// One of several words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) words: &'static [&'static str],
}

impl Kind for Choice {
    type Out = &'static str;

    fn expected(&self) -> String {
        match self.words {
            [only] => format!("the string `{only}`"),
            several => format!("a string out of {}", text::choices(several)),
        }
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<&'static str> {
        let Value::String(found) = &node.value else {
            wrong_type(self, key, node, problems);
            return None;
        };
        let known = self.words.iter().find(|word| *word == found);
        if known.is_none() {
            let are = if self.words.len() == 1 { "allowed is" } else { "allowed are" };
            let quoted = text::quote(found);
            let message = format!("found {quoted}, {are} {}", text::choices(self.words));
            let help = text::similar(found, self.words).map(|w| format!("did you mean `{w}`?"));
            problems.add_with_help(Some(node.place), key, message, help);
        }
        known.copied()
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truth;

impl Kind for Truth {
    type Out = bool;

    fn expected(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<bool> {
        let Value::Boolean(found) = node.value else {
            wrong_type(self, key, node, problems);
            return None;
        };
        Some(found)
    }
}

/// A list of at least one value, all different.
#[derive(Debug, Clone)]
pub(super) struct Distinct<K> {
    pub(super) of: K,
    /// Whether a single value may stand without brackets.
    pub(super) or_one: bool,
}

impl<K: Kind> Kind for Distinct<K>
where
    K::Out: Ord + Clone,
{
    type Out = Vec<K::Out>;

    fn expected(&self) -> String {
        match self.or_one {
            true => format!("{}, or a list of such", self.of.expected()),
            false => format!("a list, each {}", self.of.expected()),
        }
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Vec<K::Out>> {
        let Value::List(items) = &node.value else {
            if self.or_one && matches!(node.value, Value::String(_)) {
                return self.of.read(key, node, problems).map(|value| vec![value]);
            }
            wrong_type(self, key, node, problems);
            return None;
        };
        if items.is_empty() {
            let message = format!("found an empty list, expected {}", self.expected());
            problems.add(Some(node.place), key, message);
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
                let found = item.value.describe();
                problems.add(Some(item.place), &key, format!("found {found} a second time"));
            }
            values.push(value);
        }
        (problems.count() == before && !values.is_empty()).then_some(values)
    }
}
