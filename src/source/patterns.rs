//! Names of `source.splits` with `*`, `?` or `[…]` stand for the files that match them.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};

use super::{
    error::{Result, SourceError},
    names::is_left_behind,
};
use crate::{
    config::{self, SourceKind, Split},
    storage::{Found, Location},
};

/// As in a shell: `*` stops at a `/`.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Returns the splits of a source with the files that their patterns match, in sorted order. Only Parquet files and tars are
/// named by patterns.
///
/// # Errors
/// Returns an error if a folder cannot be listed, a pattern matches no file, or a file is in two splits.
pub(super) async fn expand(location: &Location, config: &config::Source) -> Result<Vec<(Split, Vec<String>)>> {
    let names = &config.splits.names;
    if !matches!(config.kind, SourceKind::Parquet { .. } | SourceKind::WebDataset { .. }) {
        return Ok(names.clone());
    }
    let (mut splits, mut seen) = (Vec::new(), BTreeMap::new());
    for (split, patterns) in names {
        let mut files = Vec::new();
        for pattern in patterns {
            files.extend(matches(location, pattern).await?);
        }
        for file in &files {
            if let Some(first) = seen.insert(file.clone(), *split) {
                let (first, second) = (first.as_str(), split.as_str());
                return Err(SourceError::FileTwice { file: file.clone(), first, second });
            }
        }
        splits.push((*split, files));
    }
    Ok(splits)
}

/// Returns the files that `pattern` matches. A name without a pattern, or of a file that exists, is itself.
async fn matches(location: &Location, pattern: &str) -> Result<Vec<String>> {
    let Some(start) = pattern.find(['*', '?', '[']) else { return Ok(vec![pattern.to_owned()]) };
    let Ok(parsed) = Pattern::new(pattern) else { return Ok(vec![pattern.to_owned()]) };
    if location.find(pattern).await?.is_some() {
        return Ok(vec![pattern.to_owned()]);
    }
    let folder = pattern.get(..start).and_then(|fixed| fixed.rsplit_once('/')).map_or("", |(folder, _)| folder);
    let mut files = Vec::new();
    let mut listed = location.list_tree(folder);
    while let Some(found) = listed.try_next().await? {
        if let Found::Object(object) = found
            && parsed.matches_with(object.name(), OPTIONS)
            && !is_left_behind(object.name())
        {
            files.push(object.name().to_owned());
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(SourceError::NoMatch { pattern: pattern.to_owned() }),
        false => Ok(files),
    }
}
