//! The one rule that says whether labels are numbers or names, and the number of each class.
//!
//! If every label is an integer (`7`, or `7.0` as pandas writes a column with gaps), labels are numbers and keep their
//! value. Otherwise all of them are names, as they are written: `0100` is not `100`. `source.label_kind` decides instead.

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::UnicodeNormalization;

use super::{
    classes::Classes,
    entry::{Entry, Problems},
    error::{Result, SourceError},
    label::Label,
};
use crate::{
    config::{LabelKind, Split},
    error::{
        Warning,
        text::{first_few, quote, shorten},
    },
};

/// Texts that tools write for a value that is missing, in lower case.
const MISSING: [&str; 7] = ["nan", "none", "null", "na", "n/a", "<na>", "nil"];

/// Returns the number of each entry's class, and the names of the classes: those `given` by the user, or else those of the
/// `metadata`, or those of the data set.
///
/// Labels that are numbers are numbers of classes. If the metadata has names for them, the user's names are matched with
/// these. Names are numbered in sorted order; if the user's names are the same,
/// their numbers are the user's; if none of them is the same, the user renames the classes.
///
/// # Errors
/// Returns an error if a label has no number or no name, or the user's names do not fit.
pub(super) fn assign_labels(
    entries: &[Entry],
    kind: Option<LabelKind>,
    given: Option<Classes>,
    metadata: Option<Classes>,
    warnings: &mut Vec<Warning>,
) -> Result<(Vec<i64>, Classes)> {
    // The numbers of a `ClassLabel` stand for its names, whether the user says that labels are names or numbers.
    let is_class_label = metadata.is_some() && entries.iter().all(|entry| matches!(entry.label, Label::Number(_)));
    let names = match resolve(entries, kind.filter(|_| !is_class_label), warnings)? {
        Labels::Numbers(labels) => {
            warnings.extend(sparse(&labels).filter(|_| given.is_none() && metadata.is_none()));
            return number(entries, labels, given, metadata);
        }
        Labels::Names(names) => names,
    };
    let given = given.or(metadata.map(|names| names.check_metadata().map(|()| names)).transpose()?);
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
    if let Ok(values) = sorted.iter().map(|name| name.parse::<u64>()).collect::<Result<Vec<_>, _>>()
        && values.iter().zip(&sorted).all(|(value, name)| value.to_string() == **name)
    {
        sorted.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
    }
    let classes = given.unwrap_or_else(|| Classes::of(sorted.iter().copied()));
    let (numbers, classes) = classes.number(&sorted)?;
    Ok((names.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect(), classes))
}

/// Finds the names of classes for labels that are numbers.
fn number(
    entries: &[Entry],
    mut labels: Vec<i64>,
    given: Option<Classes>,
    metadata: Option<Classes>,
) -> Result<(Vec<i64>, Classes)> {
    let classes = match (given, metadata) {
        (Some(given), Some(metadata)) => {
            let (numbers, classes) = given.match_metadata(&metadata, &labels.iter().copied().collect())?;
            labels.iter_mut().for_each(|label| *label = numbers.get(label).copied().unwrap_or(*label));
            classes
        }
        (Some(given), None) => {
            given.check_numbers()?;
            given.numbered()
        }
        (None, Some(metadata)) => {
            metadata.check_metadata()?;
            metadata
        }
        (None, None) => Classes::default(),
    };
    for (entry, label) in entries.iter().zip(&labels) {
        classes.check(&entry.path, *label)?;
    }
    Ok((labels, classes))
}

/// Warns about numbers that are far larger than the number of classes: trainers expect 0 to that number.
fn sparse(labels: &[i64]) -> Option<Warning> {
    let distinct = labels.iter().collect::<BTreeSet<_>>().len();
    let last = labels.iter().max().copied().unwrap_or(0);
    let sparse = usize::try_from(last).is_ok_and(|last| last > 100 + 10 * distinct);
    sparse.then(|| {
        Warning::new(
            format!(
                "the labels of {distinct} classes are numbers up to {last}; trainers expect numbers from 0 without gaps"
            ),
            "`source.label_kind = \"name\"` numbers the classes from 0",
        )
    })
}

/// The labels of all images, in their order.
#[derive(Debug)]
enum Labels {
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
fn resolve(entries: &[Entry], kind: Option<LabelKind>, warnings: &mut Vec<Warning>) -> Result<Labels> {
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

/// Whether the label of `entry`, one of `count` that are not integers, is a missing value or the header of a list.
fn is_no_label(entry: &Entry, count: usize) -> bool {
    let text = entry.label.text().to_lowercase();
    let is_word = !text.contains(|c: char| c.is_ascii_digit());
    MISSING.contains(&text.as_str()) || (count == 1 && is_word && entry.origin.line == Some(1))
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
            format!("classes whose names look alike are different classes: {}", first_few(&alike)),
            "rename one of them if they are meant to be one class",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            classes,
            entry::{File, Origin},
        },
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
        assert_eq!(resolved(&["0100", "100", "2"], None).unwrap(), "0100|100|2 1");
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

    fn entry(path: &str, label: Label, line: u64) -> Entry {
        let origin = Origin { file: "l.txt".into(), line: Some(line) };
        Entry { path: path.into(), label, split: Split::Train, origin, file: File::NotLookedUp }
    }

    fn assigned(rows: &[Entry], given: Option<Classes>) -> Result<(Vec<i64>, Classes)> {
        let given = given.map(|given| given.of_file("f".into()));
        assign_labels(rows, None, given, None, &mut Vec::new())
    }

    #[test]
    fn class_names_are_numbered_in_sorted_order() {
        let name = |text: &str| Label::Text(text.into());
        let rows = [entry("a", name("cat/dog"), 1), entry("b", name("ant"), 2), entry("c", name("cat/dog"), 3)];
        let (labels, classes) = assigned(&rows, None).unwrap();
        assert_eq!(labels, [1, 0, 1]);
        assert_eq!(classes.name(1), "cat/dog");
        let (labels, _) = assigned(&rows, Some(Classes::of(["cat/dog", "bee", "ant"]))).unwrap();
        assert_eq!(labels, [0, 2, 0]);
        let (labels, classes) = assigned(&rows, Some(Classes::of(["an ant", "a cat"]))).unwrap();
        assert_eq!((labels, classes.name(0)), (vec![1, 0, 1], "an ant".into()));
        for wrong in [&["ant", "a cat"][..], &["x", "y", "z"], &["ant", "ant", "cat/dog"]] {
            assigned(&rows, Some(Classes::of(wrong.iter().copied()))).unwrap_err();
        }
        // Names that can be sorted in several ways are matched by nothing but themselves.
        let codes = [entry("a", name("007"), 1), entry("b", name("0100"), 2), entry("c", name("10"), 3)];
        let message = assigned(&codes, Some(Classes::of(["x", "y", "z"]))).unwrap_err().to_string();
        assert!(message.contains("by bytes, \"007\" is \"x\", \"0100\" is \"y\""), "{message}");
        let renamed = classes::parse_json(serde_json::json!({"007": "x", "10": "z", "0100": "y", "5": "w"})).unwrap();
        let (labels, classes) = assigned(&codes, Some(renamed)).unwrap();
        assert_eq!((labels, classes.name(2)), (vec![0, 1, 2], "z".into()));
        let renamed = classes::parse_json(serde_json::json!({"007": "x", "a": "y"})).unwrap();
        assert!(assigned(&codes, Some(renamed)).unwrap_err().to_string().contains("it has no name for \"0100\""));
        let metadata = Classes::of_metadata(&["007".to_owned()]);
        let message = assign_labels(&codes, None, None, Some(metadata), &mut Vec::new()).unwrap_err().to_string();
        assert!(
            message.starts_with("the class names in the metadata of the Parquet files do not fit the 3"),
            "{message}"
        );
    }

    #[test]
    fn numbers_are_named_by_number() {
        let number = |path: &str, text: &str| entry(path, Label::Text(text.into()), 1);
        let rows = [number("a", "10"), number("b", "2.0"), number("c", "0")];
        let names: Vec<String> = (0..12).map(|number| format!("name {number}")).collect();
        let (labels, classes) = assigned(&rows, Some(Classes::of(names.iter().map(String::as_str)))).unwrap();
        assert_eq!((labels, classes.name(10)), (vec![10, 2, 0], "name 10".into()));
        let message = assigned(&rows, Some(Classes::of(["x", "y", "z"]))).unwrap_err().to_string();
        assert!(
            message.ends_with("`a` has the label 10, and `f` (`source.classes`) has names for the labels 0 to 2 only"),
            "{message}"
        );
        // Names that are other numbers can be meant by position, or as the labels themselves.
        let message = assigned(&rows, Some(Classes::of(["0", "10", "2"]))).unwrap_err().to_string();
        assert!(message.contains("by other numbers (0 is \"0\", 1 is \"10\", 2 is \"2\")"), "{message}");
        assert_eq!(assigned(&rows, None).unwrap().1.name(10), "10");
    }
}
