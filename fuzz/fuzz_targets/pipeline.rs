//! The pipeline's TOML and `--set` edits.
//!
//! No text may panic. What is refused is said on single lines, each with the line of the file or the edit that it is
//! about, unless something is missing. What is accepted is the same when it is read again.
//!
//! Lines of the input that begin with `--set ` are edits, the others are the file.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/config/mod.rs"]
mod config;

use config::{Config, Diagnostic};

/// More lines than any pipeline's file has.
const FILE: &str = "pipeline.toml";

fn check(problem: &Diagnostic, lines: usize) {
    let shown = problem.to_string();
    assert!(!problem.message.is_empty(), "{shown}");
    // a prompt or a path of the user's is cut, so a message stays short enough to read
    assert!(shown.chars().count() < 4096, "{} characters: {shown}", shown.chars().count());
    assert!(!shown.contains(char::is_control), "{shown:?}");
    match problem.line {
        Some(line) => assert!(problem.file == FILE && (1..=lines.max(1)).contains(&line), "{shown}"),
        None => {
            let of_an_edit = problem.file.starts_with("--set ");
            let left_out = problem.message.ends_with("further problems are not listed");
            assert!(of_an_edit || left_out || problem.message.contains("missing"), "no line: {shown}");
        }
    }
}

fuzz_target!(|text: &str| {
    let (edits, file): (Vec<&str>, Vec<&str>) = text.split('\n').partition(|line| line.starts_with("--set "));
    let edits: Vec<String> = edits.iter().filter_map(|line| line.strip_prefix("--set ")).map(str::to_owned).collect();
    let file = file.join("\n");
    match Config::parse(&file, FILE, &edits) {
        Ok(read) => {
            assert_eq!(Config::parse(&file, FILE, &edits).expect("it was read before"), read);
            serde_json::to_string(&read).expect("a configuration is plain data");
        }
        Err(problems) => {
            let problems = problems.as_slice();
            assert!(!problems.is_empty());
            let lines = 1 + file.matches('\n').count();
            problems.iter().for_each(|problem| check(problem, lines));
        }
    }
});
