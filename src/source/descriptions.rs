//! The texts per class of the generation prompt: a JSON object, or the JSON Lines that `discl-pipe prompts` writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};
use serde::{Deserialize, Serialize};

use super::{Source, read_json};
use crate::{
    config::Config,
    error::{Error, Result},
    identity::Digest,
    schema,
};

/// The ending of the name of a file of JSON Lines.
const LINES: &str = "jsonl";

/// The texts per class of the generation prompt.
#[derive(Debug, Clone)]
pub struct Descriptions {
    /// The table `descriptions`.
    pub rows: RecordBatch,
    /// A digest of it.
    pub digest: String,
    /// Those with texts; none where the pipeline names no file.
    classes: Option<BTreeSet<String>>,
}

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

/// The texts per class of the generation prompt: the table `descriptions`.
///
/// # Errors
/// Where the file is unreadable, or gives a class no list of texts that are not blank.
pub fn descriptions(config: &Config) -> Result<Descriptions> {
    let path = config.prompts.descriptions.as_deref();
    let texts = path.map(read).transpose()?.unwrap_or_default();
    if let Some((class, _)) = texts.iter().find(|(_, texts)| blank(texts)) {
        return Err(Error::Data(format!("`prompts.descriptions`: class `{class}` has no text, or a blank one")));
    }
    let names: StringArray = texts.keys().map(Some).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut digest = Digest::new("descriptions");
    for (class, texts) in &texts {
        digest = digest.text(class).part(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            digest = digest.text(text);
            lists.values().append_value(text);
        }
        lists.append(true);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(lists.finish())];
    let table = schema::find(schema::DESCRIPTIONS).map(|table| Arc::clone(&table.schema));
    let table = table.ok_or_else(|| Error::Data("no schema of `descriptions`".into()))?;
    let batch = RecordBatch::try_new(table, columns)
        .map_err(|error| Error::Data(format!("the descriptions are no table: {error}")))?;
    Ok(Descriptions { rows: batch, digest: digest.id(), classes: path.map(|_| texts.into_keys().collect()) })
}

fn read(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    if path.extension().is_none_or(|ending| ending != LINES) {
        return read_json(path, "an object from class name to a list of texts");
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Data(format!("`{}` cannot be read: {error}", path.display())))?;
    let lines = lines(&text).map_err(|wrong| {
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
            Ok(line) if blank(&line.texts) => {
                Err(format!("line {number}: class `{}` has no text, or a blank one", line.class_name))
            }
            Ok(line) => Ok(line),
            Err(error) => Err(format!("line {number} {expected}: {error}")),
        }
    });
    parsed.collect()
}

fn blank(texts: &[String]) -> bool {
    texts.is_empty() || texts.iter().any(|text| text.trim().is_empty())
}

impl Descriptions {
    /// Sees that every class of `source` has a text, but for `excluded` ones, which get no picture.
    ///
    /// # Errors
    /// Where one has none; the first of them are named.
    pub fn cover(&self, source: &Source, excluded: &[String]) -> Result<()> {
        let Some(described) = &self.classes else { return Ok(()) };
        let needed = source.class_names().into_iter().filter(|name| !excluded.iter().any(|class| class == name));
        let missing: Vec<&str> = needed.filter(|name| !described.contains(*name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let some: Vec<_> = missing.iter().take(5).map(|name| format!("`{name}`")).collect();
        Err(Error::Data(format!(
            "`prompts.descriptions`: {} classes have no text, among them {}; every class of the source needs one",
            missing.len(),
            some.join(", ")
        )))
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
            read(&path)
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
}
