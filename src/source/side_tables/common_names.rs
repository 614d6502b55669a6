//! The names of classes in prompts, as a table.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, StringArray};

use super::{
    super::{Source, error::SourceError, table},
    class_text::read_common_names,
};
use crate::{error::Result, identity::Digest, schema};

/// The names of classes in prompts, if they differ from those in the data set: the table `common_names`.
#[derive(Debug, Clone)]
pub(crate) struct CommonNames {
    pub(crate) rows: RecordBatch,
    /// A digest of the table; empty if the pipeline names no file.
    pub(crate) digest: String,
    names: BTreeMap<String, String>,
}

/// Reads the file. Without one the table is empty.
///
/// # Errors
/// Returns an error if the file cannot be read, is not an object from class name to name, or a name is blank or has
/// control characters.
pub(crate) fn common_names(path: Option<&Path>) -> Result<CommonNames> {
    let names = path.map(read_common_names).transpose()?.unwrap_or_default();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(names.keys().map(Some).collect::<StringArray>()),
        Arc::new(names.values().map(Some).collect::<StringArray>()),
    ];
    let rows = table(schema::COMMON_NAMES, columns)?;
    let digest =
        names.iter().fold(Digest::new("common names"), |digest, (class, name)| digest.text(class).text(name)).id();
    Ok(CommonNames { rows, digest: path.map_or(String::new(), |_| digest), names })
}

impl CommonNames {
    /// Returns the name of `class` in prompts, which is its own name unless the file has another.
    pub(crate) fn of<'a>(&'a self, class: &'a str) -> &'a str {
        self.names.get(class).map_or(class, String::as_str)
    }

    /// Checks that the file is about this source: it can name more classes, or fewer, but not only others.
    ///
    /// # Errors
    /// Returns an error if it names none of the classes.
    pub(crate) fn check(&self, source: &Source) -> Result<()> {
        let classes = source.class_names();
        if self.digest.is_empty() || self.names.keys().any(|name| classes.contains(name.as_str())) {
            return Ok(());
        }
        let example = classes.iter().next().map_or(String::new(), |name| format!(", such as `{name}`"));
        Err(SourceError::NoCommonName { count: classes.len(), example }.into())
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
    fn blank_names_are_rejected() {
        for name in ["", " ", "a\\nb"] {
            let message = read(&format!(r#"{{"cat": "{name}"}}"#)).unwrap_err().to_string();
            assert!(
                message.contains("(`prompts.common_names`): the name of class `cat` is blank, or has"),
                "{message}"
            );
        }
        assert!(
            read("[]").unwrap_err().to_string().contains("is not an object from class name to the name in prompts")
        );
    }
}
