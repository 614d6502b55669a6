//! The names of classes by number: from the user's file, or from the data set itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use unicode_normalization::UnicodeNormalization;

use super::{
    error::{Result, SourceError},
    label::Label,
    object::{MAX_FIELD_BYTES, MAX_NAME_CHARS},
    side_tables::{read_json, read_text},
};
use crate::error::text::{first_few, quote, shorten_to};

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
    /// Other names for the names of the data set, by these. Keys that are numbers can be meant as names, too.
    renamed: BTreeMap<String, String>,
    origin: NamesOrigin,
}

/// Where names are from.
#[derive(Debug, Clone, Default)]
enum NamesOrigin {
    /// The labels are the names, or the numbers have none.
    #[default]
    Labels,
    /// The metadata of the data set.
    Metadata,
    /// The user's file.
    File(PathBuf),
}

impl Classes {
    /// Numbers the names in their order.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = (0..).zip(names).map(|(label, name)| (label, name.nfc().collect())).collect();
        Self { names, ..Self::default() }
    }

    /// Numbers the names in the metadata of a data set in their order. [`Classes::check_metadata`] checks them.
    pub(super) fn of_metadata(names: &[String]) -> Self {
        Self { origin: NamesOrigin::Metadata, ..Self::of(names.iter().map(String::as_str)) }
    }

    /// Checks the names of metadata, if they are used.
    ///
    /// # Errors
    /// Returns an error if one of them is not a line of text.
    pub(super) fn check_metadata(&self) -> Result<()> {
        self.check_names().map_err(|problem| SourceError::EmbeddedNames { problem })
    }

    /// Reads the user's file: a `.txt` with a name on each line, a `.csv` with the columns `label` or `y` and `name`, or
    /// JSON.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, does not have the format of its extension, or has no name.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let invalid = |problem| SourceError::InvalidFile { path: path.to_owned(), key: KEY, problem };
        let classes = match extension.to_ascii_lowercase().as_str() {
            "txt" => parse_lines(&read_text(path, KEY)?).map_err(invalid)?,
            "csv" => parse_table(&read_text(path, KEY)?).map_err(invalid)?,
            _ => parse_json(read_json(path, KEY, JSON_FORMAT)?).map_err(invalid)?,
        };
        if classes.names.is_empty() && classes.renamed.is_empty() {
            return Err(invalid("it is empty; expected is a name for each class".to_owned()));
        }
        classes.check_names().map_err(invalid)?;
        Ok(classes.of_file(path.to_owned()))
    }

    /// Returns the names as those of the user's file `path`.
    pub(super) fn of_file(self, path: PathBuf) -> Self {
        Self { origin: NamesOrigin::File(path), ..self }
    }

    /// Rejects names that are not one line of text, since they go into prompts and reports.
    ///
    /// # Errors
    /// Returns the problem of the first such name.
    pub(super) fn check_names(&self) -> Result<(), String> {
        let is_bad =
            |name: &str| name.trim().is_empty() || name.len() > MAX_FIELD_BYTES || name.contains(char::is_control);
        let numbered = self.names.iter().map(|(label, name)| (label.to_string(), name));
        let renamed = self.renamed.iter().map(|(class, name)| (quote(class), name));
        match numbered.chain(renamed).find(|(_, name)| is_bad(name)) {
            None => Ok(()),
            Some((class, name)) => Err(format!(
                "class {class} has the name {}, allowed are names that are not blank, without control characters, of \
                 up to {MAX_FIELD_BYTES} bytes",
                quote(name)
            )),
        }
    }

    /// Returns the name of a class, or its number if it has no name.
    pub(super) fn name(&self, label: i64) -> String {
        self.names.get(&label).cloned().unwrap_or_else(|| label.to_string())
    }

    /// Returns the name of a number, if it has one.
    pub(super) fn get(&self, label: i64) -> Option<&str> {
        self.names.get(&label).map(String::as_str)
    }

    /// Returns the names of the user's file or of the metadata that no label of `used` has.
    pub(super) fn unused(&self, used: &BTreeSet<i64>) -> Vec<String> {
        if matches!(self.origin, NamesOrigin::Labels) {
            return Vec::new();
        }
        let numbered = self.names.iter().filter(|(label, _)| !used.contains(label)).map(|(_, name)| name);
        numbered.chain(self.renamed.keys()).cloned().collect()
    }

    /// Returns the text that a digest of the names covers. It is part of fingerprints: never change it.
    pub(super) fn text(&self) -> String {
        let names: Vec<&str> = self.names.values().map(String::as_str).collect();
        if (0..).zip(self.names.keys()).all(|(position, label)| position == *label) {
            return names.join("\n");
        }
        self.names.iter().map(|(label, name)| format!("{label} {name}\n")).collect()
    }

    /// Checks that the user's file or the metadata has exactly one name for the label of the image at `path`. Without a
    /// name, the class would go into prompts as a number.
    ///
    /// # Errors
    /// Returns an error if the label has no name, or several.
    pub(super) fn check(&self, path: &str, label: i64) -> Result<()> {
        let (path, names) = (
            shorten_to(path, MAX_NAME_CHARS),
            match &self.origin {
                NamesOrigin::Labels => return Ok(()),
                NamesOrigin::Metadata => "the metadata of the source".to_owned(),
                NamesOrigin::File(file) => format!("`{}` ({KEY})", file.display()),
            },
        );
        if self.ambiguous.contains(&label) {
            return Err(SourceError::AmbiguousLabel { path, label, names });
        }
        if self.names.contains_key(&label) {
            return Ok(());
        }
        let first = self.names.keys().next().copied().unwrap_or(0);
        let last = self.names.keys().next_back().copied().unwrap_or(0);
        let known = match i64::try_from(self.names.len()) {
            Ok(0) => "gives other names to names, and none to numbers".to_owned(),
            Ok(count) if count == last + 1 => format!("has names for the labels 0 to {last} only"),
            _ => format!("has names for {} other labels, from {first} to {last}", self.names.len()),
        };
        Err(SourceError::UnnamedLabel { path, label, names, known })
    }

    /// Checks that the names can be matched with labels that are numbers. Names that are numbers themselves, but not those
    /// of their classes, may be meant either way.
    pub(super) fn check_numbers(&self) -> Result<()> {
        let own = |(label, name): (&i64, &String)| name.parse::<i64>().is_ok_and(|number| number == *label);
        let NamesOrigin::File(file) = &self.origin else { return Ok(()) };
        let numerals = !self.names.is_empty() && self.names.values().all(|name| name.parse::<u64>().is_ok());
        if !numerals || self.names.iter().all(own) {
            return Ok(());
        }
        let pairs: Vec<String> = self.names.iter().map(|(label, name)| format!("{label} is {}", quote(name))).collect();
        let pairs = first_few(&pairs);
        Err(SourceError::NumbersAsNames { file: file.clone(), pairs })
    }

    /// Returns the names by number alone.
    pub(super) fn numbered(&self) -> Self {
        Self { renamed: BTreeMap::new(), ..self.clone() }
    }

    /// Matches the numbers of a `ClassLabel` with the user's names: by the names that `metadata` has for the numbers, or
    /// by number if that contradicts none of these. Returns the new numbers of `used`, unless all keep theirs, and the
    /// names.
    ///
    /// # Errors
    /// Returns an error if the user's names have some of those of `metadata`, at other numbers.
    pub(super) fn match_metadata(&self, metadata: &Self, used: &BTreeSet<i64>) -> Result<(BTreeMap<i64, i64>, Self)> {
        let named: BTreeMap<i64, &str> =
            used.iter().filter_map(|label| Some((*label, metadata.get(*label)?))).collect();
        let names: Vec<&str> = named.values().copied().collect();
        let all_named = named.len() == used.len();
        if self.names.is_empty() || (all_named && self.renames(&names)) {
            let (positions, mut classes) = self.rename(&names)?;
            let new = |(label, name): (&i64, &&str)| Some((*label, classes.names.get(positions.get(name)?)?.clone()));
            classes.names = named.iter().filter_map(new).collect();
            return Ok((BTreeMap::new(), classes));
        }
        let distinct = names.iter().collect::<BTreeSet<_>>().len() == used.len();
        if distinct && let Ok((numbers, classes)) = self.number_by_name(&names) {
            let new = named.iter().filter_map(|(label, name)| Some((*label, *numbers.get(name)?)));
            return Ok((new.collect(), classes));
        }
        self.check_order(metadata, &names)?;
        self.check_numbers()?;
        Ok((BTreeMap::new(), self.numbered()))
    }

    /// Checks that no name of `metadata` has another number here. `names` are those of its classes with images.
    fn check_order(&self, metadata: &Self, names: &[&str]) -> Result<()> {
        let known: BTreeSet<&str> = self.names.values().map(String::as_str).collect();
        let moved = |label: i64, name: &str| known.contains(name) && self.get(label) != Some(name);
        let moved = metadata.names.iter().filter(|(label, name)| moved(**label, name));
        let pairs: Vec<String> = moved
            .map(|(label, name)| {
                let here = self.get(*label).map_or_else(|| "nothing".to_owned(), quote);
                format!("{label} is {} in the metadata and {here} in the file", quote(name))
            })
            .collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let missing = names.iter().find(|name| !known.contains(**name));
        let missing = missing.map_or_else(String::new, |name| format!(", and the file does not have {}", quote(name)));
        self.refuse(names, format!("{}{missing}", first_few(&pairs)))
    }

    /// Whether every one of `names` has another name.
    fn renames(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.renamed.contains_key(*name))
    }

    /// Numbers the class names of a data set, which are `names` in their order: by these names if they are the same,
    /// otherwise in that order. Returns also the names that the classes get.
    ///
    /// # Errors
    /// Returns an error if only some of the names are the same, the counts differ, or the order is not certain.
    pub(super) fn number<'a>(&self, names: &[&'a str]) -> Result<(BTreeMap<&'a str, i64>, Self)> {
        if self.names.is_empty() || self.renames(names) {
            return self.rename(names);
        }
        let known: BTreeSet<&str> = self.names.values().map(String::as_str).collect();
        let is_other = names.len() == self.names.len() && self.names.contains_key(&0);
        match names.iter().any(|name| known.contains(name)) {
            false if is_other => self.number_in_order(names),
            _ => self.number_by_name(names),
        }
    }

    /// Gives every name its other name, in the order of `names`.
    fn rename<'a>(&self, names: &[&'a str]) -> Result<(BTreeMap<&'a str, i64>, Self)> {
        if let Some(missing) = names.iter().find(|name| !self.renamed.contains_key(**name)) {
            return self.refuse(names, format!("it has no name for {}", quote(missing)));
        }
        let new = names.iter().filter_map(|name| self.renamed.get(*name)).map(String::as_str);
        let mut classes = Self { origin: self.origin.clone(), renamed: self.renamed.clone(), ..Self::of(new) };
        classes.renamed.retain(|class, _| !names.contains(&class.as_str()));
        Ok((names.iter().copied().zip(0..).collect(), classes))
    }

    /// Matches as many other names by their order, if there is only one.
    fn number_in_order<'a>(&self, names: &[&'a str]) -> Result<(BTreeMap<&'a str, i64>, Self)> {
        if has_one_order(names) {
            return Ok((names.iter().copied().zip(self.names.keys().copied()).collect(), self.numbered()));
        }
        let pairs = names.iter().zip(self.names.values());
        let pairs: Vec<String> = pairs.map(|(name, new)| format!("{} is {}", quote(name), quote(new))).collect();
        let problem = "none of them is in it, and they can be sorted in several ways; by bytes,";
        self.refuse(names, format!("{problem} {}", first_few(&pairs)))
    }

    fn number_by_name<'a>(&self, names: &[&'a str]) -> Result<(BTreeMap<&'a str, i64>, Self)> {
        let mut labels: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (label, name) in &self.names {
            labels.entry(name).or_default().push(*label);
        }
        if let Some(missing) = names.iter().find(|name| !labels.contains_key(**name)) {
            let known = names.iter().filter(|name| labels.contains_key(**name)).count();
            return self.refuse(names, format!("it has {known} of them, but not {}", quote(missing)));
        }
        let mut numbers = BTreeMap::new();
        for name in names {
            match labels.get(name).map(Vec::as_slice) {
                Some([label]) => numbers.insert(*name, *label),
                _ => return self.refuse(names, format!("it has {} twice", quote(name))),
            };
        }
        Ok((numbers, self.numbered()))
    }

    fn refuse<T>(&self, names: &[&str], problem: String) -> Result<T> {
        let count = names.len();
        Err(match &self.origin {
            NamesOrigin::File(file) => SourceError::ClassNames { file: file.clone(), count, problem },
            _ => SourceError::MetadataNames { count, problem },
        })
    }
}

/// Whether names have the same order by bytes, without case, and with the numbers in them by value.
fn has_one_order(names: &[&str]) -> bool {
    names.is_sorted()
        && names.is_sorted_by_key(|name| name.to_lowercase())
        && names.is_sorted_by_key(|name| natural(name))
}

/// Returns a key that sorts a name with the numbers in it by value: `a2` before `a10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
    let mut in_digits = false;
    for character in name.to_lowercase().chars() {
        let digit = character.to_digit(10).map(u64::from);
        if digit.is_none() && in_digits {
            parts.push((String::new(), 0));
        }
        in_digits = digit.is_some();
        if let Some((text, number)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(digit),
                None => text.push(character),
            }
        }
    }
    parts
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
        let number = Label::of_text(label).ok().and_then(|label| label.integer()).filter(|number| *number >= 0);
        let label =
            number.ok_or_else(|| format!("line {line} has the label {}, allowed are integers from 0", quote(label)))?;
        if name.is_empty() {
            return Err(format!("line {line} has no name"));
        }
        if classes.names.insert(label, name.nfc().collect()).is_some_and(|other| other != name) {
            classes.ambiguous.insert(label);
        }
    }
    Ok(classes)
}

const JSON_FORMAT: &str = "a list of class names, or an object from number or class to name";

#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum JsonClasses {
    List(Vec<String>),
    // Keys in JSON are strings.
    Named(BTreeMap<String, String>),
}

/// Parses a list, or an object whose keys are numbers or names. Numbers can be left out, as in a table.
pub(super) fn parse_json(value: serde_json::Value) -> Result<Classes, String> {
    let composed = |text: &String| text.nfc().collect::<String>();
    let names = match serde_json::from_value(value).map_err(|_| format!("it is not {JSON_FORMAT}"))? {
        JsonClasses::List(names) => return Ok(Classes::of(names.iter().map(String::as_str))),
        JsonClasses::Named(names) => names,
    };
    let numbers: Option<BTreeMap<i64, String>> =
        names.iter().map(|(key, name)| Some((number(key)?, composed(name)))).collect();
    let renamed = names.iter().map(|(class, name)| (composed(class), composed(name))).collect();
    Ok(Classes { names: numbers.unwrap_or_default(), renamed, ..Classes::default() })
}

/// Returns the value of a key that is a number in its shortest form; `007` is a name.
fn number(key: &str) -> Option<i64> {
    key.parse().ok().filter(|number: &i64| *number >= 0 && number.to_string() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
