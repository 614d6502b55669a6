//! Bad input of every kind: what the program reports, that it never panics, and that nothing is lost.

mod classes;
mod lake;
mod models;
mod pipeline;
mod queries;
mod source;

use std::process::Command;

use insta::internals::SettingsBindDropGuard;

use crate::support::{Workspace, root, stderr};

/// Runs the program, which must fail without a panic, and returns its exit code and its stderr.
#[track_caller]
fn said(process: &mut Command) -> String {
    let output = process.output().unwrap();
    let (code, said) = (output.status.code().unwrap_or(-1), stderr(&output));
    assert!(code > 0 && code != 101 && !said.contains("panicked"), "exit code {code}\n{said}");
    format!("exit code {code}\n{said}")
}

/// Returns what `check` reports for a pipeline with these edits, and asserts that nothing was written.
#[track_caller]
fn check(workspace: &mut Workspace, edits: &[&str]) -> String {
    for edit in edits {
        workspace.edit(edit);
    }
    let said = said(&mut workspace.command("check", &[]));
    assert!(!workspace.lake().exists(), "`check` wrote something");
    said
}

/// Replaces the temporary directory by `[dir]` and the repository by `[root]` in snapshots.
fn filters(workspace: &Workspace) -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    let directory = workspace.path("");
    for (path, name) in [(directory.as_path(), "[dir]"), (root(), "[root]")] {
        // Messages of libraries may omit the first slash.
        let path = path.to_str().unwrap().trim_matches('/').replace('.', r"\.");
        settings.add_filter(&format!("/?{path}"), name);
    }
    settings.add_filter(r"in \d+\.\d s", "in [time]");
    settings.add_filter(r"[\w./-]+/libonnxruntime[\w.]*", "[library]");
    settings.bind_to_scope()
}

/// The pipeline as it ships, in an empty directory.
fn shipped() -> (Workspace, SettingsBindDropGuard) {
    let workspace = Workspace::full();
    let guard = filters(&workspace);
    (workspace, guard)
}

/// The small pipeline.
fn small() -> (Workspace, SettingsBindDropGuard) {
    let workspace = Workspace::small();
    let guard = filters(&workspace);
    (workspace, guard)
}

/// Returns the edit `key="<path of name>"`.
fn at(workspace: &Workspace, key: &str, name: &str) -> String {
    format!("{key}={:?}", workspace.path(name))
}

/// Writes the shipped pipeline with some lines replaced to `bad.toml` of the workspace.
fn rewritten(workspace: &mut Workspace, lines: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(&workspace.pipeline).unwrap();
    for (start, line) in lines {
        let old = text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        text = text.replace(&old, line);
    }
    workspace.pipeline = workspace.path("bad.toml");
    std::fs::write(&workspace.pipeline, text).unwrap();
}
