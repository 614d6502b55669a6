//! What other programs do to the tables of a lake, and what becomes of it: `tests/readers/touch.py` is the other program.

use std::{collections::BTreeMap, process::Command, sync::OnceLock};

use serde_json::Value;

use crate::{
    readers,
    support::{Workspace, contents, copy_all, root, skipped, stderr},
};

/// Runs `tests/readers/touch.py` on a table of the workspace and returns its stdout.
pub(crate) fn touch(workspace: &Workspace, what: &str, table: &str, arguments: &[&str]) -> String {
    let table = workspace.lake().join("digits_lt").join(table);
    let mut python = Command::new(readers::environment("readers").join("bin/python"));
    python.arg("-I").arg(root().join("tests/readers/touch.py")).arg(what).arg(table).args(arguments);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{what} {arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A complete lake, and its tables.
pub(crate) fn complete() -> &'static (Workspace, BTreeMap<String, Vec<Value>>) {
    static RAN: OnceLock<(Workspace, BTreeMap<String, Vec<Value>>)> = OnceLock::new();
    RAN.get_or_init(|| {
        let workspace = Workspace::small();
        workspace.run();
        let tables = workspace.tables();
        (workspace, tables)
    })
}

/// A copy of the complete lake.
pub(crate) fn copy() -> Workspace {
    let workspace = Workspace::small();
    copy_all(&complete().0.lake(), &workspace.lake());
    workspace
}

fn evaluations(workspace: &Workspace) -> f64 {
    workspace.number("SELECT coalesce(sum(unet_evaluations), 0) FROM ledger")
}

/// Returns the findings of `verify`, which must fail.
fn findings(workspace: &Workspace) -> String {
    let output = workspace.command("verify", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn step<'a>(run: &'a Value, name: &str) -> &'a Value {
    run["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

fn assert_clean(workspace: &Workspace) {
    workspace.ok("verify", &[]);
    workspace.assert_holds(&complete().1);
    let again = skipped(&workspace.run());
    assert!(again.values().all(|skipped| *skipped), "{again:?}");
}

#[test]
fn a_changed_full_refresh_table_is_found_and_made_again() {
    // What is done to which table, and what verify counts. The queries of some need the source.
    let cases: [(&str, &str, &[&str], &[&str]); 9] = [
        ("update", "kept", &["image_guidance", "30", "attempt = 0"], &["missing (", "does not return ("]),
        ("delete", "hard_samples", &["source_id < '8'"], &["missing ("]),
        ("delete", "manifest", &["epoch = 1"], &["missing ("]),
        ("delete", "images", &["label = 1"], &[]),
        ("delete", "candidates", &["image_guidance = 50"], &[]),
        ("overwrite", "kept", &["5"], &["missing ("]),
        ("restore", "manifest", &["-1"], &["missing ("]),
        ("vector", "hard_samples", &["3"], &["missing (3)"]),
        ("double", "kept", &[], &["does not return (1)"]),
    ];
    for (what, table, arguments, counts) in cases {
        let workspace = copy();
        match what {
            "double" => {
                let sample = &workspace.query("SELECT sample_id FROM kept ORDER BY sample_id LIMIT 1")[0]["sample_id"];
                touch(&workspace, what, "", &[table, sample.as_str().unwrap()]);
            }
            _ => {
                touch(&workspace, what, table, arguments);
            }
        }
        let case = format!("{what} {table}");
        let found = findings(&workspace);
        let reason = format!("{table}: the step has to run: another program changed it in version ");
        assert!(found.contains(&reason), "{case}: {found}");
        for count in counts {
            let counted =
                found.lines().any(|line| line.starts_with(&format!("{table}: a row ")) && line.contains(count));
            assert!(counted, "{case}: no {count} in {found}");
        }
        let there = workspace.path("out");
        let arguments = [there.to_str().unwrap(), "--as", "parquet"];
        let refused = workspace.command("export", &arguments).output().unwrap();
        if ["kept", "manifest", "images"].contains(&table) {
            assert_eq!(refused.status.code(), Some(2), "{case}: {}", stderr(&refused));
            let said = format!("`{table}` is not what its step made: another program changed it in version ");
            assert!(stderr(&refused).contains(&said) && !there.exists(), "{case}: {}", stderr(&refused));
        }
        let before = evaluations(&workspace);
        let run = workspace.run();
        let made = step(&run, table);
        assert!(made["reason"].as_str().unwrap().starts_with("another program changed it"), "{case}: {made}");
        assert_eq!(evaluations(&workspace), before, "{case}: images were generated again");
        assert_clean(&workspace);
    }
}

#[test]
fn a_changed_incremental_table_is_filled() {
    for (what, table, arguments, rows) in [
        ("delete", "pixels", &["label = 1"][..], None),
        ("delete", "spectrum", &["image_guidance = 50"], None),
        ("delete", "scores", &["text_similarity > 0.6"], None),
        ("vector", "spectrum", &["2"], Some(2)),
        ("vector", "scores", &["1"], Some(1)),
        ("restore", "scores", &["0"], None),
    ] {
        let workspace = copy();
        let case = format!("{what} {table}");
        let query = format!("SELECT count(*) FROM {table}");
        let before = workspace.number(&query);
        if what == "delete" && table == "pixels" {
            let row = &workspace.query("SELECT pixel_id FROM images ORDER BY pixel_id LIMIT 1")[0];
            touch(&workspace, what, table, &[&format!("pixel_id = '{}'", row["pixel_id"].as_str().unwrap())]);
        } else {
            touch(&workspace, what, table, arguments);
        }
        let deleted = before - workspace.number(&query);
        assert!(deleted > 0.0 && rows.is_none_or(|rows| f64::from(rows) == deleted), "{case}: {deleted} rows deleted");
        let found = findings(&workspace);
        assert!(
            found.contains(&format!("{table}: the step has to run: another program changed it")),
            "{case}: {found}"
        );
        let run = workspace.run();
        assert_eq!(step(&run, table)["rows"].as_f64(), Some(deleted), "{case}: {}", step(&run, table));
        assert_clean(&workspace);
    }
}

#[test]
fn a_reject_that_another_program_removed_is_tried_again() {
    let workspace = copy();
    let sample = workspace.query("SELECT sample_id FROM kept ORDER BY sample_id LIMIT 1");
    let sample = sample[0]["sample_id"].as_str().unwrap();
    touch(&workspace, "reject", "", &["spectrum", sample]);
    workspace.run();
    assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 1.0);
    touch(&workspace, "delete", "rejects", &["true"]);
    let found = findings(&workspace);
    assert!(found.contains("spectrum: the step has to run: another program changed `rejects` in version "), "{found}");
    let run = workspace.run();
    assert_eq!(step(&run, "spectrum")["rows"], 1);
    assert_clean(&workspace);
}

/// Rows with the right ids and other values, and rows that are there twice. Compaction does not hide who wrote them.
#[test]
fn what_another_program_wrote_is_computed_again() {
    let sample = complete().0.query("SELECT sample_id FROM spectrum ORDER BY sample_id LIMIT 1");
    let sample = sample[0]["sample_id"].as_str().unwrap();
    // What is done to a table, in order: the command, its table and its arguments.
    type Touch<'a> = (&'a str, &'a str, &'a [&'a str]);
    let cases: [(&str, &[Touch<'_>]); 4] = [
        ("spectrum", &[("double", "", &["spectrum", sample])]),
        ("spectrum", &[("shuffle", "spectrum", &[])]),
        ("scores", &[("update", "scores", &["text_similarity", "1", "true"])]),
        ("scores", &[("update", "scores", &["text_similarity", "1", "true"]), ("optimize", "scores", &[])]),
    ];
    for (table, touches) in cases {
        let workspace = copy();
        for (what, table, arguments) in touches {
            touch(&workspace, what, table, arguments);
        }
        let found = findings(&workspace);
        assert!(found.contains(&format!("{table}: the step has to run: another program changed it")), "{found}");
        let run = workspace.run();
        // A row that was only doubled is still there once.
        let rows = step(&run, table)["rows"].as_u64().unwrap();
        assert_eq!(rows == 0, touches[0].0 == "double", "{touches:?}: {run}");
        assert_clean(&workspace);
        workspace.ok("verify", &["--deep"]);
    }
}

/// What is done to which table, with which arguments, and what the program says.
type Case<'a> = (&'a str, &'a str, &'a [&'a str], &'a str);

#[test]
fn what_this_program_cannot_write_is_refused_before_any_write() {
    let cases: [Case<'_>; 7] = [
        ("map", "kept", &[], "it maps its columns to other names"),
        ("map", "spectrum", &[], "it maps its columns to other names"),
        ("constrain", "scores", &["text_similarity > -2"], "it has the constraint `theirs`"),
        ("require", "spectrum", &["theirs"], "its column `theirs`, which another program added, must not be null"),
        ("feature", "manifest", &["rowTracking"], "it has the table feature `rowTracking`"),
        ("feature", "pixels", &["theirOwn"], "it has the table feature `theirOwn`"),
        ("set", "kept", &["delta.appendOnly", "true"], "its rows cannot be replaced"),
    ];
    // Each alone, then several tables at once.
    let mut groups: Vec<Vec<Case<'_>>> = cases.iter().map(|case| vec![*case]).collect();
    groups.push(vec![cases[0], cases[2], cases[3], cases[4], cases[5]]);
    for group in groups {
        let mut workspace = copy();
        for (what, table, arguments, _) in &group {
            touch(&workspace, what, table, arguments);
        }
        // Something to do from the first step on.
        workspace.edit("spectrum.seeds=[10,11]");
        let before = contents(&workspace.lake());
        for command in ["run", "check"] {
            let output = workspace.command(command, &[]).output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{command} {group:?}: {said}");
            for (_, table, _, problem) in &group {
                assert!(said.contains(&format!("/{table}`: {problem}")), "{command} {group:?}: {said}");
            }
        }
        assert!(contents(&workspace.lake()) == before, "{group:?}: something was written");
    }
}

#[test]
fn a_column_that_another_program_added_is_welcome() {
    let mut workspace = copy();
    for table in ["pixels", "spectrum", "scores", "candidates", "kept", "ledger"] {
        touch(&workspace, "column", table, &["their_note"]);
    }
    let run = workspace.run();
    assert!(skipped(&run).values().all(|skipped| *skipped), "{run}");
    workspace.edit("spectrum.seeds=[10,11]");
    workspace.run();
    workspace.ok("verify", &["--deep"]);
    for table in ["pixels", "spectrum", "scores", "candidates", "kept"] {
        let query = format!("SELECT count(*) - count(their_note) AS empty, count(*) AS rows FROM {table}");
        let counts = &workspace.query(&query)[0];
        assert_eq!(counts["empty"], counts["rows"], "{table}");
    }
    let mut fresh = Workspace::small();
    fresh.set.clone_from(&workspace.set);
    fresh.run();
    let without = |workspace: &Workspace| {
        let mut tables = workspace.tables();
        for row in tables.values_mut().flatten() {
            row.as_object_mut().unwrap().remove("their_note");
        }
        tables
    };
    assert!(without(&workspace) == without(&fresh), "other rows");
}
