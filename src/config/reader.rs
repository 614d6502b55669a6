//! Reads a section key by key, and then reports the keys that nothing has read.

use std::collections::BTreeSet;

use super::{
    document::{Entry, Table, Value},
    value_types::ValueType,
};
use crate::error::{
    diagnostics::{Place, Problems},
    text::{self, join_key, key_in_backticks},
};

/// What is in the file where a section is expected.
#[derive(Debug, Clone, Copy)]
enum Content<'t> {
    Table(&'t Table),
    /// Nothing: defaults apply, and required keys are missing.
    Absent,
    /// Something else, which was reported; its missing keys are not reported as well.
    Wrong,
}

/// A section that is being read.
///
/// Values that are missing or wrong read as defaults. They never get into a configuration, since the problem that was
/// reported prevents it.
#[derive(Debug)]
pub(super) struct Section<'t, 'p> {
    content: Content<'t>,
    name: String,
    /// Where missing keys are reported, for a section that its name alone does not find.
    place: Option<Place>,
    /// The keys that were read, or looked for.
    known: Vec<&'static str>,
    /// For a section whose keys depend on its kind: the kind, and the keys of all kinds.
    kind: Option<(String, Vec<&'static str>)>,
    problems: &'p mut Problems,
}

impl<'t, 'p> Section<'t, 'p> {
    fn new(content: Content<'t>, name: String, place: Option<Place>, problems: &'p mut Problems) -> Self {
        Self { content, name, place, known: Vec::new(), kind: None, problems }
    }

    /// Begins to read the whole file.
    pub(super) fn root(table: &'t Table, problems: &'p mut Problems) -> Self {
        Self::new(Content::Table(table), String::new(), None, problems)
    }

    /// Begins to read the section `[key]` in this one.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'t, '_> {
        let name = join_key(&self.name, key);
        let content = match (self.entry(key), self.content) {
            (Some(entry), _) => match &entry.node.value {
                Value::Table(table) => Content::Table(table),
                other => {
                    let found = other.describe();
                    let message = format!("found {found}, expected a section `[{name}]`");
                    self.problems.add(Some(entry.node.place), &name, message);
                    Content::Wrong
                }
            },
            (None, Content::Wrong) => Content::Wrong,
            (None, _) => Content::Absent,
        };
        Section::new(content, name, None, self.problems)
    }

    /// Reads every section `[[key]]` in this one, in file order.
    pub(super) fn each<T>(&mut self, key: &'static str, mut read: impl FnMut(Section<'t, '_>) -> T) -> Vec<T> {
        let list = join_key(&self.name, key);
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let expected = format!("expected sections that begin with `[[{list}]]`");
        let Value::List(items) = &entry.node.value else {
            let message = format!("found {}, {expected}", entry.node.value.describe());
            self.problems.add(Some(entry.node.place), &list, message);
            return Vec::new();
        };
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let name = format!("{list}[{index}]");
            let Value::Table(table) = &item.value else {
                let message = format!("found {}, {expected}", item.value.describe());
                self.problems.add(Some(item.place), &name, message);
                continue;
            };
            out.push(read(Section::new(Content::Table(table), name, Some(item.place), self.problems)));
        }
        out
    }

    /// Reads a key that may be absent.
    pub(super) fn optional<K: ValueType>(&mut self, key: &'static str, value: &K) -> Option<K::Value> {
        let entry = self.entry(key)?;
        value.read(&join_key(&self.name, key), &entry.node, self.problems)
    }

    /// Reads a key that has no default.
    pub(super) fn required<K: ValueType>(&mut self, key: &'static str, value: &K) -> K::Value
    where
        K::Value: Default,
    {
        if self.entry(key).is_none() && !matches!(self.content, Content::Wrong) {
            let message = format!("missing, expected {}", value.expected());
            self.problems.add(self.place, &join_key(&self.name, key), message);
        }
        self.optional(key, value).unwrap_or_default()
    }

    /// Returns all entries, for a section whose keys are names that the user chooses.
    pub(super) fn entries(&self) -> &'t [Entry] {
        match self.content {
            Content::Table(table) => &table.entries,
            Content::Absent | Content::Wrong => &[],
        }
    }

    /// Reports a problem with a key of this section, at the place of its value if it has one.
    pub(super) fn refuse(&mut self, key: &'static str, message: impl Into<String>) {
        let place = self.entry(key).map(|entry| entry.node.place).or(self.place);
        self.problems.add(place, &join_key(&self.name, key), message);
    }

    /// Reports a valid value that an earlier section of the same list has.
    pub(super) fn refuse_duplicate(&mut self, key: &'static str, seen: &mut BTreeSet<String>) {
        let Some(entry) = self.entry(key) else { return };
        let value = match &entry.node.value {
            Value::String(value) => value.clone(),
            Value::Integer(value) => value.to_string(),
            _ => return,
        };
        if !self.problems.has_key(&join_key(&self.name, key)) && !seen.insert(value) {
            self.refuse(key, format!("duplicate value {}", entry.node.value.describe()));
        }
    }

    /// Whether the section has the key.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    /// Returns the string of a key without reporting anything.
    pub(super) fn peek(&self, key: &str) -> Option<&'t str> {
        let Content::Table(table) = self.content else { return None };
        match &table.get(key)?.node.value {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the problems of the whole file.
    pub(super) fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Returns the full name of a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        join_key(&self.name, key)
    }

    /// Notes that the section has the keys of one kind. A key of another kind, out of `all`, was not mistyped, so no
    /// similar key is suggested for it.
    pub(super) fn set_kind(&mut self, kind: &str, all: Vec<&'static str>) {
        self.kind = Some((kind.to_owned(), all));
    }

    /// Reports every key that nothing has read.
    pub(super) fn finish(self) {
        for entry in self.entries() {
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let key = join_key(&self.name, &entry.key);
            let named = key_in_backticks(&key);
            let (message, help) = match (&self.kind, &entry.node.value) {
                (Some((kind, all)), _) if all.contains(&entry.key.as_str()) => {
                    let expected = format!("expected {}", text::one_of(&self.known));
                    (format!("{named} is not a key of kind `{kind}`"), Some(expected))
                }
                // Comparing words takes longer than all else.
                _ if self.problems.is_full() => (String::new(), None),
                (_, Value::Table(_)) => (format!("unknown section {named}"), Some(self.suggest(&entry.key, &[]))),
                _ => {
                    let elsewhere = sections_with(&entry.key);
                    (format!("unknown key {named}"), Some(self.suggest(&entry.key, &elsewhere)))
                }
            };
            self.problems.add_with_help(Some(entry.place), &key, message, help);
        }
    }

    /// Returns what to do about an unknown key, which may be a key of these other sections.
    fn suggest(&self, key: &str, elsewhere: &[&str]) -> String {
        let elsewhere = match elsewhere {
            [] => None,
            [""] => Some("it is a top-level key".to_owned()),
            headers => {
                let named = headers.iter().map(|header| match *header {
                    "" => "the top level".to_owned(),
                    header => format!("`{header}`"),
                });
                Some(format!("it is a key of {}", text::join(&named.collect::<Vec<_>>(), "and")))
            }
        };
        match (text::similar(key, &self.known), elsewhere) {
            (Some(meant), None) => format!("did you mean `{meant}`?"),
            (Some(meant), Some(elsewhere)) => format!("{elsewhere}, or did you mean `{meant}`?"),
            (None, Some(elsewhere)) => elsewhere,
            (None, None) => format!("expected {}", text::one_of(&self.known)),
        }
    }

    fn entry(&mut self, key: &'static str) -> Option<&'t Entry> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        match self.content {
            Content::Table(table) => table.get(key),
            Content::Absent | Content::Wrong => None,
        }
    }
}

/// Returns the headers of the sections that have a key of this name.
fn sections_with(key: &str) -> Vec<&'static str> {
    let mut headers = Vec::new();
    for known in super::keys().iter().filter(|known| known.name == key) {
        if !headers.contains(&known.header.as_str()) {
            headers.push(known.header.as_str());
        }
    }
    headers
}
