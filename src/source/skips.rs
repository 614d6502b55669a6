//! What is not read of a data set, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Serialize, Serializer};

use crate::{
    config::Split,
    error::text::{MAX_LISTED, quote, shorten},
};

/// What was skipped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    pub(crate) reason: Reason,
    pub(crate) count: usize,
    /// The names of the first few.
    pub(crate) examples: Vec<String>,
}

/// Why something was skipped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Its ending is not that of an image. With the dot; empty if it has none.
    Ending(String),
    /// Its name, or that of a folder that it is in, is hidden or of a tool.
    LeftBehind,
    /// An image next to the class folders.
    OutsideOfClasses,
    /// The metadata file of its folder does not name it.
    NotInMetadata,
    /// A file of metadata, of a kind or in a folder in which none is read.
    Metadata,
    /// A symbolic link to a folder that it is in.
    Loop,
    /// A row of a split that the pipeline does not name.
    OtherSplit(String),
    /// A sample of a tar with neither an image nor a label.
    NoMembers,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ending(ending) if ending.is_empty() => f.write_str("without an ending"),
            Self::Ending(ending) => write!(f, "`{}`", shorten(ending)),
            Self::LeftBehind => f.write_str("hidden or of a tool"),
            Self::OutsideOfClasses => f.write_str("outside of the class folders"),
            Self::NotInMetadata => f.write_str("not in the metadata file"),
            Self::Metadata => f.write_str("metadata that is not read"),
            Self::Loop => f.write_str("links in a circle"),
            Self::OtherSplit(split) => write!(f, "of the split {}", quote(split)),
            Self::NoMembers => f.write_str("without image and label"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Collects what is skipped while a data set is listed.
#[derive(Debug, Default)]
pub(super) struct Skips {
    by_reason: BTreeMap<(Option<Split>, Reason), Skipped>,
    /// Class folders without an image.
    pub(super) empty_classes: BTreeSet<String>,
    /// Folders of splits in which every class has its images in several folders of its own, with one of these.
    pub(super) deep: Vec<(String, String)>,
    /// Metadata files without labels, next to class folders.
    pub(super) captions: Vec<String>,
}

impl Skips {
    /// Adds `name`, of `split` or of none.
    pub(super) fn add(&mut self, split: Option<Split>, reason: Reason, name: &str) {
        let new = Skipped { reason: reason.clone(), count: 0, examples: Vec::new() };
        let skipped = self.by_reason.entry((split, reason)).or_insert(new);
        skipped.count += 1;
        if skipped.examples.len() < MAX_LISTED {
            skipped.examples.push(shorten(name));
        }
    }

    /// Adds a class folder that has no image.
    pub(super) fn add_empty_class(&mut self, folder: &str) {
        self.empty_classes.insert(shorten(folder));
    }

    /// Adds a folder of a split whose classes have their images in several folders each, such as `example`.
    pub(super) fn add_deep(&mut self, folder: &str, example: &str) {
        self.deep.push((shorten(folder), shorten(example)));
    }

    /// Adds a metadata file without labels, next to class folders.
    pub(super) fn add_captions(&mut self, file: &str) {
        self.captions.push(shorten(file));
    }

    /// Returns what was skipped of `split`, or of none.
    pub(super) fn of(&self, split: Option<Split>) -> Vec<Skipped> {
        self.by_reason.iter().filter(|((of, _), _)| *of == split).map(|(_, skipped)| skipped.clone()).collect()
    }

    /// Returns what was skipped of `split`, for a message; empty if nothing was.
    pub(super) fn describe(&self, split: Split) -> String {
        listed(&self.of(Some(split)))
    }
}

/// Returns kinds and numbers of what was skipped, for a message.
pub(crate) fn listed(skipped: &[Skipped]) -> String {
    skipped.iter().map(|skipped| format!("{} {}", skipped.count, skipped.reason)).collect::<Vec<_>>().join(", ")
}
