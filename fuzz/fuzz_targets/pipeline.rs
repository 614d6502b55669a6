//! The pipeline's TOML and `--set` edits.
//!
//! No input may panic. Each problem is one line, with the line of the file or the edit that it is about, unless a key is
//! missing. A file that is accepted parses to the same configuration again.
//!
//! Lines of the input that begin with `--set ` are edits, the others are the file.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/config/mod.rs"]
mod config;

/// Stands in for the module of that name, without the error that needs DataFusion.
#[path = "."]
mod error {
    #[path = "../../src/error/diagnostics.rs"]
    pub(crate) mod diagnostics;
    #[path = "../../src/error/text.rs"]
    pub(crate) mod text;

    pub use diagnostics::{Diagnostic, Diagnostics};
}

#[path = "../../src/limited_read/mod.rs"]
mod limited_read;

use config::Config;
use error::Diagnostic;

const FILE: &str = "pipeline.toml";

fn check(problem: &Diagnostic, lines: usize) {
    let shown = problem.to_string();
    assert!(!problem.message.is_empty(), "{shown}");
    // The user's text is shortened, so a message stays short enough to read.
    assert!(shown.chars().count() < 4096, "{} characters: {shown}", shown.chars().count());
    assert!(!shown.contains(char::is_control), "{shown:?}");
    match problem.line {
        Some(line) => assert!(problem.file == FILE && (1..=lines.max(1)).contains(&line), "{shown}"),
        None => {
            let of_an_edit = problem.file.starts_with("--set ");
            let unlisted = problem.message.ends_with("further problems are not listed");
            assert!(of_an_edit || unlisted || problem.message.contains("missing"), "no line: {shown}");
        }
    }
}

fuzz_target!(|text: &str| {
    let (edits, file): (Vec<&str>, Vec<&str>) = text.split('\n').partition(|line| line.starts_with("--set "));
    let edits: Vec<String> = edits.iter().filter_map(|line| line.strip_prefix("--set ")).map(str::to_owned).collect();
    let file = file.join("\n");
    match Config::parse(&file, FILE, &edits) {
        Ok(config) => {
            assert_eq!(Config::parse(&file, FILE, &edits).expect("it parsed before"), config);
            serde_json::to_string(&config).expect("a configuration is plain data");
        }
        Err(problems) => {
            let problems = problems.as_slice();
            assert!(!problems.is_empty());
            let lines = 1 + file.matches('\n').count();
            problems.iter().for_each(|problem| check(problem, lines));
        }
    }
});
