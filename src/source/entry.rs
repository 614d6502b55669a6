//! The images that a data set names: where, with which label, and what is wrong with that.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    fmt,
    sync::Arc,
};

use super::{classes::Classes, object::Version};
use crate::{
    config::Split,
    error::{Error, Result},
};

/// Longest line or field, in bytes.
pub(super) const MAX_FIELD_BYTES: usize = 64 << 10;
/// Problems that a message shows; the others are counted.
const SHOWN: usize = 10;
/// Longest piece of a data set's text that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;
/// Longest name of a file that a message has, in characters: as long as stores allow.
pub(super) const MAX_NAME_CHARS: usize = 1024;

/// An image that a data set names.
#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the source's root; it passed [`relative_path`].
    pub(super) path: String,
    pub(super) label: Label,
    pub(super) split: Split,
    pub(super) origin: Origin,
    /// The version of its file, where it is known from the start.
    pub(super) version: Option<Version>,
}

/// A class, as the data set has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    /// Its number, from 0.
    Number(i64),
    /// Its name; it is numbered when all names are known.
    Text(String),
}

impl Label {
    /// A field of a table.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.parse::<i64>() {
            Ok(number) => Self::of_number(number),
            Err(_) if text.is_empty() => Err("it has no label; every image needs one".into()),
            Err(_) if text.contains(char::is_control) => {
                Err(format!("found the label {}, allowed are no control characters", quote(text)))
            }
            Err(_) => Ok(Self::Text(text.to_owned())),
        }
    }

    /// A text that has to be a number.
    pub(super) fn number(text: &str) -> Result<Self, String> {
        match Self::of_text(text)? {
            Self::Text(text) => Err(format!("found the label {}, allowed are integers from 0", quote(&text))),
            number => Ok(number),
        }
    }

    fn of_number(number: i64) -> Result<Self, String> {
        let wrong = || format!("found the label {number}, allowed are integers from 0");
        if number < 0 { Err(wrong()) } else { Ok(Self::Number(number)) }
    }

    /// A field of a JSON object.
    pub(super) fn of_json(object: &serde_json::Value, field: &str) -> Result<Self, String> {
        match object.get(field) {
            Some(serde_json::Value::String(text)) => Self::of_text(text),
            Some(value) if value.is_i64() => Self::of_number(value.as_i64().unwrap_or(-1)),
            Some(value) => {
                Err(format!("found the label {}, allowed are integers from 0 and texts", quote(&value.to_string())))
            }
            None => Err(format!("it has no field `{field}`; every image needs a label")),
        }
    }
}

/// Where a data set names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) file: Arc<str>,
    /// Counted from 1; none in files without lines.
    pub(super) line: Option<u64>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // a file that a store lists may be called anything
        let file = one_line(&self.file, MAX_NAME_CHARS);
        match self.line {
            Some(line) => write!(f, "`{file}`:{line}"),
            None => write!(f, "`{file}`"),
        }
    }
}

/// What is wrong with a data set: the first few, and how many.
#[derive(Debug, Default)]
pub(super) struct Problems {
    first: Vec<String>,
    count: usize,
}

impl Problems {
    pub(super) fn add(&mut self, origin: &Origin, what: impl fmt::Display) {
        if self.first.len() < SHOWN {
            self.first.push(format!("\n  {origin}: {what}"));
        }
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The error that they make.
    pub(super) fn finish(self) -> Result<()> {
        let first = match self.count {
            0 => return Ok(()),
            1 => "the source names an image wrongly:".to_owned(),
            count if count <= SHOWN => format!("the source names images wrongly, {count} times:"),
            count => format!("the source names images wrongly, {count} times; the first {SHOWN}:"),
        };
        Err(Error::Data(first + &self.first.concat()))
    }
}

/// A text of a data set in double quotes, short and on one line.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", one_line(text, SHOWN_CHARS))
}

/// Up to `most` characters of a text, on one line: control characters are shown as escapes.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(most) {
        match character.is_control() {
            true => shown.extend(character.escape_debug()),
            false => shown.push(character),
        }
    }
    shown + if text.chars().nth(most).is_some() { "…" } else { "" }
}

/// The path of an image as a data set has it, without a `./` before it.
///
/// # Errors
/// Where it is none that stays below the source's root, on every system.
pub(super) fn relative_path(path: &str) -> Result<&str, String> {
    let inner = path.trim_start_matches("./");
    let drive = matches!(inner.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    let wrong_part = inner.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !drive && !wrong_part && !inner.contains('\\') && !inner.contains(char::is_control) {
        return Ok(inner);
    }
    Err(format!(
        "found the path {}, allowed are paths relative to `source.root` with `/`, without empty, `.` or `..` parts, \
         drive letters, backslashes and control characters",
        quote(path)
    ))
}

/// Sees that no image is named twice: it would be in two splits, or count twice.
pub(super) fn refuse_twice(named: &[Entry], problems: &mut Problems) {
    let mut seen: HashMap<&str, &Entry> = HashMap::with_capacity(named.len());
    for row in named {
        match seen.entry(&row.path) {
            hash_map::Entry::Vacant(place) => {
                place.insert(row);
            }
            hash_map::Entry::Occupied(first) => {
                let first = first.get();
                let (split, theirs) = (row.split.as_str(), first.split.as_str());
                let what = match split == theirs {
                    true => format!("of {split} is in {} already", first.origin),
                    false => format!("of {split} is in {} already, of {theirs}", first.origin),
                };
                problems.add(&row.origin, format!("{} {what}; an image may be named once", quote(&row.path)));
            }
        }
    }
}

/// The number of each row's class, and the names of the classes: `given` by the user, or those of the data set.
///
/// Texts are numbered in sorted order. Where the user's names are these texts, their numbers are the user's; where none
/// of them is, the user renames the classes.
///
/// # Errors
/// Where some labels are numbers and some texts, or texts and the user's names do not fit.
pub(super) fn assign_labels(named: &[Entry], given: Option<Classes>) -> Result<(Vec<i64>, Classes)> {
    let text = |row: &&Entry| matches!(row.label, Label::Text(_));
    let (first_text, first_number) = (named.iter().find(text), named.iter().find(|row| !text(row)));
    if let (Some(text), Some(number)) = (first_text, first_number) {
        return Err(Error::Data(format!(
            "some labels of the source are integers and some are texts; allowed are integers for all images, or class \
             names for all: {} has {}, {} has {}",
            number.origin,
            shown(&number.label),
            text.origin,
            shown(&text.label)
        )));
    }
    if first_text.is_none() {
        let number = |row: &Entry| if let Label::Number(number) = row.label { number } else { -1 };
        return Ok((named.iter().map(number).collect(), given.unwrap_or_default()));
    }
    let texts: BTreeSet<&str> = named.iter().filter_map(|row| of_text(&row.label)).collect();
    let (numbers, classes) = match given {
        None => ((0..).zip(&texts).map(|(n, text)| (*text, n)).collect(), Classes::of(texts.iter().copied())),
        Some(given) => (given.assign_labels(&texts)?, given),
    };
    let numbers: BTreeMap<&str, i64> = numbers;
    let labels = named.iter().filter_map(|row| numbers.get(of_text(&row.label)?).copied()).collect();
    Ok((labels, classes))
}

fn of_text(label: &Label) -> Option<&str> {
    if let Label::Text(text) = label { Some(text) } else { None }
}

fn shown(label: &Label) -> String {
    match label {
        Label::Number(number) => number.to_string(),
        Label::Text(text) => quote(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, label: Label, line: u64) -> Entry {
        let origin = Origin { file: "l.txt".into(), line: Some(line) };
        Entry { path: path.into(), label, split: Split::Train, origin, version: None }
    }

    #[test]
    fn paths_stay_below_the_root() {
        for sound in ["a", "a/b.jpg", "a b/c%20#~?[x].png", "ö/12:30.jpg", "..a/b..", "e\u{301}"] {
            assert_eq!(relative_path(sound), Ok(sound));
        }
        assert_eq!(relative_path("./a/b.jpg"), Ok("a/b.jpg"));
        let wrong = [
            "", ".", "..", "../a", "a/..", "a/../b", "a/./b", "/a", "//a", "a//b", "a/", "C:/a", "c:a", "a\\b", "a\0b",
            "a\tb", "./",
        ];
        for wrong in wrong {
            assert!(relative_path(wrong).is_err(), "{wrong:?}");
        }
        assert!(relative_path("a\u{1b}[31m").unwrap_err().contains(r#""a\u{1b}[31m""#));
    }

    #[test]
    fn labels_are_numbers_or_names() {
        assert_eq!(Label::of_text(" 7 "), Ok(Label::Number(7)));
        assert_eq!(Label::of_text("7a"), Ok(Label::Text("7a".into())));
        assert!(Label::of_text("-1").unwrap_err().contains("found the label -1"));
        assert!(Label::of_text(" ").unwrap_err().contains("no label"));
        assert!(Label::of_text("a\u{7}b").is_err());
        assert!(Label::number("cat").unwrap_err().contains("integers from 0"));
        let object = serde_json::json!({"i": 3, "t": "cat", "f": 1.5, "n": null, "m": -2});
        assert_eq!(Label::of_json(&object, "i"), Ok(Label::Number(3)));
        assert_eq!(Label::of_json(&object, "t"), Ok(Label::Text("cat".into())));
        for field in ["f", "n", "m", "absent"] {
            assert!(Label::of_json(&object, field).is_err(), "{field}");
        }
    }

    #[test]
    fn texts_are_numbered_in_sorted_order() {
        let text = |text: &str| Label::Text(text.into());
        let rows = [row("a", text("cat/dog"), 1), row("b", text("ant"), 2), row("c", text("cat/dog"), 3)];
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
        let mixed = [row("a", Label::Number(1), 1), row("b", text("ant"), 2)];
        let said = assign_labels(&mixed, None).unwrap_err().to_string();
        assert!(said.ends_with("`l.txt`:1 has 1, `l.txt`:2 has \"ant\""), "{said}");
    }

    #[test]
    fn problems_are_counted() {
        let mut problems = Problems::default();
        let rows: Vec<Entry> = (0..14).map(|line| row("a/b", Label::Number(0), line)).collect();
        refuse_twice(&rows, &mut problems);
        let said = problems.finish().unwrap_err().to_string();
        assert!(said.starts_with("the source names images wrongly, 13 times; the first 10:\n"), "{said}");
        assert!(
            said.contains("`l.txt`:1: \"a/b\" of train is in `l.txt`:0 already; an image may be named once"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 11);
        Problems::default().finish().unwrap();
    }

    #[test]
    fn a_file_may_be_called_anything() {
        let origin = Origin { file: "a\u{85}\n".repeat(1000).into(), line: None };
        let mut problems = Problems::default();
        problems.add(&origin, "no");
        let said = problems.finish().unwrap_err().to_string();
        assert_eq!(said.lines().count(), 2);
        assert!(said.contains(r"`a\u{85}\na") && said.ends_with("…`: no"), "{said}");
        assert!(!said.replace('\n', "").contains(char::is_control), "{said}");
    }
}
