//! The maintenance of a lake: other writers, garbage collection, retried rejects.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    readers,
    support::{Workspace, contents, root, skipped, stderr},
};

/// Runs `tests/readers/touch.py` and returns its stdout.
fn touch(arguments: &[&str]) -> String {
    let mut python = Command::new(readers::environment("readers").join("bin/python"));
    let output = python.arg("-I").arg(root().join("tests/readers/touch.py")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn another_writer_may_compact_a_table() {
    let workspace = Workspace::small();
    workspace.run();
    let before = workspace.tables();
    let table = workspace.lake().join("digits_lt/spectrum");
    let table = table.to_str().unwrap();
    let done = touch(&["optimize", table]);
    let (removed, added) = done.split_once(' ').unwrap();
    assert!(removed.parse::<u32>().unwrap() > 1 && added == "1", "{done}");
    // The lake is still sound, its steps are complete, and its rows are the same.
    workspace.ok("verify", &["--deep"]);
    let run = workspace.run();
    assert!(skipped(&run).values().all(|skipped| *skipped), "{run}");
    assert!(workspace.tables() == before, "other rows");
    let found = workspace.json("gc", &["--older-than", "0"]);
    assert_eq!(found["deleted"], false);
    let files = found["files"].as_array().unwrap();
    let of_spectrum = files.iter().filter(|file| file["table"] == "spectrum").count();
    assert_eq!(of_spectrum.to_string(), removed);
    assert_eq!(workspace.json("gc", &[])["files"], json!([]), "what is younger than a week stays");
    workspace.ok("gc", &["--older-than", "0", "--apply"]);
    assert_eq!(workspace.json("gc", &["--older-than", "0"])["files"], json!([]));
    workspace.ok("verify", &["--deep"]);
    assert!(workspace.tables() == before, "other rows after gc");
}

#[test]
fn garbage_is_what_no_commit_names() {
    let workspace = Workspace::small();
    workspace.ok("run", &["--until", "hard_samples"]);
    let folder = workspace.lake().join("digits_lt/pixels");
    fs::write(folder.join("unit-0123456789abcdef.parquet"), "left by a crash").unwrap();
    fs::write(folder.join("notes.txt"), "somebody's own").unwrap();
    let found = workspace.json("gc", &["--older-than", "0", "--apply"]);
    assert_eq!(found["files"], json!([{"table": "pixels", "file": "unit-0123456789abcdef.parquet", "bytes": 15}]));
    assert!(!folder.join("unit-0123456789abcdef.parquet").exists() && folder.join("notes.txt").exists());
    assert!(folder.join("_delta_log").exists());
}

/// A length of metadata that is longer than the file makes Parquet's reader panic where integer overflows are checked.
#[test]
fn a_damaged_file_on_which_a_library_panics_is_a_finding() {
    let workspace = Workspace::small();
    workspace.run();
    let mut files = fs::read_dir(workspace.lake().join("digits_lt/kept")).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|file| file.extension().is_some_and(|end| end == "parquet")).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let length = bytes.len() - 8;
    bytes[length..length + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let output = workspace.command("verify", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("does not have the content that its name promises"), "{said}");
    let query = "SELECT count(DISTINCT sample_id) FROM kept";
    let ends = || {
        let output = workspace.command("sql", &[query]).env("RUST_BACKTRACE", "1").output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, said) = ends();
    assert_eq!(code, Some(1), "{said}");
    fs::remove_file(&file).unwrap();
    let (code, said) = ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a file cannot be read") && said.contains("`discl-pipe verify`"), "{said}");
    assert!(!said.contains("0: "), "a backtrace: {said}");
}

#[test]
fn a_lake_whose_path_the_library_would_not_find_is_refused() {
    let mut workspace = Workspace::small();
    for name in ["50%25", "a\\b"] {
        workspace.url = Some(workspace.path(name).to_str().unwrap().to_owned());
        let output = workspace.command("run", &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("must not have `%` or a backslash"), "{}", stderr(&output));
        assert!(!workspace.path(name).exists());
    }
}

/// What a loss of power leaves where writes do not reach the disk: the hint of a checkpoint, and an empty checkpoint or none.
#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let workspace = Workspace::small();
    workspace.run();
    let before = workspace.tables();
    let logs = ["scores", "spectrum"].map(|table| workspace.lake().join("digits_lt").join(table).join("_delta_log"));
    let checkpoint = |log: &PathBuf, version: u64| log.join(format!("{version:020}.checkpoint.parquet"));
    fs::write(logs[0].join("_last_checkpoint"), r#"{"version":1,"size":3}"#).unwrap();
    fs::write(logs[1].join("_last_checkpoint"), r#"{"version":1,"size":3}"#).unwrap();
    fs::write(checkpoint(&logs[1], 1), "").unwrap();
    let status = workspace.json("status", &[]);
    let said = |warnings: &serde_json::Value| {
        let warnings = warnings.as_array().unwrap().iter();
        warnings.map(|warning| warning["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
    };
    let warned = said(&status["warnings"]);
    assert!(warned.contains("scores`: damaged checkpoints are passed over: `_last_checkpoint` names the checkpoint 1, which does not exist"), "{warned}");
    assert!(warned.contains("`00000000000000000001.checkpoint.parquet` is empty"), "{warned}");
    assert!(workspace.tables() == before, "other rows");
    // A run adds rows on top.
    let mut more = workspace;
    more.edit("spectrum.seeds=[10,20]");
    let run = more.run();
    assert!(said(&run["warnings"]).contains("damaged checkpoints are passed over"), "{run}");
    more.ok("verify", &["--repair"]);
    more.ok("verify", &["--deep"]);
    // Without an entry that no checkpoint stands for, a table is not whole.
    let log = more.lake().join("digits_lt/kept/_delta_log");
    fs::write(log.join("_last_checkpoint"), r#"{"version":1,"size":3}"#).unwrap();
    fs::remove_file(log.join("00000000000000000001.json")).unwrap();
    let output = more.command("status", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("kept/_delta_log/") && stderr(&output).contains("--repair --dry-run`"),
        "{}",
        stderr(&output)
    );
}

/// Names that the store neither lists nor opens: it gives them to what it has begun.
#[test]
fn what_killed_writers_have_left_is_swept() {
    let workspace = Workspace::small();
    workspace.ok("run", &["--until", "images"]);
    let lake = workspace.lake().join("digits_lt");
    let left = [
        ("", "contact_sheet.png#1"),
        ("images", "rows-0123456789abcdef.parquet#2"),
        ("pixels", "_delta_log/00000000000000000007.json#1"),
        ("pixels", "_delta_log/_last_checkpoint#1"),
        // What `verify --repair` and an interrupted `gc` have moved aside.
        ("pixels", "_delta_log/00000000000000000007.json.corrupt"),
        ("pixels", "unit-0123456789abcdef.parquet.deleted"),
    ];
    let theirs = ["notes#1", "pixels/notes.txt#1", "pixels/notes.corrupt", "pixels/their/rows.parquet#1"];
    fs::create_dir_all(lake.join("pixels/their")).unwrap();
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    for path in left.iter().map(|(table, file)| lake.join(table).join(file)).chain(theirs.map(|name| lake.join(name))) {
        fs::write(&path, "left").unwrap();
        fs::File::open(&path).unwrap().set_modified(old).unwrap();
    }
    let young = lake.join("pixels/unit-0123456789abcdef.parquet#1");
    fs::write(&young, "somebody is writing it").unwrap();
    let before = contents(&lake);
    let names = |found: &Value| -> BTreeSet<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        found["files"].as_array().unwrap().iter().map(|file| (text(&file["table"]), text(&file["file"]))).collect()
    };
    let expected: BTreeSet<_> = left.iter().map(|(table, file)| ((*table).to_owned(), (*file).to_owned())).collect();
    assert_eq!(names(&workspace.json("gc", &[])), expected);
    assert!(contents(&lake) == before, "a listing has changed something");
    assert_eq!(names(&workspace.json("gc", &["--apply"])), expected);
    let mut after = before;
    after.retain(|name, _| left.iter().all(|(table, file)| Path::new(table).join(file) != Path::new(name)));
    assert_eq!(contents(&lake).keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
}

#[test]
fn what_was_rejected_is_tried_again_when_asked_for() {
    let workspace = Workspace::small();
    workspace.run();
    let before = workspace.tables();
    let sample = workspace.query("SELECT sample_id FROM kept ORDER BY sample_id LIMIT 1");
    let sample = sample[0]["sample_id"].as_str().unwrap();
    let lake = workspace.lake().join("digits_lt");
    touch(&["reject", lake.to_str().unwrap(), "spectrum", sample]);
    assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 1.0);
    workspace.run();
    assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 1.0, "a run alone leaves rejects");
    let again = workspace.json("run", &["--retry-rejects"]);
    let made = again["steps"].as_array().unwrap().iter().find(|step| step["step"] == "spectrum").unwrap();
    assert_eq!(made["rows"], 1);
    assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 0.0);
    workspace.ok("verify", &["--deep"]);
    assert!(workspace.tables() == before, "other rows");
}

#[test]
fn a_deep_look_finds_an_image_that_is_another() {
    let workspace = Workspace::small();
    workspace.run();
    workspace.ok("verify", &["--deep"]);
    touch(&["shuffle", workspace.lake().join("digits_lt/spectrum").to_str().unwrap()]);
    // Every file is intact and every id occurs once, so only the images themselves tell what is wrong with them.
    let output = workspace.command("verify", &["--deep"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("spectrum: an image that its prompt, guidance and noise do not reproduce ("), "{said}");
    assert!(said.contains("scores: a similarity that its image and prompt do not reproduce ("), "{said}");
}

/// Readers skip files by the ranges in the log, so a wrong range hides rows.
#[test]
fn a_deep_look_finds_statistics_that_hide_rows() {
    let workspace = Workspace::small();
    workspace.ok("run", &["--until", "images"]);
    let log = workspace.lake().join("digits_lt/images/_delta_log");
    let mut entries = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let has_rows = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("maxValues"));
    let entry = entries.find(has_rows).unwrap();
    let text = fs::read_to_string(&entry).unwrap();
    for (right, wrong, what) in [
        (
            "\\\"maxValues\\\":{\\\"source_id\\\":\\\"f",
            "\\\"maxValues\\\":{\\\"source_id\\\":\\\"e",
            "range of `source_id`",
        ),
        ("\\\"numRecords\\\":", "\\\"numRecords\\\":1", "number of rows"),
    ] {
        assert!(text.contains(right), "{text}");
        fs::write(&entry, text.replace(right, wrong)).unwrap();
        let output = workspace.command("verify", &["--deep"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("does not have the {what} that the log says")), "{said}");
    }
}

#[test]
fn what_needs_the_lake_alone_works_without_source_and_models() {
    let workspace = Workspace::small();
    workspace.ok("run", &["--until", "images"]);
    let nowhere = ["source.root=s3://nowhere/data", "models.diffusion=hf://nobody/nothing", "models.clip=/nowhere"];
    for (command, arguments) in [
        ("status", &[][..]),
        ("sql", &["SELECT count(*) FROM images"]),
        ("gc", &[]),
        ("sql", &["SELECT 1"]),
        ("sql", &["SHOW TABLES"]),
    ] {
        let mut command = workspace.command(command, arguments);
        command.args(nowhere.iter().flat_map(|edit| ["--set", edit]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    }
    let mut command = workspace.command("sql", &["SELECT image_info(load_image(image)) FROM pixels"]);
    command.args(nowhere.iter().flat_map(|edit| ["--set", edit]));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a function of the source opens it: {}", stderr(&output));
}
