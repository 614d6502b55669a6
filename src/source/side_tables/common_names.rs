//! The classes of the source: their names, those that are excluded, and what prompts call them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};

use super::{super::Source, texts};
use crate::{
    error::{Error, Result, text},
    identity::Digest,
    schema,
};

/// What prompts call classes, where that is not their name: the table `common_names`.
#[derive(Debug, Clone)]
pub struct CommonNames {
    /// The table.
    pub rows: RecordBatch,
    /// A digest of it; empty where the pipeline names no file.
    pub digest: String,
    names: BTreeMap<String, String>,
}

/// Reads the file; without one the table is empty.
///
/// # Errors
/// Where it is unreadable, is not an object from class name to name, or a name is blank or has control characters.
pub fn common_names(path: Option<&Path>) -> Result<CommonNames> {
    let names = path.map(texts::common_names).transpose()?.unwrap_or_default();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(names.keys().map(Some).collect::<StringArray>()),
        Arc::new(names.values().map(Some).collect::<StringArray>()),
    ];
    let table = schema::find(schema::COMMON_NAMES).map(|table| Arc::clone(&table.schema));
    let table = table.ok_or_else(|| Error::Data("no schema of `common_names`".into()))?;
    let rows = RecordBatch::try_new(table, columns)
        .map_err(|error| Error::Data(format!("the common names are no table: {error}")))?;
    let digest =
        names.iter().fold(Digest::new("common names"), |digest, (class, name)| digest.text(class).text(name)).id();
    Ok(CommonNames { rows, digest: path.map_or(String::new(), |_| digest), names })
}

impl CommonNames {
    /// What prompts call `class`: its own name where the file has no other.
    pub fn of<'a>(&'a self, class: &'a str) -> &'a str {
        self.names.get(class).map_or(class, String::as_str)
    }

    /// Sees that the file is about this source: it may name more classes, and fewer, but not only others.
    ///
    /// # Errors
    /// Where it names none of the classes.
    pub fn check(&self, source: &Source) -> Result<()> {
        let classes = source.class_names();
        if self.digest.is_empty() || self.names.keys().any(|name| classes.contains(name.as_str())) {
            return Ok(());
        }
        let example = classes.iter().next().map_or(String::new(), |name| format!(", such as `{name}`"));
        Err(Error::Data(format!(
            "`prompts.common_names`: it names none of the {} classes of the source{example}; its keys are class names",
            classes.len()
        )))
    }
}

/// Sees that `excluded` (`hard_samples.exclude_classes`) are classes of `source`.
///
/// # Errors
/// Where some are not; the nearest names are suggested.
pub fn check_excluded(source: &Source, excluded: &[String]) -> Result<()> {
    let classes: Vec<&str> = source.class_names().into_iter().collect();
    let unknown = excluded.iter().filter(|name| !classes.contains(&name.as_str()));
    let said: Vec<String> = unknown
        .map(|name| match text::similar(name, &classes) {
            Some(meant) => format!("`{name}`, did you mean `{meant}`?"),
            None => format!("`{name}`"),
        })
        .collect();
    if said.is_empty() {
        return Ok(());
    }
    Err(Error::Data(format!(
        "`hard_samples.exclude_classes`: no image of the source is of the class {}",
        said.join(" ")
    )))
}

impl Source {
    /// The names of the classes that have images, of every split.
    pub fn class_names(&self) -> BTreeSet<&str> {
        let names = self.listing.column_by_name("class_name").and_then(|names| names.as_string_opt::<i32>());
        names.into_iter().flatten().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CommonNames> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        common_names(Some(file.path()))
    }

    #[test]
    fn a_class_without_a_common_name_keeps_its_own() {
        let names = read(r#"{"panthera onca": "jaguar"}"#).unwrap();
        assert_eq!((names.of("panthera onca"), names.of("felis catus")), ("jaguar", "felis catus"));
        assert_eq!(names.rows.num_rows(), 1);
        assert_ne!(names.digest, read(r#"{"panthera onca": "Jaguar"}"#).unwrap().digest);
        let none = common_names(None).unwrap();
        assert_eq!((none.of("jaguar"), none.rows.num_rows(), none.digest.as_str()), ("jaguar", 0, ""));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", " ", "a\\nb"] {
            let said = read(&format!(r#"{{"cat": "{name}"}}"#)).unwrap_err().to_string();
            assert!(said.starts_with("`prompts.common_names`: the name of class `cat` is blank, or has"), "{said}");
        }
        assert!(
            read("[]").unwrap_err().to_string().contains("is not an object from class name to the name in prompts")
        );
    }
}
