//! The images that a data set names, and what is wrong with them.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    sync::Arc,
};

use super::{
    error::{Result, SourceError},
    label::Label,
    object::MAX_NAME_CHARS,
    skips::Skips,
};
use crate::{
    config::Split,
    error::text::{quote, shorten_to},
    storage::Version,
};

/// Problems that a message shows. The others are counted.
const MAX_SHOWN: usize = 10;

/// An image that a data set names.
#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the source's root; it passed [`relative_path`].
    pub(super) path: String,
    pub(super) label: Label,
    pub(super) split: Split,
    pub(super) origin: Origin,
    pub(super) file: File,
}

/// What is known of the file of an image.
#[derive(Debug, Clone)]
pub(super) enum File {
    /// The data set names it, and nobody has looked yet.
    NotLookedUp,
    /// It was listed with this version.
    Found(Version),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl File {
    pub(super) fn version(&self) -> Option<&Version> {
        if let Self::Found(version) = self { Some(version) } else { None }
    }
}

/// What a listing collects.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Problems,
    pub(super) skips: Skips,
}

/// Where a data set names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) file: Arc<str>,
    /// Counted from 1; `None` for files without lines.
    pub(super) line: Option<u64>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name of a file that a store lists can hold any character.
        let file = shorten_to(&self.file, MAX_NAME_CHARS);
        match self.line {
            Some(line) => write!(f, "`{file}`:{line}"),
            None => write!(f, "`{file}`"),
        }
    }
}

/// Collects the invalid entries of a data set: the first few, and the count of all.
#[derive(Debug, Default)]
pub(super) struct Problems {
    first: Vec<String>,
    count: usize,
}

impl Problems {
    pub(super) fn add(&mut self, origin: &Origin, problem: impl fmt::Display) {
        if self.first.len() < MAX_SHOWN {
            self.first.push(format!("\n  {origin}: {problem}"));
        }
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns an error if there are problems.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self { count: 0, .. } => Ok(()),
            Self { first, count } => Err(SourceError::Entries { count, first }),
        }
    }
}

/// Returns the path of an image as a data set has it, without a leading `./`.
///
/// # Errors
/// Returns the problem if the path could lead out of the source's root on any system.
pub(super) fn relative_path(path: &str) -> Result<&str, String> {
    let inner = path.trim_start_matches("./");
    let drive = matches!(inner.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    let wrong_part = inner.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !drive && !wrong_part && !inner.contains('\\') && !inner.contains(char::is_control) {
        return Ok(inner);
    }
    Err(format!(
        "found the path {}, allowed are paths relative to `source.root` with `/`, without empty, `.` or `..` parts, \
         drive letters, backslashes and control characters",
        quote(path)
    ))
}

/// Adds a problem for every image that is named more than once: it would be in two splits, or count twice.
pub(super) fn reject_duplicates(entries: &[Entry], problems: &mut Problems) {
    let mut seen: HashMap<&str, &Entry> = HashMap::with_capacity(entries.len());
    for entry in entries {
        match seen.entry(&entry.path) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
            }
            hash_map::Entry::Occupied(first) => {
                let first = first.get();
                let (split, other) = (entry.split.as_str(), first.split.as_str());
                let found = match split == other {
                    true => format!("of {split} is already in {}", first.origin),
                    false => format!("of {split} is already in {}, of {other}", first.origin),
                };
                problems.add(&entry.origin, format!("{} {found}; name each image once", quote(&entry.path)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, line: u64) -> Entry {
        let origin = Origin { file: "l.txt".into(), line: Some(line) };
        Entry { path: path.into(), label: Label::Number(0), split: Split::Train, origin, file: File::NotLookedUp }
    }

    #[test]
    fn paths_stay_below_the_root() {
        for sound in ["a", "a/b.jpg", "a b/c%20#~?[x].png", "ö/12:30.jpg", "..a/b..", "e\u{301}"] {
            assert_eq!(relative_path(sound), Ok(sound));
        }
        assert_eq!(relative_path("./a/b.jpg"), Ok("a/b.jpg"));
        let wrong = [
            "", ".", "..", "../a", "a/..", "a/../b", "a/./b", "/a", "//a", "a//b", "a/", "C:/a", "c:a", "a\\b", "a\0b",
            "a\tb", "./",
        ];
        for wrong in wrong {
            assert!(relative_path(wrong).is_err(), "{wrong:?}");
        }
        assert!(relative_path("a\u{1b}[31m").unwrap_err().contains(r#""a\u{1b}[31m""#));
    }

    #[test]
    fn problems_are_counted() {
        let mut problems = Problems::default();
        let entries: Vec<Entry> = (0..14).map(|line| entry("a/b", line)).collect();
        reject_duplicates(&entries, &mut problems);
        let message = problems.finish().unwrap_err().to_string();
        assert!(message.starts_with("the source has 13 invalid entries; the first 10:\n"), "{message}");
        assert!(
            message.contains("`l.txt`:1: \"a/b\" of train is already in `l.txt`:0; name each image once"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 11);
        Problems::default().finish().unwrap();
    }

    #[test]
    fn a_file_can_have_any_name() {
        let origin = Origin { file: "a\u{85}\n".repeat(1000).into(), line: None };
        let mut problems = Problems::default();
        problems.add(&origin, "no");
        let message = problems.finish().unwrap_err().to_string();
        assert_eq!(message.lines().count(), 2);
        assert!(message.contains(r"`a\u{85}\na") && message.ends_with("…`: no"), "{message}");
        assert!(!message.replace('\n', "").contains(char::is_control), "{message}");
    }
}
