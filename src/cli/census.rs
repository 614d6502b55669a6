//! How the census of a data set is printed.

use super::output;
use crate::{
    error::text::first_few,
    source::{Census, ClassSize, SplitCensus, listed},
};

/// Returns the census as a table and the lines below it. Rejects are in it once there are any.
pub(super) fn text(census: &Census) -> String {
    let rejects = census.splits.iter().any(|split| split.rejects > 0);
    let mut header = vec!["split", "images", "classes", "smallest class", "largest class", "skipped"];
    if rejects {
        header.insert(2, "rejects");
    }
    let rows: Vec<_> = census.splits.iter().map(|split| cells(split, rejects)).collect();
    let mut lines = vec![output::aligned(&header, &rows)];
    for split in &census.splits {
        if !split.only_here.is_empty() {
            lines.push(format!("only in {}: {}", split.split, names(&split.only_here)));
        }
    }
    for shared in &census.shared_names {
        let labels: Vec<String> = shared.labels.iter().map(i64::to_string).collect();
        lines.push(format!("`{}` is the name of the classes {}", shared.class_name, labels.join(", ")));
    }
    if !census.unused_names.is_empty() {
        lines.push(format!("classes without an image: {}", names(&census.unused_names)));
    }
    if !census.unused.is_empty() {
        lines.push(format!("not used: rows {}", listed(&census.unused)));
    }
    lines.join("\n")
}

fn cells(split: &SplitCensus, rejects: bool) -> Vec<String> {
    let size = |size: &Option<ClassSize>| {
        size.as_ref().map_or_else(String::new, |size| format!("{} ({})", size.class_name, size.images))
    };
    let mut cells = vec![split.split.to_owned(), split.images.to_string(), split.classes.to_string()];
    if rejects {
        cells.insert(2, split.rejects.to_string());
    }
    cells.push(size(&split.smallest));
    cells.push(size(&split.largest));
    cells.push(if split.skipped.is_empty() { "0".to_owned() } else { listed(&split.skipped) });
    cells
}

fn names(names: &[String]) -> String {
    first_few(&names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>())
}
