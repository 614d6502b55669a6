//! A check of pipeline files for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use super::{Config, brace_expansion};
use crate::{error::Diagnostic, limited_read::damaged::without_own_panic};

const FILE: &str = "pipeline.toml";
/// Bytes of all names of a pattern.
const MAX_NAMES: usize = 1 << 20;

/// Each problem of a pipeline is on one line and says where it is, unless something is missing; what is accepted reads the
/// same again. Lines that begin with `--set ` are edits, the others are the file.
pub(crate) fn pipeline(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (edits, file): (Vec<&str>, Vec<&str>) = text.split('\n').partition(|line| line.starts_with("--set "));
    let edits: Vec<String> = edits.iter().filter_map(|line| line.strip_prefix("--set ")).map(str::to_owned).collect();
    let file = file.join("\n");
    without_own_panic(|| match Config::parse(&file, FILE, &edits) {
        Ok(config) => {
            assert_eq!(Config::parse(&file, FILE, &edits).expect("it parsed before"), config);
            serde_json::to_string(&config).expect("a configuration is plain data");
        }
        Err(problems) => {
            assert!(!problems.as_slice().is_empty());
            problems.as_slice().iter().for_each(|problem| check(problem, 1 + file.matches('\n').count()));
        }
    });
}

fn check(problem: &Diagnostic, lines: usize) {
    let shown = problem.to_string();
    assert!(!problem.message.is_empty(), "{shown}");
    assert!(shown.chars().count() < 4096 && !shown.contains(char::is_control), "{shown:?}");
    match problem.line {
        Some(line) => assert!(problem.file == FILE && (1..=lines).contains(&line), "{shown}"),
        None => {
            let of_an_edit = problem.file.starts_with("--set ");
            let unlisted = problem.message.ends_with("further problems are not listed");
            assert!(of_an_edit || unlisted || problem.message.contains("missing"), "no line: {shown}");
        }
    }
}

/// A pattern of names becomes names within a limit, or an error.
pub(crate) fn braces(bytes: &[u8]) {
    let Ok(pattern) = std::str::from_utf8(bytes) else { return };
    without_own_panic(|| match brace_expansion::expand(pattern, MAX_NAMES) {
        Ok(names) if pattern.contains('{') => {
            assert!((1..=100_000).contains(&names.len()));
            assert!(names.iter().map(String::len).sum::<usize>() <= MAX_NAMES);
            assert!(!names.iter().any(|name| name.contains(['{', '}'])));
        }
        Ok(names) => assert_eq!(names, [pattern]),
        Err(why) => assert!(why.len() < 200 && !why.contains(char::is_control), "{why}"),
    });
}
