//! One style of code and words, as far as text can be searched for it. `tidy` has the rules of structure.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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

/// Returns the Rust files of the program and of its tests.
fn rust_files() -> Vec<PathBuf> {
    files("src", "rs").into_iter().chain(files("tests", "rs")).collect()
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

/// The lines that a file of tests may have.
const MAX_LINES: usize = 500;

#[test]
fn files_of_tests_are_as_short_as_others() {
    let is_test = |path: &PathBuf| {
        let path = path.strip_prefix(root()).unwrap();
        path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
    };
    let mut found = Vec::new();
    for path in rust_files().iter().filter(|path| is_test(path)) {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        if lines > MAX_LINES {
            found.push(format!("{} lines", place(path, lines)));
        }
    }
    assert_none(&found, &format!("a file of tests has at most {MAX_LINES} lines"));
}

/// Long unit tests are `tests.rs` or `tests/mod.rs` next to the `mod.rs` of the code that they test.
#[test]
fn files_of_unit_tests_are_next_to_mod_rs() {
    let mut found = Vec::new();
    for path in files("src", "rs") {
        let folder = path.parent().unwrap();
        let wrong = if path.ends_with("tests.rs") {
            !folder.join("mod.rs").exists() || folder.join("tests").exists()
        } else if path.ends_with("tests/mod.rs") {
            !folder.parent().unwrap().join("mod.rs").exists()
        } else {
            folder.ends_with("tests") && !folder.join("mod.rs").exists()
        };
        if wrong {
            found.push(place(&path, 1));
        }
    }
    assert_none(&found, "unit tests in a file of their own are next to the `mod.rs` of what they test");
}

/// docs/reliability.md names the tests that show what it claims, as `file::test` or `file::*`.
#[test]
fn tests_that_the_documentation_names_exist() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let names = page.split('`').filter_map(|code| code.split_once("::")).filter(|(file, _)| *file != "file");
    let (mut found, mut seen) = (Vec::new(), 0);
    for (file, test) in
        names.filter(|(file, _)| file.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)))
    {
        seen += 1;
        let path = root().join("tests/it").join(file);
        let text = fs::read_to_string(path.with_extension("rs")).or_else(|_| fs::read_to_string(path.join("mod.rs")));
        let exists = text.is_ok_and(|text| test == "*" || text.contains(&format!("fn {test}(")));
        if !exists {
            found.push(format!("`{file}::{test}`"));
        }
    }
    assert!(seen > 5, "only {seen} names were found: this test reads nothing");
    assert_none(&found, "docs/reliability.md names tests that do not exist");
}

#[test]
fn limits_are_called_max_and_min() {
    let mut found = Vec::new();
    for path in files("src", "rs") {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let bad = ["MOST_", "LONGEST_", "LARGEST_", "LEAST_"];
            found.extend(
                words
                    .filter(|word| bad.iter().any(|prefix| word.starts_with(prefix)))
                    .map(|word| format!("{}: `{word}`", place(&path, number))),
            );
        }
    }
    assert_none(&found, "a constant for a limit is called `MAX_…` or `MIN_…`");
}

/// A missing column is a bug in a query, so code that skips it would lose rows without a word.
#[test]
fn missing_columns_are_errors() {
    let mut found = Vec::new();
    for path in files("src", "rs") {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("else {") {
            if !text[at + "else {".len()..].trim_start().starts_with("continue") {
                continue;
            }
            let statement = text[..at].rfind("let ").map_or("", |start| &text[start..at]);
            if statement.contains("column") {
                found.push(place(&path, 1 + text[..at].matches('\n').count()));
            }
        }
    }
    assert_none(&found, "a column that is missing is an error and not a `continue`");
}

/// The traits that are derived most, in their order. All others follow.
const DERIVES: [&str; 9] = ["Debug", "Clone", "Copy", "Default", "PartialEq", "Eq", "PartialOrd", "Ord", "Hash"];

#[test]
fn derives_have_one_order() {
    let mut found = Vec::new();
    for path in rust_files() {
        let text = fs::read_to_string(&path).unwrap();
        for (at, mark) in text.match_indices("#[derive(") {
            let traits = text[at + mark.len()..].split(")]").next().unwrap();
            let rank = |name: &str| DERIVES.iter().position(|known| *known == name).unwrap_or(DERIVES.len());
            if !traits.split(',').map(|name| rank(name.trim())).is_sorted() {
                found.push(format!("{}: {traits}", place(&path, 1 + text[..at].matches('\n').count())));
            }
        }
    }
    assert_none(&found, &format!("derives have the order {}, then others", DERIVES.join(", ")));
}

/// `use std::{fs, path::Path};` and never two `use std::…` in one block.
#[test]
fn a_block_has_one_use_for_each_root() {
    let mut found = Vec::new();
    for path in rust_files() {
        let text = fs::read_to_string(&path).unwrap();
        // The roots of the blocks around a line, by their indentation.
        let mut seen: BTreeSet<(usize, &str)> = BTreeSet::new();
        let mut previous = "";
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let indentation = line.len() - line.trim_start().len();
            seen.retain(|(other, _)| *other <= indentation);
            if let Some(used) = line.trim_start().strip_prefix("use ") {
                let used = used.trim_end_matches(';');
                let tree = used.split("::").next().unwrap();
                // A `use` with an attribute, as `#[cfg(unix)]`, cannot be merged with others.
                if !previous.starts_with("#[") && !seen.insert((indentation, tree)) {
                    found.push(format!("{}: `{tree}`", place(&path, number)));
                }
            }
            previous = line.trim_start();
        }
    }
    assert_none(&found, "a block has one braced `use` for each crate, `crate` and `super`");
}
