//! What is wrong with a pipeline file, said all at once.
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

/// One thing that is wrong, with the place where it can be put right.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// The pipeline file, or the `--set key=value` (shortened) that brought the problem.
    pub file: String,
    /// The line in the file, counted from 1; none for a key that is missing or was set by `--set`.
    pub line: Option<usize>,
    /// The key with its section, such as `spectrum.seeds[2]` (lists count from 0); empty when the
    /// file as a whole is meant.
    pub key: String,
    /// What was found and what is allowed.
    pub message: String,
    /// What to do instead, when that can be guessed.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        let named = key_in_backticks(&self.key);
        if !self.key.is_empty() && !self.message.contains(&named) {
            write!(f, "{named}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, ", {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one pipeline: in file order, then `--set`, then what is missing.
///
/// Its JSON form is the list of its diagnostics.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The diagnostics, in the order in which they are shown.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// A single problem of the file as a whole, such as that it cannot be read.
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

/// Where a diagnostic stands among the others: in the file, in the edits, or nowhere.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    File(usize),
    Edit(usize),
    Nowhere,
}

/// Most problems that are listed: a file of another kind may have one in each of 100,000 lines.
const MOST_LISTED: usize = 1000;

/// The problems found so far.
#[derive(Debug)]
pub(crate) struct Problems {
    origin: String,
    edits: Vec<String>,
    found: Vec<(Rank, Diagnostic)>,
    /// How many more there are than are listed.
    left_out: usize,
}

impl Problems {
    /// No problem yet in the file `origin` with these `--set` edits.
    pub(crate) fn new(origin: &str, edits: &[String]) -> Self {
        let edits = edits.iter().map(|edit| format!("--set {}", text::shorten(edit))).collect();
        Self { origin: text::escape(origin), edits, found: Vec::new(), left_out: 0 }
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
            self.left_out += 1;
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

    /// How many there are; two equal counts mean that all that was read in between is sound.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.left_out
    }

    /// Whether no further problem is listed, so that nobody has to find words for one.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MOST_LISTED
    }

    /// All of them in their final order, or nothing if there were none.
    pub(crate) fn finish(mut self) -> Result<(), Diagnostics> {
        if self.found.is_empty() {
            return Ok(());
        }
        // The sort is stable: problems of one line stay in the order in which they were met.
        self.found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut list: Vec<_> = self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        if self.left_out > 0 {
            let message = format!("{} further problems are not listed", self.left_out);
            list.push(Diagnostic { file: self.origin, line: None, key: String::new(), message, help: None });
        }
        Err(Diagnostics { list })
    }
}
