//! Bad input of every kind: what the program says, that it never panics, and that nothing is lost.

mod classes;
mod lake;
mod models;
mod pipeline;
mod queries;
mod source;

use std::process::Command;

use insta::internals::SettingsBindDropGuard;

use crate::support::{Workspace, root, stderr};

/// What the program says on stderr, after its exit code, where it has to fail. It never panics.
#[track_caller]
fn said(process: &mut Command) -> String {
    let output = process.output().unwrap();
    let (code, said) = (output.status.code().unwrap_or(-1), stderr(&output));
    assert!(code > 0 && code != 101 && !said.contains("panicked"), "exit code {code}\n{said}");
    format!("exit code {code}\n{said}")
}

/// What `check` says of a pipeline with these edits; nothing is written.
#[track_caller]
fn check(workspace: &mut Workspace, edits: &[&str]) -> String {
    for edit in edits {
        workspace.edit(edit);
    }
    let said = said(&mut workspace.command("check", &[]));
    assert!(!workspace.lake().exists(), "`check` wrote something");
    said
}

/// In snapshots, `[dir]` is the temporary directory and `[root]` the repository.
fn filters(workspace: &Workspace) -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    let directory = workspace.path("");
    for (path, name) in [(directory.as_path(), "[dir]"), (root(), "[root]")] {
        // a library's message may leave the first slash out
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

/// `key="<path of name>"`, as an edit.
fn at(workspace: &Workspace, key: &str, name: &str) -> String {
    format!("{key}={:?}", workspace.path(name))
}

/// The shipped pipeline with lines replaced, as `bad.toml` of the workspace.
fn rewritten(workspace: &mut Workspace, lines: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(&workspace.pipeline).unwrap();
    for (start, line) in lines {
        let old = text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        text = text.replace(&old, line);
    }
    workspace.pipeline = workspace.path("bad.toml");
    std::fs::write(&workspace.pipeline, text).unwrap();
}
