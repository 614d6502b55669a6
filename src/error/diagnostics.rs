//! Everything that is wrong with a pipeline file, reported at once.
//!
//! Reading never stops at the first problem: every reader adds to one [`Problems`], and the
//! configuration exists only if that stayed empty.

use std::fmt;

use super::text::{self, key_in_backticks};

/// Where a key or value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// A `--set` edit, counted from 0.
    Edit(usize),
}

/// One problem, with the place where it can be fixed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// The pipeline file, or the shortened `--set key=value` that caused the problem.
    pub file: String,
    /// The line in the file, counted from 1. None for a key that is missing or was set by `--set`.
    pub line: Option<usize>,
    /// The key with its section, such as `spectrum.seeds[2]` (lists count from 0). Empty if the
    /// problem is the file as a whole.
    pub key: String,
    /// What was found and what is expected.
    pub message: String,
    /// What to do instead, if that can be guessed.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        let key = key_in_backticks(&self.key);
        if !self.key.is_empty() && !self.message.contains(&key) {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Every problem of one pipeline: in file order, then of `--set` edits, then missing keys.
///
/// Its JSON form is the list of its diagnostics.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Returns the diagnostics, in the order in which they are shown.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Makes a single problem of the file as a whole, such as that it cannot be read.
    pub(crate) fn whole_file(file: &str, line: Option<usize>, message: String) -> Self {
        let file = text::escape(file);
        let key = String::new();
        Self { list: vec![Diagnostic { file, line, key, message, help: None }] }
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    /// For problems that are found later, such as a query that does not exist; at least one.
    fn from(list: Vec<Diagnostic>) -> Self {
        Self { list }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            writeln!(f, "{diagnostic}")?;
        }
        match self.list.len() {
            1 => f.write_str("1 problem; nothing was run"),
            n => write!(f, "{n} problems; nothing was run"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// The order of diagnostics: those of the file, then of edits, then of neither.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    File(usize),
    Edit(usize),
    Nowhere,
}

/// Most problems that are listed: a file of another kind may have one in each of 100,000 lines.
const MAX_LISTED: usize = 1000;

/// The problems found so far.
#[derive(Debug)]
pub(crate) struct Problems {
    origin: String,
    edits: Vec<String>,
    found: Vec<(Rank, Diagnostic)>,
    /// How many were found after the list was full.
    unlisted: usize,
}

impl Problems {
    /// Starts without a problem in the file `origin` with these `--set` edits.
    pub(crate) fn new(origin: &str, edits: &[String]) -> Self {
        let edits = edits.iter().map(|edit| format!("--set {}", text::shorten(edit))).collect();
        Self { origin: text::escape(origin), edits, found: Vec::new(), unlisted: 0 }
    }

    /// Records one problem.
    pub(crate) fn add(&mut self, place: Option<Place>, key: &str, message: impl Into<String>) {
        self.add_with_help(place, key, message, None);
    }

    /// Records one problem and what to do about it.
    pub(crate) fn add_with_help(
        &mut self,
        place: Option<Place>,
        key: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.is_full() {
            self.unlisted += 1;
            return;
        }
        let (rank, file, line) = match place {
            Some(Place::Line(line)) => (Rank::File(line), self.origin.clone(), Some(line)),
            Some(Place::Edit(edit)) => {
                let file = self.edits.get(edit).unwrap_or(&self.origin);
                (Rank::Edit(edit), file.clone(), None)
            }
            None => (Rank::Nowhere, self.origin.clone(), None),
        };
        let diagnostic = Diagnostic { file, line, key: key.to_owned(), message: message.into(), help };
        self.found.push((rank, diagnostic));
    }

    /// Returns the number of problems. If it did not grow, all that was read in between is valid.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.unlisted
    }

    /// Whether a problem was found with this key, with an item of its list, or with a section that it is in.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        let is_part = |whole: &str, part: &str| {
            part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut keys = self.found.iter().map(|(_, diagnostic)| diagnostic.key.as_str());
        keys.any(|found| !found.is_empty() && (is_part(key, found) || is_part(found, key)))
    }

    /// Whether no further problem is listed, so that its message is not needed.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_LISTED
    }

    /// Returns all problems in their final order as an error, if there are any.
    pub(crate) fn finish(mut self) -> Result<(), Diagnostics> {
        if self.found.is_empty() {
            return Ok(());
        }
        // The sort is stable: problems of one line stay in the order in which they were found.
        self.found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut list: Vec<_> = self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        if self.unlisted > 0 {
            let message = format!("{} further problems are not listed", self.unlisted);
            list.push(Diagnostic { file: self.origin, line: None, key: String::new(), message, help: None });
        }
        Err(Diagnostics { list })
    }
}
