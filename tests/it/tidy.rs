//! Rules of the code base that no compiler checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::support::root;

/// The modules from the top down. A module uses only those below it. `models` has its own ladder.
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
    (
        "models",
        &[
            "mod",
            "describe",
            "inspect",
            "error",
            "hub",
            "clip",
            "diffusion",
            "classifier",
            "preprocess",
            "tokenizer",
            "onnx",
            "model_dir",
            "cache_dir",
        ],
    ),
];

/// The only modules that may name a package.
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
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("reqwest", &["prompts"]),
];

/// The lines that a file may have. Tests inside a source file do not count, tests in a file of their own do.
const MAX_LINES: usize = 500;

/// The entries that `src` may have, so that `ls src` fits on a screen.
const MAX_ROOMS: usize = 24;

/// Returns the files below a folder of the repository whose names have this extension, in order.
pub fn files(below: &str, ending: &str) -> Vec<PathBuf> {
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
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    below.to_string_lossy().replace('\\', "/")
}

/// Returns the part of `module` that is directly in `room`, or `None` for a module outside of it.
fn part<'a>(module: &'a str, room: &str) -> Option<&'a str> {
    let below = if room.is_empty() { module } else { module.strip_prefix(room)?.strip_prefix('/')? };
    below.split('/').next()
}

/// Returns the code of a file, which ends where its tests begin.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

/// Whether a file of `src` holds nothing but tests.
fn is_test(path: &Path) -> bool {
    // The folder of the checkout may be called `tests`, too.
    let path = path.strip_prefix(root()).unwrap();
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// Returns every name that follows `prefix` in a text, up to the next `::`: `a` and `b` for `prefix{a, b::{c, d}}`.
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
