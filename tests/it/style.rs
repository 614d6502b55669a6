//! One style of code and words, as far as text can be searched for it. `tidy` has the rules of structure.

use std::{fs, path::Path};

use crate::{support::root, tidy::files};

/// Fails with every place that breaks a rule.
#[track_caller]
fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Returns `path:line`, relative to the repository.
fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.strip_prefix(root()).unwrap().display())
}

#[test]
fn an_image_is_an_image() {
    let other = ["pict", "ure"].concat();
    let mut found = Vec::new();
    let folders = [files("docs", "md"), files("src", "rs"), files("sql", "sql")].concat();
    for path in folders.into_iter().chain([root().join("README.md")]) {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            if line.to_lowercase().contains(&other) {
                found.push(format!("{}: {}", place(&path, number), line.trim()));
            }
        }
    }
    assert_none(&found, &format!("an image is never called `{other}`"));
}
