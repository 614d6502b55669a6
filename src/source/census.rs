//! The census of a data set: for each split its images, its classes, and what was skipped and why. Images and what was
//! skipped add up to what was listed, so that nothing is lost silently.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    classes::Classes,
    entry::Entry,
    names::image_endings,
    skips::{Skipped, Skips, listed},
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
    /// Images. Before they are read, also those that will turn out to be unreadable.
    pub(crate) images: usize,
    /// Images that could not be read; 0 before they are.
    pub(crate) rejects: usize,
    pub(crate) classes: usize,
    /// The class with the fewest images.
    pub(crate) smallest: Option<ClassSize>,
    /// The class with the most images.
    pub(crate) largest: Option<ClassSize>,
    /// Classes that no other split has, if there are several splits.
    pub(crate) only_here: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
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
    let mut sizes: BTreeMap<Split, BTreeMap<i64, usize>> = BTreeMap::new();
    for (entry, label) in entries.iter().zip(labels) {
        *sizes.entry(entry.split).or_default().entry(*label).or_default() += 1;
    }
    let splits = sizes.iter().map(|(&split, of_split)| {
        let size = |(label, images): (&i64, &usize)| ClassSize { class_name: classes.name(*label), images: *images };
        let others: BTreeSet<&i64> =
            sizes.iter().filter(|(other, _)| **other != split).flat_map(|(_, of_split)| of_split.keys()).collect();
        let only_here = of_split.keys().filter(|label| sizes.len() > 1 && !others.contains(label));
        let skipped = skips.of(Some(split));
        let images = of_split.values().sum();
        SplitCensus {
            split: split.as_str(),
            listed: images + skipped.iter().map(|skipped| skipped.count).sum::<usize>(),
            images,
            rejects: 0,
            classes: of_split.len(),
            smallest: of_split.iter().min_by_key(|(_, images)| **images).map(size),
            largest: of_split.iter().rev().max_by_key(|(_, images)| **images).map(size),
            only_here: only_here.map(|label| classes.name(*label)).collect(),
            skipped,
        }
    });
    let used = sizes.values().flat_map(BTreeMap::keys).copied().collect::<BTreeSet<i64>>();
    Census {
        splits: splits.collect(),
        unused: skips.of(None),
        shared_names: shared_names(&used, classes),
        unused_names: classes.unused(&used),
    }
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

fn much_skipped(split: &SplitCensus) -> Option<Warning> {
    let skipped = split.listed - split.images;
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
