//! Labels as a data set writes them, and the one rule that says whether they are numbers or names.
//!
//! If every label is an integer (`7`, or `7.0` as pandas writes a column with gaps), labels are numbers and keep their
//! value. Otherwise all of them are names, as they are written: `0100` is not `100`. `source.label_kind` decides instead.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::{
    entry::{Entry, MAX_FIELD_BYTES, Problems},
    error::{Result, SourceError},
};
use crate::{
    config::{LabelKind, Split},
    error::{
        Warning,
        text::{quote, shorten},
    },
};

/// Texts that tools write for a value that is missing, in lower case.
const MISSING: [&str; 7] = ["nan", "none", "null", "na", "n/a", "<na>", "nil"];
/// Names and pairs that a message shows.
pub(super) const MAX_SHOWN: usize = 3;

/// The label of an image as its data set has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    /// An integer of a format that has types.
    Number(i64),
    /// A text.
    Text(String),
}

impl Label {
    /// Takes a field of a table or the content of a member, without the white space around it.
    ///
    /// # Errors
    /// Returns the problem of a text that is blank, too long, or has control characters.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        Self::of_name(text.trim())
    }

    /// Takes the name of a folder, as it is.
    ///
    /// # Errors
    /// Returns the problem of a name that is blank, too long, or has control characters.
    pub(super) fn of_name(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it has no label; every image needs one".to_owned());
        }
        if text.len() > MAX_FIELD_BYTES {
            return Err(format!("its label has {} bytes, {MAX_FIELD_BYTES} are allowed", text.len()));
        }
        if text.contains(char::is_control) {
            return Err(format!("found the label {}, control characters are not allowed", quote(text)));
        }
        Ok(Self::Text(text.to_owned()))
    }

    /// Takes a number of a format that has no integers.
    ///
    /// # Errors
    /// Returns the problem of a number that is not an integer.
    #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
    pub(super) fn of_float(number: f64) -> Result<Self, String> {
        if number.fract() == 0.0 && number.abs() < 2_f64.powi(53) {
            return Ok(Self::Number(number as i64));
        }
        Err(format!("found the label {number}, allowed are integers from 0 and strings"))
    }

    /// Takes a field of a JSON object.
    ///
    /// # Errors
    /// Returns the problem of a field that is missing, or is neither an integer nor a text.
    pub(super) fn of_json(object: &Value, field: &str) -> Result<Self, String> {
        match object.get(field) {
            Some(Value::String(text)) => Self::of_text(text),
            Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Ok(Self::Number(number)),
                (None, number) => Self::of_float(number.unwrap_or(f64::NAN)),
            },
            // Python's `NaN` reads as null.
            Some(Value::Null) => Err(format!("its field `{field}` is null or NaN; every image needs a label")),
            Some(value) => {
                Err(format!("found the label {}, allowed are integers from 0 and strings", quote(&value.to_string())))
            }
            None => Err(format!("it has no field `{field}`; every image needs a label")),
        }
    }

    /// Returns the label as it is written.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// Returns the value of a label that is an integer in its shortest form, or with pandas' `.0` behind it.
    pub(super) fn integer(&self) -> Option<i64> {
        let text = match self {
            Self::Number(number) => return Some(*number),
            Self::Text(text) => text,
        };
        let digits = match text.split_once('.') {
            Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
            Some(_) => return None,
            None => text,
        };
        digits.parse().ok().filter(|number: &i64| number.to_string() == digits)
    }

    /// Returns the value of a label that the user says is a number: zeros may precede it.
    fn lenient_integer(&self) -> Option<i64> {
        let Self::Text(text) = self else { return self.integer() };
        let rest = text.trim_start_matches('0');
        let text = if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") };
        Self::Text(text).integer()
    }
}

/// The labels of all images, in their order.
#[derive(Debug)]
pub(super) enum Labels {
    /// From 0.
    Numbers(Vec<i64>),
    /// In Unicode's composed form (NFC).
    Names(Vec<String>),
}

/// Decides whether labels are numbers or names: `kind` if the user says so, otherwise by the rule of this module.
///
/// # Errors
/// Returns every label below 0 among numbers, every label that looks like a missing value or a header among numbers, every
/// label that is not a number although `kind` says so, and names that a split has in two forms of Unicode.
pub(super) fn resolve(entries: &[Entry], kind: Option<LabelKind>, warnings: &mut Vec<Warning>) -> Result<Labels> {
    match kind {
        Some(LabelKind::Name) => names(entries, warnings),
        Some(LabelKind::Number) => numbers(entries, Label::lenient_integer),
        None => {
            let odd: Vec<&Entry> = entries.iter().filter(|entry| entry.label.integer().is_none()).collect();
            if odd.is_empty() || (odd.len() < entries.len() && odd.iter().all(|entry| is_no_label(entry, odd.len()))) {
                return numbers(entries, Label::integer);
            }
            if let Some(first) = odd.first().filter(|_| odd.len() < entries.len()) {
                warnings.push(mixed(first, odd.len(), entries.len()));
            }
            names(entries, warnings)
        }
    }
}

/// Whether the label of `entry`, one of `count` among numbers that are none, is a missing value or the header of a list.
fn is_no_label(entry: &Entry, count: usize) -> bool {
    let text = entry.label.text().to_lowercase();
    MISSING.contains(&text.as_str()) || (count == 1 && entry.origin.line == Some(1))
}

fn mixed(first: &Entry, odd: usize, all: usize) -> Warning {
    Warning::new(
        format!(
            "labels are taken as names: {odd} of {all} are not integers, such as {} of {}",
            quote(&first.label.text()),
            first.origin
        ),
        "`source.label_kind = \"name\"` says that they are names",
    )
}

fn numbers(entries: &[Entry], value: impl Fn(&Label) -> Option<i64>) -> Result<Labels> {
    let mut problems = Problems::default();
    let mut numbers = Vec::with_capacity(entries.len());
    for entry in entries {
        match value(&entry.label) {
            Some(number) if number >= 0 => numbers.push(number),
            _ => problems.add(
                &entry.origin,
                format!(
                    "{} has the label {}, allowed are integers from 0; with `source.label_kind = \"name\"` labels are names",
                    quote(&entry.path),
                    quote(&entry.label.text())
                ),
            ),
        }
    }
    problems.finish()?;
    Ok(Labels::Numbers(numbers))
}

fn names(entries: &[Entry], warnings: &mut Vec<Warning>) -> Result<Labels> {
    let mut forms: BTreeMap<(Split, String), BTreeSet<String>> = BTreeMap::new();
    let mut names = Vec::with_capacity(entries.len());
    for entry in entries {
        let text = entry.label.text();
        let name: String = text.nfc().collect();
        let known = forms.get(&(entry.split, name.clone())).is_some_and(|forms| forms.contains(&text));
        if !known {
            forms.entry((entry.split, name.clone())).or_default().insert(text);
        }
        names.push(name);
    }
    if let Some(((split, name), _)) = forms.iter().find(|(_, forms)| forms.len() > 1) {
        return Err(SourceError::TwoForms { split: split.as_str(), name: shorten(name) });
    }
    let distinct: BTreeSet<&str> = forms.keys().map(|(_, name)| name.as_str()).collect();
    warnings.extend(alike(&distinct));
    Ok(Labels::Names(names))
}

/// Warns about names that a reader takes for the same: they differ in case, white space or compatibility forms alone.
fn alike(names: &BTreeSet<&str>) -> Option<Warning> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        let folded = name.nfkc().collect::<String>().to_lowercase();
        groups.entry(folded.split_whitespace().collect::<Vec<_>>().join(" ")).or_default().push(name);
    }
    let alike: Vec<String> = groups
        .values()
        .filter(|names| names.len() > 1)
        .map(|names| names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(" and "))
        .collect();
    (!alike.is_empty()).then(|| {
        Warning::new(
            format!("classes whose names look alike are different classes: {}", shown(&alike, MAX_SHOWN)),
            "rename one of them if they are meant to be one class",
        )
    })
}

/// Returns the first `max` of `items` for a message, and how many more there are.
pub(super) fn shown(items: &[String], max: usize) -> String {
    let more = items.len().saturating_sub(max);
    let first = items.iter().take(max).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::{
        super::entry::{File, Origin},
        *,
    };

    fn entries(labels: &[&str]) -> Vec<Entry> {
        let entry = |(line, label): (u64, &&str)| Entry {
            path: format!("{line}.png"),
            label: Label::of_text(label).unwrap(),
            split: Split::Train,
            origin: Origin { file: "l.txt".into(), line: Some(line) },
            file: File::NotLookedUp,
        };
        (1..).zip(labels).map(entry).collect()
    }

    fn resolved(labels: &[&str], kind: Option<LabelKind>) -> Result<String, String> {
        let mut warnings = Vec::new();
        match resolve(&entries(labels), kind, &mut warnings) {
            Ok(Labels::Numbers(numbers)) => Ok(format!("{numbers:?}")),
            Ok(Labels::Names(names)) => Ok(format!("{} {}", names.join("|"), warnings.len())),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn labels_are_numbers_if_all_are_integers() {
        assert_eq!(resolved(&["0", "10", "2.0", "11.00"], None).unwrap(), "[0, 10, 2, 11]");
        assert_eq!(resolved(&["007", "010", "100", "0100"], None).unwrap(), "007|010|100|0100 1");
        assert_eq!(resolved(&["1", "2", "A", "B"], None).unwrap(), "1|2|A|B 1");
        assert_eq!(resolved(&["2", "1.5"], None).unwrap(), "2|1.5 1");
        assert_eq!(resolved(&["99999999999999999999", "x"], None).unwrap(), "99999999999999999999|x 0");
        assert_eq!(resolved(&["1", "01"], Some(LabelKind::Number)).unwrap(), "[1, 1]");
        assert_eq!(resolved(&["00", "0", "0.0", "010.0"], Some(LabelKind::Number)).unwrap(), "[0, 0, 0, 10]");
        assert_eq!(resolved(&["2", "10"], Some(LabelKind::Name)).unwrap(), "2|10 0");
        for (labels, wrong) in
            [(&["-1", "0", "1"][..], "\"-1\""), (&["nan", "0", "1.0"], "\"nan\""), (&["label", "0", "1"], "\"label\"")]
        {
            let message = resolved(labels, None).unwrap_err();
            assert!(message.contains(&format!("`l.txt`:1: \"1.png\" has the label {wrong}, allowed are")), "{message}");
        }
        assert_eq!(resolved(&["nan", "A"], None).unwrap(), "nan|A 0");
        assert!(resolved(&["0", "A"], Some(LabelKind::Number)).unwrap_err().contains("\"A\""));
    }

    #[test]
    fn a_name_has_one_form_of_unicode() {
        assert_eq!(resolved(&["e\u{301}"], None).unwrap(), "\u{e9} 0");
        let message = resolved(&["e\u{301}", "\u{e9}"], None).unwrap_err();
        assert!(message.contains("the split train has the class `\u{e9}` in two forms of Unicode"), "{message}");
        assert_eq!(resolved(&["Cat", "cat ", "ﬁsh", "fish", "dog"], None).unwrap(), "Cat|cat|ﬁsh|fish|dog 1");
    }

    #[test]
    fn a_json_label_is_an_integer_or_a_text() {
        let object = serde_json::json!({"i": 3, "t": "cat", "f": 1.5, "w": 2.0, "n": null, "m": -2, "b": true});
        assert_eq!(Label::of_json(&object, "i"), Ok(Label::Number(3)));
        assert_eq!(Label::of_json(&object, "w"), Ok(Label::Number(2)));
        assert_eq!(Label::of_json(&object, "m"), Ok(Label::Number(-2)));
        assert_eq!(Label::of_json(&object, "t"), Ok(Label::Text("cat".into())));
        for (field, problem) in
            [("f", "the label 1.5"), ("n", "null or NaN"), ("b", "the label \"true\""), ("absent", "no field `absent`")]
        {
            assert!(Label::of_json(&object, field).unwrap_err().contains(problem), "{field}");
        }
        assert!(Label::of_text("a\u{7}b").is_err() && Label::of_text(" ").unwrap_err().contains("no label"));
    }
}
