//! The texts per class of the generation prompt, as a table.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};

use super::{super::Source, texts};
use crate::{
    config::Config,
    error::{Error, Result},
    identity::Digest,
    schema,
};

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

/// The texts per class of the generation prompt: the table `descriptions`.
///
/// # Errors
/// Where the file is unreadable, or gives a class no list of texts that are not blank.
pub fn descriptions(config: &Config) -> Result<Descriptions> {
    let path = config.prompts.descriptions.as_deref();
    let texts = path.map(texts::of_classes).transpose()?.unwrap_or_default();
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

impl Descriptions {
    /// Sees that every class of `source` has a text, but for `excluded` ones, which get no image.
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
