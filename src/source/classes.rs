//! The names of classes by number: from the user's file, or from the data set itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    entry::{Entry, Label, MAX_FIELD_BYTES, MAX_NAME_CHARS},
    error::{Result, SourceError},
    side_tables::{read_json, read_text},
};
use crate::error::text::{quote, shorten_to};

/// Columns that can hold the label in a `.csv` file.
const LABEL_COLUMNS: [&str; 2] = ["label", "y"];
/// The key that names the user's file.
const KEY: &str = "`source.classes`";

/// Names by number. Two classes can have the same name.
#[derive(Debug, Clone, Default)]
pub(super) struct Classes {
    names: BTreeMap<i64, String>,
    /// Numbers with more than one name, which no image can have.
    ambiguous: BTreeSet<i64>,
    /// The file that the names are from.
    path: Option<PathBuf>,
}

impl Classes {
    /// Numbers the names in their order.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = (0..).zip(names).map(|(label, name)| (label, name.to_owned())).collect();
        Self { names, ..Self::default() }
    }

    /// Reads the user's file: a `.txt` with a name on each line, a `.csv` with the columns `label` or `y` and `name`, or
    /// JSON.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, does not have the format of its extension, or skips a number.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let invalid = |problem| SourceError::InvalidFile { path: path.to_owned(), key: KEY, problem };
        let classes = match extension.to_ascii_lowercase().as_str() {
            "txt" => parse_lines(&read_text(path, KEY)?).map_err(invalid)?,
            "csv" => parse_table(&read_text(path, KEY)?).map_err(invalid)?,
            _ => parse_json(read_json(path, KEY, JSON_FORMAT)?).map_err(invalid)?,
        };
        classes.check_names().map_err(invalid)?;
        Ok(Self { path: Some(path.to_owned()), ..classes })
    }

    /// Rejects names that are not one line of text, since they go into prompts and reports.
    ///
    /// # Errors
    /// Returns the problem of the first such name.
    pub(super) fn check_names(&self) -> Result<(), String> {
        let is_bad =
            |name: &str| name.trim().is_empty() || name.len() > MAX_FIELD_BYTES || name.contains(char::is_control);
        match self.names.iter().find(|(_, name)| is_bad(name)) {
            None => Ok(()),
            Some((label, name)) => Err(format!(
                "class {label} has the name {}, allowed are names that are not blank, without control characters, of \
                 up to {MAX_FIELD_BYTES} bytes",
                quote(name)
            )),
        }
    }

    /// Returns the name of a class, or its number if it has no name.
    pub(super) fn name(&self, label: i64) -> String {
        self.names.get(&label).cloned().unwrap_or_else(|| label.to_string())
    }

    /// Returns the text that a digest of the names covers. It is part of fingerprints: never change it.
    pub(super) fn text(&self) -> String {
        let names: Vec<&str> = self.names.values().map(String::as_str).collect();
        if (0..).zip(self.names.keys()).all(|(position, label)| position == *label) {
            return names.join("\n");
        }
        self.names.iter().map(|(label, name)| format!("{label} {name}\n")).collect()
    }

    /// Checks that the user's file has exactly one name for the label of the image at `path`. Without a name, the class
    /// would go into prompts as a number.
    ///
    /// # Errors
    /// Returns an error if the label has no name, or several.
    pub(super) fn check(&self, path: &str, label: i64) -> Result<()> {
        let Some(file) = self.path.clone() else { return Ok(()) };
        let path = shorten_to(path, MAX_NAME_CHARS);
        if self.ambiguous.contains(&label) {
            return Err(SourceError::AmbiguousLabel { path, label, file });
        }
        if self.names.contains_key(&label) {
            return Ok(());
        }
        let first = self.names.keys().next().copied().unwrap_or(0);
        let last = self.names.keys().next_back().copied().unwrap_or(0);
        let known = match i64::try_from(self.names.len()) {
            Ok(count) if count == last + 1 => format!("the labels 0 to {last} only"),
            _ => format!("{} other labels, from {first} to {last}", self.names.len()),
        };
        Err(SourceError::UnnamedLabel { path, label, file, known })
    }

    /// Numbers the class names of a data set: by these names if they are the same, otherwise in sorted order.
    ///
    /// # Errors
    /// Returns an error if only some of the names are the same, or the counts differ.
    pub(super) fn number<'a>(&self, names: &BTreeSet<&'a str>) -> Result<BTreeMap<&'a str, i64>> {
        let mut labels: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (label, name) in &self.names {
            labels.entry(name).or_default().push(*label);
        }
        let known = names.iter().filter(|name| labels.contains_key(**name)).count();
        if known == 0 && names.len() == self.names.len() && self.names.contains_key(&0) {
            return Ok(names.iter().copied().zip(self.names.keys().copied()).collect());
        }
        let mut numbers = BTreeMap::new();
        let (mut missing, mut twice) = (None, None);
        for name in names {
            match labels.get(name).map(Vec::as_slice) {
                Some([label]) => {
                    numbers.insert(*name, *label);
                }
                Some(_) => twice = twice.or(Some(*name)),
                None => missing = missing.or(Some(*name)),
            }
        }
        let problem = match (missing, twice) {
            (None, None) => return Ok(numbers),
            (Some(missing), _) => format!("it has {known} of them, but not {}", quote(missing)),
            (None, Some(twice)) => format!("it has {} twice", quote(twice)),
        };
        Err(SourceError::ClassNames { file: self.path.clone().unwrap_or_default(), count: names.len(), problem })
    }
}

/// Returns the number of each entry's class, and the names of the classes: those `given` by the user, or those of the
/// data set.
///
/// Names are numbered in sorted order. If the user's names are the same, their numbers are the user's. If none of them
/// is the same, the user renames the classes.
///
/// # Errors
/// Returns an error if some labels are numbers and some are names, or the user's names do not fit.
pub(super) fn assign_labels(entries: &[Entry], given: Option<Classes>) -> Result<(Vec<i64>, Classes)> {
    let mut numbered = entries.iter().filter_map(|entry| match entry.label {
        Label::Number(number) => Some((&entry.origin, number)),
        Label::Name(_) => None,
    });
    let mut named = entries.iter().filter_map(|entry| Some((&entry.origin, entry.label.name()?)));
    match (numbered.next(), named.next()) {
        (Some((number_origin, number)), Some((name_origin, name))) => Err(SourceError::MixedLabels {
            number: (number_origin.to_string(), number),
            name: (name_origin.to_string(), quote(name)),
        }),
        (first, None) => {
            let labels = first.into_iter().chain(numbered).map(|(_, number)| number).collect();
            Ok((labels, given.unwrap_or_default()))
        }
        (None, Some(_)) => {
            let names: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.label.name()).collect();
            let classes = given.unwrap_or_else(|| Classes::of(names.iter().copied()));
            let numbers = classes.number(&names)?;
            let labels = entries.iter().filter_map(|entry| numbers.get(entry.label.name()?).copied()).collect();
            Ok((labels, classes))
        }
    }
}

fn parse_lines(text: &str) -> Result<Classes, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    if let Some((line, _)) = (1..).zip(text.lines()).find(|(_, name)| name.trim().is_empty()) {
        return Err(format!("line {line} is empty; each line names a class"));
    }
    if let Some((line, _)) = (1..).zip(text.lines()).find(|(_, name)| name.len() > MAX_FIELD_BYTES) {
        return Err(format!("line {line} is longer than {MAX_FIELD_BYTES} bytes"));
    }
    Ok(Classes::of(text.lines().map(str::trim)))
}

/// Parses rows with a label and a name. A label can be repeated or missing as long as no image has it: the table of
/// WILDS gives one number to all animals that are not in its data set.
fn parse_table(text: &str) -> Result<Classes, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|error| format!("it is not valid CSV: {error}"))?.clone();
    let position = |names: &[&str]| headers.iter().position(|header| names.contains(&header));
    let (Some(label), Some(name)) = (position(&LABEL_COLUMNS), position(&["name"])) else {
        let found: Vec<String> = headers.iter().take(50).map(quote).collect();
        return Err(format!("it needs the columns `label` or `y`, and `name`; its columns are {}", found.join(", ")));
    };
    let mut classes = Classes::default();
    for record in reader.records() {
        let record = record.map_err(|error| format!("it is not valid CSV: {error}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        let (label, name) = (record.get(label).unwrap_or_default(), record.get(name).unwrap_or_default().trim());
        let Ok(Label::Number(label)) = Label::parse_number(label) else {
            return Err(format!("line {line} has the label {}, allowed are integers from 0", quote(label)));
        };
        if name.is_empty() {
            return Err(format!("line {line} has no name"));
        }
        if classes.names.insert(label, name.to_owned()).is_some_and(|other| other != name) {
            classes.ambiguous.insert(label);
        }
    }
    Ok(classes)
}

const JSON_FORMAT: &str = "a list of class names, or an object from number to name";

#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum JsonClasses {
    List(Vec<String>),
    // Keys in JSON are strings.
    Numbered(BTreeMap<String, String>),
}

fn parse_json(value: serde_json::Value) -> Result<Classes, String> {
    let other = || format!("it is not {JSON_FORMAT}");
    let numbered = match serde_json::from_value(value).map_err(|_| other())? {
        JsonClasses::List(names) => return Ok(Classes::of(names.iter().map(String::as_str))),
        JsonClasses::Numbered(names) => names,
    };
    let count = numbered.len();
    let numbered = numbered.into_iter().map(|(number, name)| Some((number.parse::<usize>().ok()?, name)));
    let names: BTreeMap<usize, String> = numbered.collect::<Option<_>>().ok_or_else(other)?;
    if names.len() < count {
        return Err("it has a number twice, such as `1` and `01`".to_owned());
    }
    let count = names.keys().next_back().map_or(0, |last| last.saturating_add(1));
    if let Some(missing) = (0..count).find(|number| !names.contains_key(number)) {
        return Err(format!("class {missing} has no name; every number below {count} needs one"));
    }
    Ok(Classes::of(names.values().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::{super::entry::Origin, *};
    use crate::config::Split;

    /// Returns the classes of a file, or the message of its error.
    fn read(name: &str, text: &str) -> Result<Classes, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Classes::read(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_text_file_has_a_name_on_each_line() {
        let classes = read("c.txt", "\u{feff}cat\r\na/b\r\ncat\n\n").unwrap();
        assert_eq!((classes.name(0), classes.name(1), classes.name(2)), ("cat".into(), "a/b".into(), "cat".into()));
        classes.check("p", 2).unwrap();
        let message = classes.check("p", 3).unwrap_err().to_string();
        assert!(
            message.starts_with("`p` has the label 3, and ")
                && message.ends_with("has names for the labels 0 to 2 only"),
            "{message}"
        );
        let message = read("c.txt", "cat\n\ndog").unwrap_err();
        assert_eq!(message, "`FILE` (`source.classes`): line 2 is empty; each line names a class");
    }

    #[test]
    fn a_table_can_leave_numbers_out() {
        // As in WILDS, animals that are not in the data set share a number.
        let wilds = "y,category_id,name\n1,3,\"cow, wild\"\n0,0,empty\n99999,5,bear\n99999,6,wolf\n";
        let classes = read("c.csv", wilds).unwrap();
        assert_eq!(classes.name(1), "cow, wild");
        classes.check("p", 1).unwrap();
        assert!(classes.check("p", 99_999).unwrap_err().to_string().ends_with("has several names"));
        let message = classes.check("p", 7).unwrap_err().to_string();
        assert!(message.ends_with("has names for 3 other labels, from 0 to 99999"), "{message}");
        assert_ne!(classes.text(), read("c.csv", "label,name\n0,empty\n1,\"cow, wild\"\n2,wolf\n").unwrap().text());
        assert_eq!(read("c.csv", "label,name\n1,b\n0,a").unwrap().text(), "a\nb");
        let message = |text| read("c.csv", text).unwrap_err();
        assert_eq!(
            message("id,name\n"),
            "`FILE` (`source.classes`): it needs the columns `label` or `y`, and `name`; its columns are \"id\", \"name\""
        );
        assert_eq!(
            message("y,name\n0,a\nx,b\n"),
            "`FILE` (`source.classes`): line 3 has the label \"x\", allowed are integers from 0"
        );
        assert_eq!(message("y,name\n0,\n"), "`FILE` (`source.classes`): line 2 has no name");
        assert!(message("y,name\n0\n").contains("it is not valid CSV"));
    }

    #[test]
    fn a_name_is_a_line_of_text() {
        let message = |name, text: &str| read(name, text).unwrap_err();
        assert_eq!(
            message("c.json", r#"["cat", "a\nb"]"#),
            "`FILE` (`source.classes`): class 1 has the name \"a\\nb\", allowed are names that are not blank, without \
             control characters, of up to 65536 bytes"
        );
        assert!(message("c.txt", "cat\nn01\ttench").contains("class 1 has the name \"n01\\ttench\""));
        for (name, text) in [("c.json", r#"[" "]"#), ("c.csv", "y,name\n0,\"a\nb\"\n"), ("c.json", r#"{"0": ""}"#)] {
            assert!(message(name, text).contains(": class 0 has the name "), "{text}");
        }
        let many: Vec<String> = (0..100_000).map(|column| column.to_string()).collect();
        assert!(message("c.csv", &many.join(",")).len() < 1000);
        let twice = r#"{"0": "cat", "00": "dog"}"#;
        assert_eq!(message("c.json", twice), "`FILE` (`source.classes`): it has a number twice, such as `1` and `01`");
    }

    fn entry(path: &str, label: Label, line: u64) -> Entry {
        let origin = Origin { file: "l.txt".into(), line: Some(line) };
        Entry { path: path.into(), label, split: Split::Train, origin, version: None }
    }

    #[test]
    fn class_names_are_numbered_in_sorted_order() {
        let name = |text: &str| Label::Name(text.into());
        let rows = [entry("a", name("cat/dog"), 1), entry("b", name("ant"), 2), entry("c", name("cat/dog"), 3)];
        let (labels, classes) = assign_labels(&rows, None).unwrap();
        assert_eq!(labels, [1, 0, 1]);
        assert_eq!(classes.name(1), "cat/dog");
        let (labels, _) = assign_labels(&rows, Some(Classes::of(["cat/dog", "bee", "ant"]))).unwrap();
        assert_eq!(labels, [0, 2, 0]);
        let (labels, classes) = assign_labels(&rows, Some(Classes::of(["an ant", "a cat"]))).unwrap();
        assert_eq!((labels, classes.name(0)), (vec![1, 0, 1], "an ant".into()));
        for wrong in [&["ant", "a cat"][..], &["x", "y", "z"], &["ant", "ant", "cat/dog"]] {
            assign_labels(&rows, Some(Classes::of(wrong.iter().copied()))).unwrap_err();
        }
        let mixed = [entry("a", Label::Number(1), 1), entry("b", name("ant"), 2)];
        let message = assign_labels(&mixed, None).unwrap_err().to_string();
        assert!(message.ends_with("`l.txt`:1 has 1, `l.txt`:2 has \"ant\""), "{message}");
    }
}
