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
            for file in matches(location, pattern).await? {
                if let Some((first, other)) = seen.insert(file.clone(), (*split, pattern)) {
                    let (first, second) = (first.as_str(), split.as_str());
                    return Err(if first == second {
                        let patterns = (other.clone(), pattern.clone());
                        SourceError::FileTwiceInSplit { file, split: first, patterns }
                    } else {
                        SourceError::FileTwice { file, first, second }
                    });
                }
                files.push(file);
            }
        }
        splits.push((*split, files));
    }
    Ok(splits)
}

/// Returns a hint for a name of `source.splits` or `source.table` that was not found and probably means something else;
/// empty if there is none. Only some kinds of sources have `patterns`.
pub(super) fn hint(name: &str, patterns: bool) -> &'static str {
    let is_share = |number: f64| number > 0.0 && number < 1.0;
    let percent =
        name.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok()).map(|percent| percent / 100.0);
    if percent.or_else(|| name.trim().parse().ok()).is_some_and(is_share) {
        return "\nhint: a share of the images of train is a number without quotes, such as `validation = 0.1`";
    }
    if !patterns && name.contains(['*', '?', '[', '{']) {
        return "\nhint: only the kinds `parquet` and `webdataset` have patterns such as `*` and `{0..9}`; here each name is \
                one file or folder, and a list names several";
    }
    ""
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_found_may_mean_something_else() {
        for (name, patterns, meant) in [
            ("0.1", true, "a share"),
            ("10 %", false, "a share"),
            ("lists/*.txt", false, "patterns"),
            ("{0..3}.csv", false, "patterns"),
            ("*.tar", true, ""),
            ("10", false, ""),
            ("train.csv", false, ""),
        ] {
            let hint = hint(name, patterns);
            assert!(hint.contains(meant) && hint.is_empty() == meant.is_empty(), "{name}: {hint}");
        }
    }
}
