//! The descriptions of classes for the generation prompt, as a table.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};

use super::{
    super::{Source, error::SourceError, table},
    class_text::read_descriptions,
};
use crate::{config::Config, error::Result, identity::Digest, schema};

/// Missing classes that a message names.
const MAX_SHOWN: usize = 5;

/// The descriptions of classes.
#[derive(Debug, Clone)]
pub(crate) struct Descriptions {
    /// The table `descriptions`.
    pub(crate) rows: RecordBatch,
    /// A digest of the table.
    pub(crate) digest: String,
    /// The descriptions by class; `None` if the pipeline names no file.
    texts: Option<BTreeMap<String, Vec<String>>>,
}

/// Reads the descriptions that the pipeline names. Without a file the table is empty.
///
/// # Errors
/// Returns an error if the file cannot be read, or a class has no list of descriptions that are not blank.
pub(crate) fn descriptions(config: &Config) -> Result<Descriptions> {
    let path = config.prompts.descriptions.as_deref();
    let found = path.map(read_descriptions).transpose()?.unwrap_or_default();
    let names: StringArray = found.keys().map(Some).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut digest = Digest::new("descriptions");
    for (class, texts) in &found {
        digest = digest.text(class).part(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            digest = digest.text(text);
            lists.values().append_value(text);
        }
        lists.append(true);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(lists.finish())];
    let rows = table(schema::DESCRIPTIONS, columns)?;
    Ok(Descriptions { rows, digest: digest.id(), texts: path.map(|_| found) })
}

impl Descriptions {
    /// Returns the descriptions of `class`.
    pub(crate) fn of(&self, class: &str) -> &[String] {
        self.texts.as_ref().and_then(|texts| texts.get(class)).map_or(&[], Vec::as_slice)
    }

    /// Checks that every class of `source` has a description, except the `excluded` ones, which get no images.
    ///
    /// # Errors
    /// Returns an error that names the first classes without one.
    pub(crate) fn cover(&self, source: &Source, excluded: &[String]) -> Result<()> {
        let Some(described) = &self.texts else { return Ok(()) };
        let needed = source.class_names().into_iter().filter(|name| !excluded.iter().any(|class| class == name));
        let missing: Vec<&str> = needed.filter(|name| !described.contains_key(*name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let some: Vec<_> = missing.iter().take(MAX_SHOWN).map(|name| format!("`{name}`")).collect();
        Err(SourceError::NoDescription { count: missing.len(), some: some.join(", ") }.into())
    }
}
