//! The names of classes, by number: the user's file, or what the data set itself says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    entry::{Label, MAX_FIELD_BYTES, MAX_NAME_CHARS, one_line, quote},
    side_tables::read_json,
};
use crate::{
    error::{Error, Result},
    limited_read,
};

/// Columns that a `.csv` may have for the label.
const LABEL_COLUMNS: [&str; 2] = ["label", "y"];

/// Names by number. Two classes may share a name.
#[derive(Debug, Clone, Default)]
pub(super) struct Classes {
    names: BTreeMap<i64, String>,
    /// Numbers with more than one name, which no image may have.
    unclear: BTreeSet<i64>,
    /// The file that they are from.
    path: Option<PathBuf>,
}

impl Classes {
    /// Names in the order of their numbers.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = (0..).zip(names).map(|(label, name)| (label, name.to_owned())).collect();
        Self { names, ..Self::default() }
    }

    /// The user's: a `.txt` with a name on each line, a `.csv` with the columns `label` or `y` and `name`, or JSON.
    ///
    /// # Errors
    /// Where the file is unreadable, is not what its ending says, or leaves out a number.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        let wrong = |what: String| Error::Data(format!("`{}` (`source.classes`){what}", path.display()));
        let read = || {
            limited_read::read_text(path, limited_read::TABLE)
                .map_err(|error| wrong(format!(" cannot be read: {error}")))
        };
        let classes = match ending.as_str() {
            "txt" => of_lines(&read()?).map_err(wrong)?,
            "csv" => of_table(&read()?).map_err(wrong)?,
            _ => of_json(path)?,
        };
        classes.check_names().map_err(|said| wrong(format!(": {said}")))?;
        Ok(Self { path: Some(path.to_owned()), ..classes })
    }

    /// Refuses names that are no line of text: they go into prompts and reports.
    pub(super) fn check_names(&self) -> Result<(), String> {
        let bad =
            |name: &str| name.trim().is_empty() || name.len() > MAX_FIELD_BYTES || name.contains(char::is_control);
        match self.names.iter().find(|(_, name)| bad(name)) {
            None => Ok(()),
            Some((label, name)) => Err(format!(
                "class {label} has the name {}, allowed are names that are not blank, without control characters, of \
                 up to {MAX_FIELD_BYTES} bytes",
                quote(name)
            )),
        }
    }

    /// The name of a class, or its number where it has none.
    pub(super) fn name(&self, label: i64) -> String {
        self.names.get(&label).cloned().unwrap_or_else(|| label.to_string())
    }

    /// What a digest of them covers.
    pub(super) fn text(&self) -> String {
        let names: Vec<&str> = self.names.values().map(String::as_str).collect();
        if (0..).zip(self.names.keys()).all(|(place, label)| place == *label) {
            return names.join("\n");
        }
        self.names.iter().map(|(label, name)| format!("{label} {name}\n")).collect()
    }

    /// A file of names that lacks one is an error: its class would go into prompts as a number.
    ///
    /// # Errors
    /// Where the label of the image at `path` has no name, or several.
    pub(super) fn check(&self, path: &str, label: i64) -> Result<()> {
        let Some(file) = &self.path else { return Ok(()) };
        let (file, path) = (file.display(), one_line(path, MAX_NAME_CHARS));
        if self.unclear.contains(&label) {
            let what =
                format!("`{path}` has the label {label}, for which `{file}` (`source.classes`) has several names");
            return Err(Error::Data(what));
        }
        if self.names.contains_key(&label) {
            return Ok(());
        }
        let last = self.names.keys().next_back().copied().unwrap_or(0);
        let known = match i64::try_from(self.names.len()) {
            Ok(count) if count == last + 1 => format!("the labels 0 to {last} only"),
            _ => {
                format!("{} other labels, from {} to {last}", self.names.len(), self.names.keys().next().unwrap_or(&0))
            }
        };
        Err(Error::Data(format!("`{path}` has the label {label}, and `{file}` (`source.classes`) names {known}")))
    }

    /// The number of each of a data set's class names, sorted: where it is one of these, that name's; else its place.
    ///
    /// # Errors
    /// Where some are names and some are not, or there are not as many.
    pub(super) fn assign_labels<'a>(&self, texts: &BTreeSet<&'a str>) -> Result<BTreeMap<&'a str, i64>> {
        let mut places: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (label, name) in &self.names {
            places.entry(name).or_default().push(*label);
        }
        let known = texts.iter().filter(|text| places.contains_key(**text)).count();
        if known == 0 && texts.len() == self.names.len() && self.names.contains_key(&0) {
            return Ok(texts.iter().copied().zip(self.names.keys().copied()).collect());
        }
        let mut numbers = BTreeMap::new();
        let (mut missing, mut twice) = (None, None);
        for text in texts {
            match places.get(text).map(Vec::as_slice) {
                Some([label]) => {
                    numbers.insert(*text, *label);
                }
                Some(_) => twice = twice.or(Some(*text)),
                None => missing = missing.or(Some(*text)),
            }
        }
        let why = match (missing, twice) {
            (None, None) => return Ok(numbers),
            (Some(missing), _) => format!("it has {known} of them, and not {}", quote(missing)),
            (None, Some(twice)) => format!("it has {} twice", quote(twice)),
        };
        Err(Error::Data(format!(
            "`{}` (`source.classes`) does not fit the {} class names of the source: {why}; allowed are exactly these names \
             in any order, or as many others in the sorted order of these",
            self.path.as_deref().unwrap_or(Path::new("")).display(),
            texts.len()
        )))
    }
}

/// A name on each line.
fn of_lines(text: &str) -> Result<Classes, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    if let Some((line, _)) = (1..).zip(text.lines()).find(|(_, name)| name.trim().is_empty()) {
        return Err(format!(": line {line} is empty; each line names a class"));
    }
    if let Some((line, _)) = (1..).zip(text.lines()).find(|(_, name)| name.len() > MAX_FIELD_BYTES) {
        return Err(format!(": line {line} is longer than {MAX_FIELD_BYTES} bytes"));
    }
    Ok(Classes::of(text.lines().map(str::trim)))
}

/// Rows with a label and a name. A label may stand several times, and be left out, as long as no image has it: WILDS'
/// own table gives all animals that are not in its data set one number.
fn of_table(text: &str) -> Result<Classes, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|error| format!(" is no CSV: {error}"))?.clone();
    let place = |names: &[&str]| headers.iter().position(|header| names.contains(&header));
    let (Some(label), Some(name)) = (place(&LABEL_COLUMNS), place(&["name"])) else {
        let found: Vec<String> = headers.iter().take(50).map(quote).collect();
        return Err(format!(" needs the columns `label` or `y`, and `name`; its columns are {}", found.join(", ")));
    };
    let mut classes = Classes::default();
    for record in reader.records() {
        let record = record.map_err(|error| format!(" is no CSV: {error}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        let (label, name) = (record.get(label).unwrap_or_default(), record.get(name).unwrap_or_default().trim());
        let Ok(Label::Number(label)) = Label::number(label) else {
            return Err(format!(": line {line} has the label {}, allowed are integers from 0", quote(label)));
        };
        if name.is_empty() {
            return Err(format!(": line {line} has no name"));
        }
        if classes.names.insert(label, name.to_owned()).is_some_and(|other| other != name) {
            classes.unclear.insert(label);
        }
    }
    Ok(classes)
}

/// A JSON list, or an object from number to name.
fn of_json(path: &Path) -> Result<Classes> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Json {
        List(Vec<String>),
        // JSON's keys are texts
        Numbered(BTreeMap<String, String>),
    }
    const EXPECTED: &str = "a list of class names, or an object from number to name";
    let value: serde_json::Value = read_json(path, EXPECTED)?;
    let other = || Error::Data(format!("`{}` (`source.classes`) is not {EXPECTED}", path.display()));
    match serde_json::from_value(value).map_err(|_| other())? {
        Json::List(names) => Ok(Classes::of(names.iter().map(String::as_str))),
        Json::Numbered(names) => {
            let numbered = names.into_iter().map(|(number, name)| Some((number.parse::<usize>().ok()?, name)));
            let numbered: Vec<(usize, String)> = numbered.collect::<Option<_>>().ok_or_else(other)?;
            let given = numbered.len();
            let names: BTreeMap<usize, String> = numbered.into_iter().collect();
            if names.len() < given {
                return Err(Error::Data(format!(
                    "`{}` (`source.classes`) has a number twice, such as `1` and `01`",
                    path.display()
                )));
            }
            let count = names.keys().next_back().map_or(0, |last| last.saturating_add(1));
            if count > names.len() {
                let missing = (0..count).find(|number| !names.contains_key(number)).unwrap_or(0);
                return Err(Error::Data(format!(
                    "`{}` (`source.classes`): class {missing} has no name; every number below {count} needs one",
                    path.display()
                )));
            }
            Ok(Classes::of(names.values().map(String::as_str)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classes of a file, or what is said of it.
    fn read(name: &str, text: &str) -> Result<Classes, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Classes::read(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_text_has_a_name_on_each_line() {
        let classes = read("c.txt", "\u{feff}cat\r\na/b\r\ncat\n\n").unwrap();
        assert_eq!((classes.name(0), classes.name(1), classes.name(2)), ("cat".into(), "a/b".into(), "cat".into()));
        classes.check("p", 2).unwrap();
        let said = classes.check("p", 3).unwrap_err().to_string();
        assert!(
            said.starts_with("`p` has the label 3, and ") && said.ends_with("names the labels 0 to 2 only"),
            "{said}"
        );
        let said = read("c.txt", "cat\n\ndog").unwrap_err();
        assert_eq!(said, "`FILE` (`source.classes`): line 2 is empty; each line names a class");
    }

    #[test]
    fn a_table_may_leave_numbers_out() {
        // as WILDS has it: animals that are not in the data set share a number
        let wilds = "y,category_id,name\n1,3,\"cow, wild\"\n0,0,empty\n99999,5,bear\n99999,6,wolf\n";
        let classes = read("c.csv", wilds).unwrap();
        assert_eq!(classes.name(1), "cow, wild");
        classes.check("p", 1).unwrap();
        assert!(classes.check("p", 99_999).unwrap_err().to_string().ends_with("has several names"));
        let said = classes.check("p", 7).unwrap_err().to_string();
        assert!(said.ends_with("names 3 other labels, from 0 to 99999"), "{said}");
        assert_ne!(classes.text(), read("c.csv", "label,name\n0,empty\n1,\"cow, wild\"\n2,wolf\n").unwrap().text());
        assert_eq!(read("c.csv", "label,name\n1,b\n0,a").unwrap().text(), "a\nb");
        let said = |text| read("c.csv", text).unwrap_err();
        assert_eq!(
            said("id,name\n"),
            "`FILE` (`source.classes`) needs the columns `label` or `y`, and `name`; its columns are \"id\", \"name\""
        );
        assert_eq!(
            said("y,name\n0,a\nx,b\n"),
            "`FILE` (`source.classes`): line 3 has the label \"x\", allowed are integers from 0"
        );
        assert_eq!(said("y,name\n0,\n"), "`FILE` (`source.classes`): line 2 has no name");
        assert!(said("y,name\n0\n").contains("is no CSV"));
    }

    #[test]
    fn a_name_is_a_line_of_text() {
        let said = |name, text: &str| read(name, text).unwrap_err();
        assert_eq!(
            said("c.json", r#"["cat", "a\nb"]"#),
            "`FILE` (`source.classes`): class 1 has the name \"a\\nb\", allowed are names that are not blank, without \
             control characters, of up to 65536 bytes"
        );
        assert!(said("c.txt", "cat\nn01\ttench").contains("class 1 has the name \"n01\\ttench\""));
        for (name, text) in [("c.json", r#"[" "]"#), ("c.csv", "y,name\n0,\"a\nb\"\n"), ("c.json", r#"{"0": ""}"#)] {
            assert!(said(name, text).contains(": class 0 has the name "), "{text}");
        }
        let many: Vec<String> = (0..100_000).map(|column| column.to_string()).collect();
        assert!(said("c.csv", &many.join(",")).len() < 1000);
        let twice = r#"{"0": "cat", "00": "dog"}"#;
        assert_eq!(said("c.json", twice), "`FILE` (`source.classes`) has a number twice, such as `1` and `01`");
    }
}
