//! The layers of the code: a module uses only those below it, and no folder has a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    support::root,
    tidy::{code, files, is_test, module},
};

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
            "config",
            "limited_read",
            "error",
        ],
    ),
    (
        "models",
        &[
            "mod",
            "bench",
            "describe",
            "inspect",
            "error",
            "hub",
            "clip",
            "rates",
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

/// A file of `src`: where it stands below `src`, and the module that each of its paths leads to.
struct File {
    /// `["lake", "gc"]` for `lake/gc.rs`, `["lake", "mod"]` for `lake/mod.rs`.
    module: Vec<String>,
    /// Paths from the root of the crate.
    used: BTreeSet<Vec<String>>,
}

fn source_files() -> Vec<File> {
    let of = |path: &std::path::PathBuf| {
        let module: Vec<String> = module(path).split('/').map(str::to_owned).collect();
        let used = used_paths(&code(path), &module);
        File { module, used }
    };
    files("src", "rs").iter().filter(|path| !is_test(path)).map(of).collect()
}

/// Every path in a file that begins with `crate`, `super` or `self`, from the root of the crate; of a `use` with braces
/// each of its paths.
fn used_paths(code: &str, module: &[String]) -> BTreeSet<Vec<String>> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
    let here = if module.last().unwrap() == "mod" { &module[..module.len() - 1] } else { module };
    let (mut used, mut read) = (BTreeSet::new(), 0);
    for (colons, _) in code.match_indices("::") {
        let before = &code[..colons];
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let is_root = ["crate", "super", "self"].contains(&&before[start..]) && !before[..start].ends_with("::");
        // What is in the braces of another path belongs to that path.
        if !is_root || start < read {
            continue;
        }
        let (mut rest, mut paths) = (code[start..].chars().peekable(), Vec::new());
        tree(&mut rest, &mut Vec::new(), &mut paths);
        read = code.len() - rest.map(char::len_utf8).sum::<usize>();
        used.extend(paths.into_iter().filter_map(|path| absolute(&path, here)));
    }
    used
}

/// Reads a path, or what is in braces at its end, and collects every path in it.
fn tree(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let depth = path.len();
    loop {
        while rest.peek().is_some_and(|c| c.is_whitespace()) {
            rest.next();
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '*') {
            name.push(c);
        }
        path.push(name);
        if rest.peek() != Some(&':') {
            break;
        }
        rest.next();
        if rest.next_if_eq(&':').is_none() {
            break;
        }
        if rest.next_if_eq(&'{').is_some() {
            loop {
                tree(rest, path, found);
                while rest.peek().is_some_and(|c| c.is_whitespace()) {
                    rest.next();
                }
                if rest.next_if_eq(&',').is_none() {
                    break;
                }
            }
            while rest.peek().is_some_and(|c| c.is_whitespace()) {
                rest.next();
            }
            rest.next_if_eq(&'}');
            path.truncate(depth);
            return;
        }
    }
    found.push(path.clone());
    path.truncate(depth);
}

/// The path from the root of the crate, of a path in the module `here`.
fn absolute(path: &[String], here: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (&here[..0], &path[1..]),
        "self" => (here, &path[1..]),
        _ => (here.get(..here.len().checked_sub(ups)?)?, &path[ups..]),
    };
    let rest = rest.iter().filter(|name| !name.is_empty() && *name != "self" && *name != "*");
    Some(base.iter().chain(rest).cloned().collect())
}

/// What a folder's `mod.rs` hands on with `pub use`: each name with the part that it comes from.
fn handed_on(room: &[String]) -> BTreeMap<String, String> {
    let path = root().join("src").join(room.join("/")).join("mod.rs");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut names = BTreeMap::new();
    for statement in text.split(';').map(str::trim) {
        let Some((_, used)) = statement.rsplit_once("pub use ").or(statement.rsplit_once(") use ")) else { continue };
        let Some((part, rest)) = used.trim_start_matches("self::").split_once("::") else { continue };
        for name in rest.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()) {
            names.insert(name.to_owned(), part.to_owned());
        }
    }
    names
}

/// Which parts of a folder use which: files, and folders as wholes. `mod.rs` is left out, since it names its parts and is
/// named by them.
fn uses_within(room: &[String], sources: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let inside: Vec<&File> = sources.iter().filter(|file| file.module.starts_with(room)).collect();
    let parts: BTreeSet<&String> = inside.iter().map(|file| &file.module[room.len()]).collect();
    let handed_on = handed_on(room);
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in inside {
        let own = &file.module[room.len()];
        let used = file.used.iter().filter(|path| path.starts_with(room)).filter_map(|path| path.get(room.len()));
        for name in used {
            let target = if parts.contains(name) { Some(name) } else { handed_on.get(name) };
            if let Some(target) = target.filter(|target| *target != own && own != "mod") {
                uses.entry(own.clone()).or_default().insert(target.clone());
            }
        }
    }
    uses
}

/// Returns a circle in `uses`, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(uses: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let here = way.last().unwrap().clone();
        for next in uses.get(&here).into_iter().flatten() {
            if done.contains(next) {
                continue;
            }
            let closes = way.contains(next);
            way.push(next.clone());
            if closes || walk(uses, way, done) {
                return true;
            }
            way.pop();
        }
        done.insert(here);
        false
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        walk(uses, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn modules_use_only_those_below_them() {
    let sources = source_files();
    for (room, ladder) in LADDERS {
        let room: Vec<String> = room.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let rank: BTreeMap<&str, usize> = ladder.iter().enumerate().map(|(rank, part)| (*part, rank)).collect();
        let mut seen = 0;
        for file in sources.iter().filter(|file| file.module.starts_with(&room)) {
            let (name, own) = (file.module.join("/"), &file.module[room.len()]);
            let own_rank = *rank.get(own.as_str()).unwrap_or_else(|| panic!("`{name}` has no place in the ladder"));
            for used in file.used.iter().filter(|path| path.starts_with(&room)).filter_map(|path| path.get(room.len()))
            {
                let Some(&used_rank) = rank.get(used.as_str()) else { continue };
                seen += 1;
                assert!(used_rank >= own_rank, "src/{name}.rs: `{own}` reaches up to `{used}`");
            }
        }
        assert!(seen > 20, "only {seen} uses were found in {room:?}: this test reads nothing");
    }
}

#[test]
fn no_folder_has_a_circle() {
    let sources = source_files();
    let rooms: BTreeSet<&[String]> =
        sources.iter().filter(|file| file.module.len() > 1).map(|file| &file.module[..file.module.len() - 1]).collect();
    let mut seen = 0;
    for room in rooms {
        let uses = uses_within(room, &sources);
        seen += uses.len();
        if let Some(circle) = circle(&uses) {
            panic!("src/{}: {}", room.join("/"), circle.join(" -> "));
        }
    }
    assert!(seen > 100, "only {seen} uses were found: this test reads nothing");
}

#[test]
fn a_circle_is_found() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        circle(&uses)
    };
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("c", "b")]).unwrap(), ["a", "b", "c", "b"]);
    let here = ["models", "onnx", "model"].map(str::to_owned);
    let code =
        "use super::{error::OnnxError, super::hub};\nuse crate::{clock, models::{clip::{A, B}, hub}};\n// crate::no\n";
    let found: Vec<String> = used_paths(code, &here).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["clock", "models::clip::A", "models::clip::B", "models::hub", "models::onnx::error::OnnxError"]);
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
