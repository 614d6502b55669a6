//! Rules of the code base that no compiler checks.

use std::path::{Path, PathBuf};

use crate::support::root;

/// The only modules that may name a package.
const ONLY: &[(&str, &[&str])] = &[
    ("ort", &["models/onnx"]),
    ("polars", &["report"]),
    ("deltalake_core", &["lake"]),
    ("object_store", &["lake", "storage"]),
    ("parquet", &["lake", "source", "storage"]),
    ("csv", &["source"]),
    ("tar", &["export", "source"]),
    ("tokenizers", &["models/tokenizer"]),
    ("candle_core", &["experiment/learner"]),
    ("candle_nn", &["experiment/learner"]),
    ("hf_hub", &["models/hub"]),
    ("clap", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("reqwest", &["prompts"]),
];

/// The only module that starts work on rayon, where a panic ends the process.
const STARTS_ON_RAYON: &str = "imaging/contained";

/// The lines that a file may have. Tests inside a source file do not count, tests in a file of their own do.
const MAX_LINES: usize = 500;

/// The entries that `src` may have, so that `ls src` fits on a screen.
const MAX_ROOMS: usize = 24;

/// Returns the files below a folder of the repository whose names have this extension, in order.
pub(crate) fn files(below: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(below)];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns the path of a file below `src` without its extension: `lake/gc`, `lake/mod`, `clock`.
pub(crate) fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    below.to_string_lossy().replace('\\', "/")
}

/// Returns the code of a file, which ends where its tests begin.
pub(crate) fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

/// Whether a file of `src` holds nothing but tests, or checks of fuzzing.
pub(crate) fn is_test(path: &Path) -> bool {
    // The folder of the checkout may be called `tests`, too.
    let path = path.strip_prefix(root()).unwrap();
    path.components().any(|part| part.as_os_str() == "tests")
        || path.ends_with("tests.rs")
        || path.ends_with("fuzzing.rs")
}

#[test]
fn packages_stay_where_they_belong() {
    for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
        let (own, code) = (module(path), code(path));
        let stands_in = |room: &str| own == room || own.starts_with(&format!("{room}/"));
        for (package, modules) in ONLY {
            let named = code.contains(&format!("use {package}::")) || code.contains(&format!(" {package}::"));
            assert!(!named || modules.iter().any(|room| stands_in(room)), "{}: names `{package}`", path.display());
        }
    }
}

#[test]
fn work_on_rayon_is_contained() {
    let mut found = Vec::new();
    for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
        if code(path).contains("rayon::spawn") {
            found.push(module(path));
        }
    }
    assert_eq!(found, [STARTS_ON_RAYON], "modules that start work on rayon");
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
        let code = code(path);
        assert!(code.lines().count() <= MAX_LINES, "{} is longer than {MAX_LINES} lines", path.display());
        assert!(code.starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
    for path in files("sql", "sql") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-- "), "{} does not begin with what it chooses", path.display());
    }
}

#[test]
fn tests_of_the_program_say_what_they_are_for() {
    for path in files("tests/it", "rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
    let main = std::fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    let modules: Vec<&str> = main.lines().filter(|line| line.starts_with("mod ")).collect();
    assert!(modules.len() > 10, "only {} modules were found: this test reads nothing", modules.len());
    for line in modules {
        let comment = line.split_once("; // ").map_or("", |(_, comment)| comment);
        assert!(!comment.is_empty() && !comment.contains("//"), "tests/it/main.rs: `{line}` needs one comment");
    }
}

#[test]
fn the_list_of_modules_fits_on_a_screen() {
    let count = std::fs::read_dir(root().join("src")).unwrap().count();
    assert!(count <= MAX_ROOMS, "`src` has {count} entries, {MAX_ROOMS} are allowed");
}

#[test]
fn every_query_is_in_the_catalogue() {
    let catalogue = std::fs::read_to_string(root().join("src/plan/catalogue/mod.rs")).unwrap();
    for path in files("sql", "sql") {
        let name = path.strip_prefix(root().join("sql")).unwrap().to_string_lossy().replace('\\', "/");
        assert!(catalogue.contains(&format!("\"{name}\"")), "sql/{name} is not embedded");
    }
}

#[test]
fn no_test_is_switched_off() {
    let mark = ["#[", "ignore"].concat();
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&mark), "{}", path.display());
    }
}
