//! Rules of the house that no compiler keeps.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::support::root;

/// The modules, from the top down: a module uses those below it.
const LADDER: &[&str] = &[
    "main",
    "lib",
    "cli",
    "experiment",
    "export",
    "run",
    "verify",
    "status",
    "forecast",
    "retry",
    "feedback",
    "prompts",
    "report",
    "pipeline",
    "step",
    "session",
    "udf",
    "models",
    "hub",
    "source",
    "plan",
    "diffusion",
    "clip",
    "classifier",
    "tokens",
    "onnx",
    "imaging",
    "lake",
    "queries",
    "schema",
    "learner",
    "identity",
    "clock",
    "bounded",
    "error",
    "config",
];

/// Who alone may name a package.
const ONLY: &[(&str, &[&str])] = &[
    ("ort", &["onnx"]),
    ("polars", &["report"]),
    ("deltalake_core", &["lake"]),
    ("object_store", &["lake", "source"]),
    ("parquet", &["lake", "source"]),
    ("csv", &["source"]),
    ("tar", &["export", "source"]),
    ("tokenizers", &["tokens"]),
    ("candle_core", &["learner"]),
    ("candle_nn", &["learner"]),
    ("hf_hub", &["hub"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("reqwest", &["prompts"]),
];

/// Lines of a file, tests apart.
const LONGEST: usize = 500;

fn files(below: &str, ending: &str) -> Vec<PathBuf> {
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

/// The first part of a path below `src`: the module that it belongs to.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    below.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The code of a file: what is before its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// Every `crate::name` in a text, in `use crate::{…}` groups too.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for part in text.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(character),
                    _ => {}
                }
            }
            used.push(name);
        } else {
            used.push(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used.iter().map(|name| name.trim().split("::").next().unwrap().to_owned()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn modules_use_only_those_below_them() {
    let rank: BTreeMap<&str, usize> = LADDER.iter().enumerate().map(|(rank, module)| (*module, rank)).collect();
    let mut seen = 0;
    for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
        let own = module(path);
        let own_rank = *rank.get(own.as_str()).unwrap_or_else(|| panic!("`{own}` has no place in the ladder"));
        for used in used_modules(&code(path)) {
            let Some(&used_rank) = rank.get(used.as_str()) else { continue };
            seen += 1;
            assert!(used_rank >= own_rank, "{}: `{own}` reaches up to `{used}`", path.display());
        }
    }
    assert!(seen > 50, "only {seen} uses were found: this test reads nothing");
}

#[test]
fn packages_stay_where_they_belong() {
    for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
        let (own, code) = (module(path), code(path));
        for (package, modules) in ONLY {
            let named = code.contains(&format!("use {package}::")) || code.contains(&format!(" {package}::"));
            assert!(!named || modules.contains(&own.as_str()), "{}: names `{package}`", path.display());
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
        let code = code(path);
        assert!(code.lines().count() <= LONGEST, "{} is longer than {LONGEST} lines", path.display());
        assert!(code.starts_with("//!"), "{} does not begin with what it is for", path.display());
    }
    for path in files("sql", "sql") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-- "), "{} does not begin with what it chooses", path.display());
    }
}

#[test]
fn every_query_is_in_the_catalogue() {
    let catalogue = std::fs::read_to_string(root().join("src/queries.rs")).unwrap();
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
