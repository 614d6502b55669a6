//! Reads sections key by key, and knows afterwards which keys nobody asked for.

use super::document::{Entry, Table, Value};
use super::values::Kind;
use crate::error::diagnostics::{Place, Problems};
use crate::error::text::{self, join_key, key_in_backticks};

/// What stands in the file where a section is expected.
#[derive(Debug, Clone, Copy)]
enum Content<'t> {
    Table(&'t Table),
    /// Nothing: defaults hold, and required keys are missing.
    Absent,
    /// Something else, which was reported; what it lacks is not reported on top.
    Wrong,
}

/// A section that is being read.
///
/// Values that are missing or wrong read as defaults: no configuration is made of them, because
/// the problem that was recorded prevents it.
#[derive(Debug)]
pub(super) struct Section<'t, 'p> {
    content: Content<'t>,
    name: String,
    /// Where missing keys are reported, for a section that its name alone does not find.
    place: Option<Place>,
    asked: Vec<&'static str>,
    problems: &'p mut Problems,
}

impl<'t, 'p> Section<'t, 'p> {
    /// The whole file.
    pub(super) fn root(table: &'t Table, problems: &'p mut Problems) -> Self {
        let content = Content::Table(table);
        Self { content, name: String::new(), place: None, asked: Vec::new(), problems }
    }

    /// The section `[key]` in this one.
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
        Section { content, name, place: None, asked: Vec::new(), problems: self.problems }
    }

    /// Every section `[[key]]` in this one, in file order.
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
            out.push(read(Section {
                content: Content::Table(table),
                name,
                place: Some(item.place),
                asked: Vec::new(),
                problems: self.problems,
            }));
        }
        out
    }

    /// The value of a key that may be absent.
    pub(super) fn optional<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Out> {
        let entry = self.entry(key)?;
        kind.read(&join_key(&self.name, key), &entry.node, self.problems)
    }

    /// The value of a key, or its default.
    pub(super) fn or<K: Kind>(&mut self, key: &'static str, kind: &K, default: impl Into<K::Out>) -> K::Out {
        self.optional(key, kind).unwrap_or_else(|| default.into())
    }

    /// The value of a key that has no default.
    pub(super) fn required<K: Kind>(&mut self, key: &'static str, kind: &K) -> K::Out
    where
        K::Out: Default,
    {
        if self.entry(key).is_none() && !matches!(self.content, Content::Wrong) {
            let message = format!("missing, expected {}", kind.expected());
            self.problems.add(self.place, &join_key(&self.name, key), message);
        }
        self.optional(key, kind).unwrap_or_default()
    }

    /// All entries, for a section whose keys are the user's own.
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

    /// Whether the key is there.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    /// The problems of the whole file.
    pub(super) fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// The full name of a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        join_key(&self.name, key)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        self.finish_kind("", &[]);
    }

    /// The same for a section with the keys of one `kind` out of several. A key of another kind, one of `others`, was
    /// not mistyped: what is allowed is said, and no similar key offered.
    pub(super) fn finish_kind(self, kind: &str, others: &[&str]) {
        for entry in self.entries() {
            if self.asked.contains(&entry.key.as_str()) {
                continue;
            }
            let key = join_key(&self.name, &entry.key);
            let what = match &entry.node.value {
                Value::Table(_) => "section",
                _ => "key",
            };
            let (of, help) = match others.contains(&entry.key.as_str()) {
                true => (format!(" of kind `{kind}`"), Some(format!("allowed are {}", text::choices(&self.asked)))),
                // comparing words takes longer than all else
                false => (String::new(), (!self.problems.is_full()).then(|| text::suggest(&entry.key, &self.asked))),
            };
            let message = format!("unknown {what} {}{of}", key_in_backticks(&key));
            self.problems.add_with_help(Some(entry.place), &key, message, help);
        }
    }

    fn entry(&mut self, key: &'static str) -> Option<&'t Entry> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        match self.content {
            Content::Table(table) => table.get(key),
            Content::Absent | Content::Wrong => None,
        }
    }
}
