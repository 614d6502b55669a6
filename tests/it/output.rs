//! What cannot be written to stdout is an error, unless its reader has closed the pipe.

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

use crate::support::{Workspace, program, stderr};

/// Runs a command whose stdout has no space.
fn on_a_full_disk(command: &mut Command) -> Output {
    command.stdout(File::options().write(true).open("/dev/full").unwrap()).output().unwrap()
}

/// Asserts that the only error is that of stdout.
fn fails_once(command: &mut Command) {
    let output = on_a_full_disk(command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert_eq!(said.matches("error: ").count(), 1, "{command:?}: {said}");
    assert!(said.contains("error: cannot write to stdout: No space left on device"), "{command:?}: {said}");
    assert!(said.trim_end().ends_with("hint: the output is incomplete; write it to a place with space"), "{said}");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let workspace = Workspace::small();
    for format in ["json", "text", "csv"] {
        fails_once(&mut workspace.command("sql", &["SELECT * FROM images", "--format", format]));
    }
    fails_once(&mut workspace.command("plan", &[]));
    fails_once(&mut workspace.command("check", &["--format", "json"]));
    fails_once(&mut workspace.command("run", &["--until", "schedule", "--format", "json"]));
    for command in ["run", "status", "verify", "gc"] {
        for format in ["json", "text"] {
            // A run with nothing to do prints its closing tables.
            fails_once(&mut workspace.command(command, &["--format", format]));
        }
    }
    let there = workspace.path("out");
    fails_once(&mut workspace.command("export", &[there.to_str().unwrap(), "--as", "parquet", "--format", "json"]));
    fails_once(program().arg("doctor"));
    fails_once(program().args(["models", "inspect", "models/digits"]));
    fails_once(program().arg("--help"));
}

#[test]
fn an_error_that_stdout_does_not_take_goes_to_stderr() {
    let mut workspace = Workspace::small();
    workspace.edit("source.root=nowhere");
    let output = on_a_full_disk(&mut workspace.command("check", &["--format", "json"]));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: `source.root` is `nowhere`"), "{said}");
}

#[test]
fn a_reader_that_wants_no_more_is_no_error() {
    let workspace = Workspace::small();
    for format in ["json", "text"] {
        let mut query = workspace.command("sql", &["SELECT * FROM range(100000)", "--format", format]);
        let mut process = query.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(process.stdout.take());
        let output = process.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    }
}
