//! Rules of the code base that no compiler keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::support::root;

/// The modules, from the top down: a module uses those below it. `models` has a ladder of its own.
const LADDERS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "main",
            "lib",
            "cli",
            "experiment",
            "export",
            "run",
            "feedback",
            "report",
            "pipeline",
            "prompts",
            "session",
            "udf",
            "source",
            "models",
            "plan",
            "lake",
            "storage",
            "schema",
            "imaging",
            "identity",
            "clock",
            "limited_read",
            "config",
            "error",
        ],
    ),
    ("models", &["mod", "describe", "hub", "clip", "diffusion", "classifier", "tokenizer", "onnx"]),
];

/// Who alone may name a package.
const ONLY: &[(&str, &[&str])] = &[
    ("ort", &["models/onnx"]),
    ("polars", &["report"]),
    ("deltalake_core", &["lake", "storage"]),
    ("object_store", &["lake", "storage"]),
    ("parquet", &["lake", "source", "storage"]),
    ("csv", &["source"]),
    ("tar", &["export", "source"]),
    ("tokenizers", &["models/tokenizer"]),
    ("candle_core", &["experiment/learner"]),
    ("candle_nn", &["experiment/learner"]),
    ("hf_hub", &["models/hub"]),
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

/// Where a file stands below `src`, without its ending: `lake/gc`, `lake/mod`, `clock`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    below.to_string_lossy().replace('\\', "/")
}

/// The part of `module` that lies directly in `room`; none for a module outside of it.
fn part<'a>(module: &'a str, room: &str) -> Option<&'a str> {
    let below = if room.is_empty() { module } else { module.strip_prefix(room)?.strip_prefix('/')? };
    below.split('/').next()
}

/// The code of a file: what is before its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// Every name that follows `prefix` in a text, up to the next `::`; of `prefix{a, b::{c, d}}` these are `a` and `b`.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = Vec::new();
    for part in text.split(prefix).skip(1) {
        let Some(group) = part.strip_prefix('{') else {
            found.push(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut name) = (0, String::new());
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => found.push(std::mem::take(&mut name)),
                _ if depth == 0 => name.push(character),
                _ => {}
            }
        }
        found.push(name);
    }
    found
        .iter()
        .map(|name| name.trim().split("::").next().unwrap().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn modules_use_only_those_below_them() {
    for (room, ladder) in LADDERS {
        let prefix = if room.is_empty() { "crate::".to_owned() } else { format!("crate::{room}::") };
        let rank: BTreeMap<&str, usize> = ladder.iter().enumerate().map(|(rank, part)| (*part, rank)).collect();
        let mut seen = 0;
        for path in files("src", "rs").iter().filter(|path| !is_test(path)) {
            let module = module(path);
            let Some(own) = part(&module, room) else { continue };
            let own_rank =
                *rank.get(own).unwrap_or_else(|| panic!("`{module}` has no place in the ladder of `{room}`"));
            for used in names_after(&code(path), &prefix) {
                let Some(&used_rank) = rank.get(used.as_str()) else { continue };
                seen += 1;
                assert!(used_rank >= own_rank, "{}: `{own}` reaches up to `{used}`", path.display());
            }
        }
        assert!(seen > 5, "only {seen} uses were found in `{room}`: this test reads nothing");
    }
}

#[test]
fn the_map_of_the_architecture_is_the_ladder() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = map.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let (nested, top): (Vec<_>, Vec<_>) = rows.partition(|name| name.contains('/'));
    let ladder = |room: &str| LADDERS.iter().find(|(name, _)| *name == room).unwrap().1;
    let without = |room: &str, hidden: &[&str]| -> Vec<String> {
        ladder(room).iter().filter(|part| !hidden.contains(part)).map(|part| (*part).to_owned()).collect()
    };
    assert_eq!(top, without("", &["main", "lib"]));
    let nested: Vec<_> = nested.iter().map(|name| name.strip_prefix("models/").unwrap()).collect();
    assert_eq!(nested, without("models", &["mod"]));
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
    let catalogue = std::fs::read_to_string(root().join("src/plan/catalogue.rs")).unwrap();
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
