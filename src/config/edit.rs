//! `--set section.key=value`: edits of the pipeline, applied before it is read.
//!
//! An edit counts as part of the file, so an unknown key or a wrong value is reported like one of
//! the file, under the name of the edit.

use super::document::{self, Node, Table, Value};
use crate::error::{
    diagnostics::{Place, Problems},
    text,
};

/// Most parts of a key; no key has more than 3 (`source.splits.train`).
const MAX_PARTS: usize = 8;

/// Applies the edits in their order; the last one of a key wins.
pub(super) fn apply(root: &mut Table, edits: &[String], problems: &mut Problems) {
    for (number, edit) in edits.iter().enumerate() {
        apply_one(root, edit, Place::Edit(number), problems);
    }
}

fn apply_one(root: &mut Table, edit: &str, place: Place, problems: &mut Problems) {
    let Some((key, written)) = edit.split_once('=') else {
        return problems.add(Some(place), "", "expected `key=value`, found no `=`");
    };
    let parts: Vec<&str> = key.trim().split('.').map(str::trim).collect();
    if parts.len() > MAX_PARTS || !parts.iter().all(|part| is_bare_key(part)) {
        let message = format!("found the key {}, expected one such as `spectrum.timesteps`", text::quote(key));
        return problems.add(Some(place), "", message);
    }
    match value(written, place) {
        Ok(node) => insert(root, &parts, node, problems),
        Err(message) => {
            let found = text::quote(written);
            problems.add(Some(place), &parts.join("."), format!("found {found}: {message}"));
        }
    }
}

fn is_bare_key(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Parses a TOML value. Anything else is a string, so that a shell needs no second quotes.
fn value(written: &str, place: Place) -> Result<Node, String> {
    let bare = written.trim();
    match document::parse_value(bare, place) {
        Ok(node) => Ok(node),
        // Someone who opens a list or a quote means TOML, and needs its error message.
        Err(message) if bare.starts_with(['[', '{', '"', '\'']) => Err(message),
        Err(_) => Ok(Node { value: Value::String(written.to_owned()), place }),
    }
}

/// Puts the value at the end of the path, and adds the sections on the way.
fn insert(table: &mut Table, path: &[&str], new: Node, problems: &mut Problems) {
    let place = new.place;
    let mut table = table;
    let Some((last, sections)) = path.split_last() else {
        return;
    };
    for (depth, section) in sections.iter().enumerate() {
        let empty = Node { value: Value::Table(Table::default()), place };
        let Some(entry) = table.entry_or_insert(section, empty) else {
            return;
        };
        match &mut entry.node.value {
            Value::Table(inner) => table = inner,
            other => {
                let key = path.get(..=depth).unwrap_or_default().join(".");
                let message = format!("found {}, which is not a section", other.describe());
                return problems.add(Some(place), &key, message);
            }
        }
    }
    if let Some(entry) = table.entry_or_insert(last, new.clone()) {
        entry.place = place;
        entry.node = new;
    }
}
