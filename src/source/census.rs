//! The census of a data set: for each split its images, its classes, the rejects, and what was skipped and why. Images,
//! rejects and what was skipped add up to what was listed, so that nothing is lost silently.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    classes::Classes,
    entry::Entry,
    names::image_endings,
    skips::{Reason, Skipped, Skips, listed},
};
use crate::{
    config::Split,
    error::{
        Warning,
        text::{MAX_LISTED, first_few},
    },
};

/// The share of the files of a split that may be skipped without a warning.
const MAX_SKIPPED: f64 = 0.01;

/// What a data set holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Census {
    /// In the order of [`Split`].
    pub(crate) splits: Vec<SplitCensus>,
    /// Rows of tables that belong to no split of the pipeline.
    pub(crate) unused: Vec<Skipped>,
    /// Names that several classes have.
    pub(crate) shared_names: Vec<SharedName>,
    /// Names of classes, in the user's file or in the metadata, that no image of any split has.
    pub(crate) unused_names: Vec<String>,
}

/// What a split holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SplitCensus {
    pub(crate) split: &'static str,
    /// Images, rejects and what was skipped: files of folders, samples of tars, rows of tables.
    pub(crate) listed: usize,
    /// Images. Before they are read, also those that will turn out to be damaged.
    pub(crate) images: usize,
    /// What cannot be read. Before images are read: links to missing files, names that no table can hold and the like.
    pub(crate) rejects: usize,
    /// Classes with an image.
    pub(crate) classes: usize,
    /// Of these, the class with the fewest images.
    pub(crate) smallest: Option<ClassSize>,
    /// The class with the most images.
    pub(crate) largest: Option<ClassSize>,
    /// Classes that no other split has, if there are several splits.
    pub(crate) only_here: Vec<String>,
    /// Classes whose images are all rejects.
    pub(crate) unreadable: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
    /// What is known of each class, by label.
    #[serde(skip)]
    counts: BTreeMap<i64, Count>,
}

/// The images and rejects of a class in a split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) class_name: String,
    pub(crate) images: usize,
    pub(crate) rejects: usize,
}

/// A class and its images in a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ClassSize {
    pub(crate) class_name: String,
    pub(crate) images: usize,
}

/// A name, and the labels of the classes that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SharedName {
    pub(crate) class_name: String,
    pub(crate) labels: Vec<i64>,
}

/// Counts the images of `entries`, whose labels are `labels`, and adds what was skipped.
pub(super) fn census(entries: &[Entry], labels: &[i64], classes: &Classes, skips: &Skips) -> Census {
    let mut counts: BTreeMap<Split, BTreeMap<i64, Count>> = BTreeMap::new();
    for (entry, label) in entries.iter().zip(labels) {
        let of_split = counts.entry(entry.split).or_default();
        let count =
            of_split.entry(*label).or_insert_with(|| Count { class_name: classes.name(*label), ..Count::default() });
        match entry.file.version() {
            Some(_) => count.images += 1,
            None => count.rejects += 1,
        }
    }
    let used = counts.values().flat_map(BTreeMap::keys).copied().collect::<BTreeSet<i64>>();
    let splits = counts.into_iter().map(|(split, counts)| SplitCensus::new(split, counts, skips));
    let mut census = Census {
        splits: splits.collect(),
        unused: skips.of(None),
        shared_names: shared_names(&used, classes),
        unused_names: classes.unused(&used),
    };
    census.name_classes_of_one_split();
    census
}

impl Census {
    /// Counts a split again, now that its images were read: `counts` has what became of each class, by label. What could
    /// not be read before still cannot, also if nobody has tried. Counts of only a part of the images change nothing.
    pub(crate) fn recount(&mut self, split: &str, mut counts: BTreeMap<i64, Count>) {
        let Some(census) = self.splits.iter_mut().find(|census| census.split == split) else { return };
        if total(&counts) != total(&census.counts) {
            return;
        }
        for (label, count) in &mut counts {
            let known = census.counts.get(label).map_or(0, |known| known.rejects);
            let more = known.saturating_sub(count.rejects).min(count.images);
            (count.images, count.rejects) = (count.images - more, count.rejects + more);
        }
        census.count(counts);
        self.name_classes_of_one_split();
    }

    fn name_classes_of_one_split(&mut self) {
        let mut splits: BTreeMap<i64, usize> = BTreeMap::new();
        for label in self.splits.iter().flat_map(SplitCensus::labels) {
            *splits.entry(label).or_default() += 1;
        }
        let several = self.splits.len() > 1;
        for split in &mut self.splits {
            let alone: Vec<i64> = split.labels().filter(|label| several && splits.get(label) == Some(&1)).collect();
            split.only_here =
                alone.iter().filter_map(|label| Some(split.counts.get(label)?.class_name.clone())).collect();
        }
    }
}

impl SplitCensus {
    fn new(split: Split, counts: BTreeMap<i64, Count>, skips: &Skips) -> Self {
        let skipped = skips.of(Some(split));
        let mut census = Self {
            split: split.as_str(),
            listed: total(&counts) + skipped.iter().map(|skipped| skipped.count).sum::<usize>(),
            images: 0,
            rejects: 0,
            classes: 0,
            smallest: None,
            largest: None,
            only_here: Vec::new(),
            unreadable: Vec::new(),
            skipped,
            counts: BTreeMap::new(),
        };
        census.count(counts);
        census
    }

    fn count(&mut self, counts: BTreeMap<i64, Count>) {
        let size = |count: &Count| ClassSize { class_name: count.class_name.clone(), images: count.images };
        let with_images = || counts.values().filter(|count| count.images > 0);
        self.images = counts.values().map(|count| count.images).sum();
        self.rejects = counts.values().map(|count| count.rejects).sum();
        self.classes = with_images().count();
        self.smallest = with_images().min_by_key(|count| count.images).map(size);
        // The first of several, as for the smallest.
        self.largest =
            counts.values().rev().filter(|count| count.images > 0).max_by_key(|count| count.images).map(size);
        let unreadable = counts.values().filter(|count| count.images == 0);
        self.unreadable = unreadable.map(|count| count.class_name.clone()).collect();
        self.counts = counts;
    }

    /// Returns the labels of the classes with an image.
    fn labels(&self) -> impl Iterator<Item = i64> {
        self.counts.iter().filter(|(_, count)| count.images > 0).map(|(label, _)| *label)
    }
}

fn total(counts: &BTreeMap<i64, Count>) -> usize {
    counts.values().map(|count| count.images + count.rejects).sum()
}

fn shared_names(labels: &BTreeSet<i64>, classes: &Classes) -> Vec<SharedName> {
    let mut by_name: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for label in labels {
        by_name.entry(classes.name(*label)).or_default().push(*label);
    }
    let shared = by_name.into_iter().filter(|(_, labels)| labels.len() > 1);
    shared.map(|(class_name, labels)| SharedName { class_name, labels }).collect()
}

/// Returns warnings about what a census shows: much that was skipped, classes without an image, a folder too many.
pub(super) fn warnings(census: &Census, skips: &Skips) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = census.splits.iter().filter_map(much_skipped).collect();
    let empty: Vec<String> = skips.empty_classes.iter().map(|folder| format!("`{folder}`")).collect();
    if !empty.is_empty() {
        warnings.push(Warning::new(
            format!("class folders without an image are left out: {}", first_few(&empty)),
            format!("images are files that end in {}", image_endings()),
        ));
    }
    warnings.extend(census.splits.iter().filter_map(unread_metadata));
    warnings.extend(skips.captions.iter().map(|file| {
        Warning::new(
            format!("`{file}` has no field `label`, so the folders next to it are taken as classes"),
            "`source.label_column` names the field with the labels, if the file has them",
        )
    }));
    warnings.extend(skips.deep.iter().map(|(folder, example)| {
        Warning::new(
            format!("the folders in `{folder}` are taken as classes, and each has its images in several folders, such as `{example}`"),
            "if these are the classes, name the folder that they are in, in `source.splits`",
        )
    }));
    warnings
}

fn unread_metadata(split: &SplitCensus) -> Option<Warning> {
    let skipped = split.skipped.iter().find(|skipped| skipped.reason == Reason::Metadata)?;
    let examples: Vec<String> = skipped.examples.iter().map(|name| format!("`{name}`")).collect();
    let more = skipped.count.saturating_sub(examples.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(Warning::new(
        format!("metadata of the split {} is not read: {}{more}", split.split, examples.join(", ")),
        "`metadata.csv` or `metadata.jsonl` is read, and only in the folder of a split; move or convert the others",
    ))
}

fn much_skipped(split: &SplitCensus) -> Option<Warning> {
    let skipped: usize = split.skipped.iter().map(|skipped| skipped.count).sum();
    if skipped as f64 <= MAX_SKIPPED * split.listed as f64 {
        return None;
    }
    let examples: Vec<String> =
        split.skipped.iter().flat_map(|skipped| &skipped.examples).map(|name| format!("`{name}`")).collect();
    Some(Warning::new(
        format!(
            "{skipped} of {} files of the split {} were skipped: {}, such as {}",
            split.listed,
            split.split,
            listed(&split.skipped),
            examples.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
        "if some of these are images of yours, move them into class folders, or convert them to PNG or JPEG",
    ))
}
