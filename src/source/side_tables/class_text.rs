//! Files with text for classes: their descriptions, and their names in prompts.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use unicode_normalization::UnicodeNormalization;

use super::super::error::{Result, SourceError};
use crate::{error::text::shorten_to, limited_read};

/// The extension of a file of JSON Lines.
const JSON_LINES: &str = "jsonl";
/// Characters of a class or of a message about JSON, which repeats the string that was found, whatever its length.
const MAX_SHOWN_CHARS: usize = 200;
/// The keys that name the files.
const DESCRIPTIONS: &str = "`prompts.descriptions`";
const COMMON_NAMES: &str = "`prompts.common_names`";

/// One line of a file of JSON Lines. The last line of a class counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The class, as in `images`.
    pub(crate) class_name: String,
    /// Its descriptions: at least one, none blank.
    pub(crate) texts: Vec<String>,
    /// The model that wrote them; `None` if a person did.
    pub(crate) model: Option<String>,
    /// The day, in UTC, as `2026-11-23`.
    pub(crate) date: Option<String>,
    /// A digest of the request to the model; `None` if there was none.
    pub(crate) request: Option<String>,
}

/// Reads a JSON file. `expected` describes its format.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, or has another format.
pub(in crate::source) fn read_json<T: DeserializeOwned>(path: &Path, key: &'static str, expected: &str) -> Result<T> {
    limited_read::parse(&read_text(path, key)?)
        .map_err(|error| invalid(path, key, format!("it is not {expected}: {}", json_problem(&error))))
}

/// Reads a text file.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large, or is not UTF-8.
pub(in crate::source) fn read_text(path: &Path, key: &'static str) -> Result<String> {
    limited_read::read_text(path, limited_read::TABLE).map_err(|source| SourceError::ReadFile {
        path: path.to_owned(),
        key,
        source,
    })
}

fn invalid(path: &Path, key: &'static str, problem: String) -> SourceError {
    SourceError::InvalidFile { path: path.to_owned(), key, problem }
}

/// Returns the message of a JSON error, short and on one line, with the position at its end.
fn json_problem(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&position) {
        Some(problem) => shorten_to(problem, MAX_SHOWN_CHARS) + &position,
        None => shorten_to(&message, MAX_SHOWN_CHARS),
    }
}

/// Reads the descriptions of classes: a JSON object, or the JSON Lines that `discl-pipe prompts` writes.
///
/// # Errors
/// Returns an error if the file cannot be read, or a class has no list of descriptions that are not blank.
pub(in crate::source) fn read_descriptions(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let key = DESCRIPTIONS;
    if path.extension().is_none_or(|extension| extension != JSON_LINES) {
        let found: BTreeMap<String, Vec<String>> =
            read_json(path, key, "an object from class name to a list of strings")?;
        return match found.iter().find(|(_, texts)| has_blank(texts)) {
            None => Ok(composed(found)),
            Some((class, _)) => Err(invalid(path, key, without_description(class))),
        };
    }
    let lines = lines(&read_text(path, key)?).map_err(|problem| {
        invalid(path, key, format!("{problem}\nhint: `discl-pipe prompts` repairs a last line that is cut off"))
    })?;
    Ok(composed(lines.into_iter().map(|line| (line.class_name, line.texts))))
}

/// Returns the values by the names of their classes, in the form of Unicode that the names have in tables.
fn composed<T>(of_classes: impl IntoIterator<Item = (String, T)>) -> BTreeMap<String, T> {
    of_classes.into_iter().map(|(class, value)| (class.nfc().collect(), value)).collect()
}

/// Parses the lines of JSON Lines in their order, and skips blank ones.
///
/// # Errors
/// Returns the problem of the first invalid line.
pub(crate) fn lines(text: &str) -> Result<Vec<Line>, String> {
    let filled = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let parsed = filled.map(|(number, line)| {
        let expected = "is not an object with `class_name` and `texts`, a list of strings that are not blank";
        match limited_read::parse::<Line>(line) {
            Ok(line) if has_blank(&line.texts) => {
                Err(format!("line {number}: {}", without_description(&line.class_name)))
            }
            Ok(line) => Ok(line),
            Err(error) => Err(format!("line {number} {expected}: {}", json_problem(&error))),
        }
    });
    parsed.collect()
}

fn has_blank(texts: &[String]) -> bool {
    texts.is_empty() || texts.iter().any(|text| text.trim().is_empty())
}

fn without_description(class: &str) -> String {
    format!("class `{}` has no description, or a blank one", shorten_to(class, MAX_SHOWN_CHARS))
}

/// Reads the names of classes in prompts: a JSON object.
///
/// # Errors
/// Returns an error if the file cannot be read, is not an object from class name to name, or a name is blank or has
/// control characters.
pub(in crate::source) fn read_common_names(path: &Path) -> Result<BTreeMap<String, String>> {
    let key = COMMON_NAMES;
    let names: BTreeMap<String, String> = read_json(path, key, "an object from class name to the name in prompts")?;
    let is_bad = |name: &str| name.trim().is_empty() || name.contains(char::is_control);
    match names.iter().find(|(_, name)| is_bad(name)) {
        None => Ok(composed(names)),
        Some((class, _)) => {
            let class = shorten_to(class, MAX_SHOWN_CHARS);
            Err(invalid(path, key, format!("the name of class `{class}` is blank, or has control characters")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_class_counts() {
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            read_descriptions(&path)
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
        let message =
            written("c.jsonl", "{\"class_name\": \"cat\", \"texts\": [\"a\"]}\n{\"cla").unwrap_err().to_string();
        assert!(
            message
                .contains("c.jsonl` (`prompts.descriptions`): line 2 is not an object with `class_name` and `texts`"),
            "{message}"
        );
        assert!(message.contains("hint: `discl-pipe prompts` repairs"), "{message}");
    }

    #[test]
    fn invalid_descriptions_are_reported() {
        assert_eq!(
            lines(r#"{"class_name": "cat", "texts": ["a", " "]}"#).unwrap_err(),
            "line 1: class `cat` has no description, or a blank one"
        );
        assert!(lines("\n[1]").unwrap_err().starts_with("line 2 is not an object"));
        assert_eq!(lines("").unwrap(), []);
    }

    #[test]
    fn messages_about_a_file_stay_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let long = "a\\n".repeat(100_000);
        for text in [format!(r#"{{"cat": "{long}"}}"#), format!(r#"{{"{long}": []}}"#)] {
            std::fs::write(&path, text).unwrap();
            let message = read_descriptions(&path).unwrap_err().to_string();
            assert!(message.chars().count() < 1000 && message.lines().count() == 1, "{message}");
        }
        let message = lines(&format!(r#"{{"class_name": "cat", "texts": "{long}"}}"#)).unwrap_err();
        assert!(message.contains("… at line 1 column ") && message.len() < 1000, "{message}");
        let message = lines(r#"{"class_name": "a\nb", "texts": []}"#).unwrap_err();
        assert_eq!(message, r"line 1: class `a\nb` has no description, or a blank one");
    }
}
