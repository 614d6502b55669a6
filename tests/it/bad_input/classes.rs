//! Bad class names and descriptions, and classes without images.

use insta::assert_snapshot;

use super::{at, check, shipped, small};
use crate::support::Workspace;

/// Returns what `check` reports for each content of the file that `key` names. `None` is a missing file.
fn files_said(workspace: &mut Workspace, key: &str, texts: &[Option<&str>]) -> String {
    let edit = at(workspace, key, "file.json");
    let said = texts.iter().map(|text| {
        if let Some(text) = text {
            std::fs::write(workspace.path("file.json"), text).unwrap();
        }
        check(workspace, &[&edit])
    });
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn class_names_that_are_none() {
    let cases = [
        None,
        Some(r#""zero""#),
        Some(r#"["zero""#),
        Some(r#"{"0": "zero", "5": "five"}"#),
        Some(r#"{"zero": "0"}"#),
        Some(r#"["zero", "one"]"#),
    ];
    let (mut workspace, _guard) = shipped();
    let said = files_said(&mut workspace, "source.classes", &cases);
    assert_snapshot!(said, @r#"
    exit code 2
    error: `source.classes`: `[dir]/file.json` cannot be read: No such file or directory (os error 2)
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`): it is not a list of class names, or an object from number or class to name
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`): it is not a list of class names, or an object from number or class to name: EOF while parsing a list at line 1 column 7
    1 problem; nothing was run

    exit code 2
    error: `test.parquet#2` has the label 9, and `[dir]/file.json` (`source.classes`) has names for 2 other labels, from 0 to 5
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`) does not fit the 10 class names of the source: it has no name for "one"; allowed are these names in any order, as many other names in the order of these, or JSON with an object from these names to others
    1 problem; nothing was run

    exit code 2
    error: `test.parquet#0` has the label 5, and `[dir]/file.json` (`source.classes`) has names for the labels 0 to 1 only
    1 problem; nothing was run
    "#);
}

#[test]
fn classes_without_images_are_legal() {
    let (mut workspace, _guard) = small();
    let names: Vec<String> = (0..12).map(|label| format!("\"{label}\": \"class {label}\"")).collect();
    std::fs::write(workspace.path("classes.json"), format!("{{{}}}", names.join(", "))).unwrap();
    workspace.edit(&at(&workspace, "source.classes", "classes.json"));
    workspace.ok("run", &["--until", "hard_samples"]);
    assert_eq!(workspace.number("SELECT count(DISTINCT class_name) FROM images WHERE class_name LIKE 'class %'"), 10.0);
    // Some classes have no hard sample.
    assert!(workspace.number("SELECT count(DISTINCT label) FROM hard_samples") < 10.0);
}

#[test]
fn nothing_is_hard() {
    let (mut workspace, _guard) = small();
    workspace.edit("hard_samples.max_class_count=1");
    workspace.edit("curriculum.strategy=real_only");
    workspace.ok("plan", &[]);
    let run = workspace.run();
    assert!(run["engine"].is_null());
    assert_eq!(workspace.number("SELECT count(*) FROM kept"), 0.0);
    let epochs = workspace.number("SELECT count(DISTINCT epoch) FROM manifest WHERE origin = 'non_hard'");
    assert_eq!(epochs, 5.0);
    workspace.ok("plan", &[]);
    workspace.ok("status", &[]);
    workspace.ok("verify", &[]);
}

#[test]
fn descriptions_that_are_none() {
    let cases = [
        None,
        Some(r#"["zero"]"#),
        Some(r#"{"zero": "a round one"}"#),
        Some(r#"{"zero": ["a round one"], "one": [" "]}"#),
        Some(r#"{"zero": []}"#),
        Some(r#"{"zero": ["#),
    ];
    let (mut workspace, _guard) = shipped();
    let said = files_said(&mut workspace, "prompts.descriptions", &cases);
    assert_snapshot!(said, @r#"
    exit code 2
    error: `prompts.descriptions`: `[dir]/file.json` cannot be read: No such file or directory (os error 2)
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): it is not an object from class name to a list of strings: invalid type: sequence, expected a map at line 1 column 0
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): it is not an object from class name to a list of strings: invalid type: string "a round one", expected a sequence at line 1 column 22
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): class `one` has no description, or a blank one
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): class `zero` has no description, or a blank one
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): it is not an object from class name to a list of strings: EOF while parsing a list at line 1 column 10
    1 problem; nothing was run
    "#);
}
