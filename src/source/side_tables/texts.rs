//! Files of texts for classes: their descriptions, and what prompts call them.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::entry::one_line;
use crate::{
    error::{Error, Result},
    limited_read,
};

/// The ending of the name of a file of JSON Lines.
const LINES: &str = "jsonl";

/// Longest message about JSON, in characters: it repeats the text that was met, whatever its length.
const SHOWN_CHARS: usize = 200;

/// One line of a file of JSON Lines. The last line of a class is the one that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The class, as in `images`.
    pub class_name: String,
    /// Its texts, at least one, none blank.
    pub texts: Vec<String>,
    /// The model that wrote them; none where a person did.
    pub model: Option<String>,
    /// The day, in UTC, as `2026-11-23`.
    pub date: Option<String>,
    /// A digest of what the model was asked; none where nobody was.
    pub request: Option<String>,
}

/// What the file at `path` has, which is JSON.
///
/// # Errors
/// Where it cannot be read, is too large, or is not what is `expected`.
pub(in crate::source) fn read_json<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|error| Error::Data(format!("`{}` is not {expected}: {}", path.display(), said(&error))))
}

/// The text of a file of texts or names.
///
/// # Errors
/// Where it cannot be read, is too large, or is no UTF-8.
fn read_text(path: &Path) -> Result<String> {
    limited_read::read_text(path, limited_read::TABLE)
        .map_err(|error| Error::Data(format!("`{}` cannot be read: {error}", path.display())))
}

/// What JSON's reader says, short and on one line, with the place at its end.
fn said(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&place).unwrap_or(&whole);
    one_line(what, SHOWN_CHARS) + if what.len() < whole.len() { place.as_str() } else { "" }
}

/// The texts of classes: a JSON object, or the JSON Lines that `discl-pipe prompts` writes.
///
/// # Errors
/// Where the file is unreadable, or gives a class no list of texts that are not blank.
pub(in crate::source) fn of_classes(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    if path.extension().is_none_or(|ending| ending != LINES) {
        let texts: BTreeMap<String, Vec<String>> = read_json(path, "an object from class name to a list of texts")?;
        return match texts.iter().find(|(_, texts)| blank(texts)) {
            None => Ok(texts),
            Some((class, _)) => Err(Error::Data(format!("`prompts.descriptions`: {}", without_text(class)))),
        };
    }
    let lines = lines(&read_text(path)?).map_err(|wrong| {
        Error::Data(format!(
            "`{}`, {wrong}\nhint: `discl-pipe prompts` mends a last line that is cut off",
            path.display()
        ))
    })?;
    Ok(lines.into_iter().map(|line| (line.class_name, line.texts)).collect())
}

/// The lines of JSON Lines in their order, blank ones left out; or which is none, and why.
pub fn lines(text: &str) -> Result<Vec<Line>, String> {
    let filled = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let parsed = filled.map(|(number, line)| {
        let expected = "is no object with `class_name` and `texts`, a list of texts that are not blank";
        match serde_json::from_str::<Line>(line) {
            Ok(line) if blank(&line.texts) => Err(format!("line {number}: {}", without_text(&line.class_name))),
            Ok(line) => Ok(line),
            Err(error) => Err(format!("line {number} {expected}: {}", said(&error))),
        }
    });
    parsed.collect()
}

fn blank(texts: &[String]) -> bool {
    texts.is_empty() || texts.iter().any(|text| text.trim().is_empty())
}

fn without_text(class: &str) -> String {
    format!("class `{}` has no text, or a blank one", one_line(class, SHOWN_CHARS))
}

/// What prompts call classes: a JSON object.
///
/// # Errors
/// Where the file is unreadable, is not an object from class name to name, or a name is blank or has control characters.
pub(in crate::source) fn common_names(path: &Path) -> Result<BTreeMap<String, String>> {
    let names: BTreeMap<String, String> = read_json(path, "an object from class name to the name in prompts")?;
    let bad = |name: &str| name.trim().is_empty() || name.contains(char::is_control);
    match names.iter().find(|(_, name)| bad(name)) {
        None => Ok(names),
        Some((class, _)) => Err(Error::Data(format!(
            "`prompts.common_names`: the name of class `{}` is blank, or has control characters",
            one_line(class, SHOWN_CHARS)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_class_and_the_last_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            of_classes(&path)
        };
        let object = written("a.json", r#"{"cat": ["a red one"], "dog": ["a wet one", "an old one"]}"#).unwrap();
        let lines = concat!(
            r#"{"class_name": "cat", "texts": ["a blue one"], "model": "m", "date": "2026-11-23", "request": "r"}"#,
            "\n\n",
            r#"{"class_name": "dog", "texts": ["a wet one", "an old one"]}"#,
            "\n",
            r#"{"class_name": "cat", "texts": ["a red one"]}"#,
        );
        assert_eq!(written("b.jsonl", lines).unwrap(), object);
        let said = written("c.jsonl", "{\"class_name\": \"cat\", \"texts\": [\"a\"]}\n{\"cla").unwrap_err().to_string();
        assert!(said.contains("c.jsonl`, line 2 is no object with `class_name` and `texts`"), "{said}");
        assert!(said.contains("hint: `discl-pipe prompts` mends"), "{said}");
    }

    #[test]
    fn texts_that_are_none_are_named() {
        assert_eq!(
            lines(r#"{"class_name": "cat", "texts": ["a", " "]}"#).unwrap_err(),
            "line 1: class `cat` has no text, or a blank one"
        );
        assert!(lines("\n[1]").unwrap_err().starts_with("line 2 is no object"));
        assert_eq!(lines("").unwrap(), []);
    }

    #[test]
    fn what_is_said_of_a_file_stays_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let long = "a\\n".repeat(100_000);
        for text in [format!(r#"{{"cat": "{long}"}}"#), format!(r#"{{"{long}": []}}"#)] {
            std::fs::write(&path, text).unwrap();
            let said = of_classes(&path).unwrap_err().to_string();
            assert!(said.chars().count() < 1000 && said.lines().count() == 1, "{said}");
        }
        let said = lines(&format!(r#"{{"class_name": "cat", "texts": "{long}"}}"#)).unwrap_err();
        assert!(said.contains("… at line 1 column ") && said.len() < 1000, "{said}");
        let said = lines(r#"{"class_name": "a\nb", "texts": []}"#).unwrap_err();
        assert_eq!(said, r"line 1: class `a\nb` has no text, or a blank one");
    }
}
