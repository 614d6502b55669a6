//! Exports for trainers: every format is read by its own readers and is reproducible; refusals and interruptions.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    readers::environment,
    support::{Workspace, contents, root, sha256, stderr},
};

const FORMS: [&str; 3] = ["webdataset", "imagefolder", "parquet"];
/// A bound that gives several files in each epoch.
const SHARD: &str = "100KB";

/// The small pipeline, run once for all tests of this file.
fn ran() -> &'static Workspace {
    static RAN: OnceLock<Workspace> = OnceLock::new();
    RAN.get_or_init(|| {
        let workspace = Workspace::small();
        workspace.run();
        workspace
    })
}

/// `discl-pipe export … DESTINATION --as FORM`.
fn export(workspace: &Workspace, destination: &Path, form: &str, arguments: &[&str]) -> Command {
    let own = [destination.to_str().unwrap(), "--as", form, "--shard-size", SHARD];
    workspace.command("export", &[&own[..], arguments].concat())
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the message of an export that is refused, and asserts that nothing was written.
fn refused(output: &Output, destination: &Path) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!destination.exists(), "{said}");
    said
}

/// A copy of the lake that a test may damage.
fn copy() -> Workspace {
    let copy = Workspace::small();
    for (name, bytes) in contents(&ran().lake()) {
        let path = copy.lake().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    copy
}

fn touch(workspace: &Workspace, what: &str, step: &str, id: &str) {
    let mut touch = Command::new(environment("readers").join("bin/python"));
    touch.arg("-I").arg(root().join("tests/readers/touch.py"));
    succeed(touch.arg(what).arg(workspace.lake().join("digits_lt")).args([step, id]));
}

/// A schedule of two trials on real images.
const TWO_TRIALS: &str = "-- Two trials.
    SELECT 'mine' AS curriculum, trial, epoch, 0 AS stage, 100 AS image_guidance
    FROM (SELECT unnest(['a', 'b']) AS trial)
    CROSS JOIN (SELECT unnest(range(0, $epochs)) AS epoch)";

/// Returns the rows of the first epochs of the manifest, with the digest of each image.
const EXPECTED: &str = "
    SELECT m.epoch, m.position, m.sample_id, m.label, i.class_name, m.image_guidance, m.seed, p.digest
    FROM manifest m
    JOIN images i ON i.source_id = m.source_id
    JOIN (
        SELECT sample_id, image_info(image)['digest'] AS digest FROM spectrum
        UNION ALL
        SELECT i.source_id, image_info(p.image)['digest'] FROM pixels p JOIN images i ON i.pixel_id = p.pixel_id
    ) p ON p.sample_id = m.sample_id
    WHERE m.epoch <= 2
    ORDER BY m.epoch, m.position";

#[test]
fn each_form_is_read_by_its_own_readers() {
    let workspace = ran();
    let expected = workspace.path("expected.json");
    let rows = workspace.query(EXPECTED);
    assert_eq!(rows.len() as f64, workspace.number("SELECT count(*) FROM manifest WHERE epoch <= 2"));
    fs::write(&expected, serde_json::to_vec(&rows).unwrap()).unwrap();
    let exports = workspace.path("exports");
    for form in FORMS {
        let arguments = ["--format", "json", "--epoch", "0..2"];
        let said = succeed(&mut export(workspace, &exports.join(form), form, &arguments));
        let said: Value = serde_json::from_str(&said).unwrap();
        let files = contents(&exports.join(form));
        assert_eq!(said["rows"], rows.len(), "{said}");
        assert_eq!(said["files"], files.len(), "{said}");
        assert_eq!((&said["epochs"], &said["complete"]), (&json!([0, 1, 2]), &json!([])), "{said}");
        assert_eq!(said["stale"], Value::Null, "{said}");
        // A second export in another order, with other settings, gives the same bytes.
        let again = workspace.path("again").join(form);
        for epochs in ["2", "0..1"] {
            let otherwise = ["--epoch", epochs, "--target-partitions", "1", "--batch-rows", "5"];
            succeed(&mut export(workspace, &again, form, &otherwise));
        }
        assert!(files == contents(&again), "{form} has other bytes the second time");
    }
    let mut check = Command::new(environment("readers").join("bin/python"));
    check.args(["-I", "-B"]).arg(root().join("tests/readers/exports.py"));
    check.args([&exports, &expected, &workspace.lake().join("digits_lt"), &root().join("examples/pytorch")]);
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
}

#[test]
fn what_cannot_be_exported_is_said_before_anything_is_written() {
    let workspace = ran();
    let there = workspace.path("refused");
    let said = |arguments: &[&str]| refused(&export(workspace, &there, "parquet", arguments).output().unwrap(), &there);
    let none = said(&["--epoch", "7..9", "--trial", "x"]);
    assert!(none.contains("the manifest has no rows for the epochs 7 to 9, curriculum NULL, trial \"x\""), "{none}");
    assert!(said(&["--epoch", "3..1"]).contains("an epoch is expected"));
    let arguments = [there.to_str().unwrap(), "--as", "parquet", "--shard-size", "1"];
    let size = refused(&workspace.command("export", &arguments).output().unwrap(), &there);
    assert!(size.contains("a size from 10KB to 50GB is expected"), "{size}");
    // Several trials are not one training run.
    let mut several = copy();
    let sql = several.path("sql");
    fs::create_dir_all(sql.join("schedule")).unwrap();
    fs::write(sql.join("schedule/diverse_to_specific.sql"), TWO_TRIALS).unwrap();
    several.edit(&format!("sql_dir={}", sql.display()));
    several.run();
    let there = several.path("out");
    let output = export(&several, &there, "parquet", &[]).output().unwrap();
    let many = refused(&output, &there);
    assert!(many.contains("several curricula or trials"), "{many}");
    assert!(many.contains("`mine` `a`, `mine` `b`"), "{many}");
    succeed(&mut export(&several, &there, "parquet", &["--trial", "b", "--epoch", "0"]));
    // An epoch is of one export. Others may be added.
    let said = |form: &str, trial: &str, expected: &str| {
        let output = export(&several, &there, form, &["--trial", trial, "--epoch", "0..1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert!(!there.join("epoch_0001").exists());
    };
    said("parquet", "a", "out/_SUCCESS-epoch_0000.json` has the trial `b`, not `a`\nhint: delete it and `");
    said("imagefolder", "b", "out/_SUCCESS-epoch_0000.json` has the format `parquet`, not `imagefolder`");
    fs::write(there.join("_SUCCESS-epoch_0000.json"), "").unwrap();
    said("parquet", "b", "out/_SUCCESS-epoch_0000.json` is not the list of an export");
    fs::remove_file(there.join("_SUCCESS-epoch_0000.json")).unwrap();
    said("parquet", "b", "out/epoch_0000` exists, but nothing there says what it is");
    succeed(&mut export(&several, &there, "parquet", &["--trial", "a", "--epoch", "1"]));
}

#[test]
fn an_epoch_of_another_manifest_is_refused_and_an_equal_one_is_complete() {
    let mut workspace = copy();
    let there = workspace.path("out");
    let said = |workspace: &Workspace, code: i32| {
        let output = export(workspace, &there, "webdataset", &["--epoch", "0..1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output))
    };
    said(&workspace, 0);
    let files = contents(&there);
    workspace.edit("curriculum.hard_share=0.3");
    workspace.run();
    let refused = said(&workspace, 2);
    assert!(refused.contains("_SUCCESS-digits_lt-epoch0000.json` has other rows, images or classes"), "{refused}");
    assert!(refused.contains("2 problems; nothing was run"), "{refused}");
    // The same rows are in a later version of the table.
    workspace.edit("curriculum.hard_share=0.4");
    workspace.run();
    let complete = said(&workspace, 0);
    assert!(complete.starts_with("0 epochs, 0 rows, 0 files, 0 bytes of images in "), "{complete}");
    assert!(complete.trim_end().ends_with("; 2 epochs already complete"), "{complete}");
    assert!(files == contents(&there));
}

#[test]
fn an_incomplete_epoch_is_continued_after_its_whole_files() {
    let workspace = ran();
    for form in FORMS {
        let there = workspace.path("continued").join(form);
        succeed(&mut export(workspace, &there, form, &["--epoch", "0"]));
        let files = contents(&there);
        let seal = files.keys().find(|name| name.starts_with("_SUCCESS-")).unwrap().as_str();
        let sealed: Value = serde_json::from_slice(&files[seal]).unwrap();
        let listed: Vec<&Value> = sealed["files"].as_array().unwrap().iter().collect();
        let name = |file: &Value| there.join(file["name"].as_str().unwrap());
        let restored = |kept: usize, what: &str| {
            let output = export(workspace, &there, form, &["--epoch", "0", "--format", "json"]).output().unwrap();
            assert!(output.status.success(), "{form}, {what}: {}", stderr(&output));
            let rows: u64 = listed[..kept].iter().map(|file| file["rows"].as_u64().unwrap()).sum();
            let note = format!("epoch 0 is incomplete, continuing after its first {rows} rows (files: {kept})");
            assert_eq!(stderr(&output).contains(&note), kept > 0, "{form}, {what}: {}", stderr(&output));
            let written: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(written["rows"].as_u64().unwrap() + rows, sealed["rows"].as_u64().unwrap(), "{form}, {what}");
            assert!(files == contents(&there), "{form}, {what}");
        };
        assert!(listed.len() > 2 && listed[2]["rows"] != 0, "{form}: {listed:?}");
        fs::remove_file(name(listed[2])).unwrap();
        restored(2, "a file is gone");
        fs::write(name(listed[1]), "cut").unwrap();
        restored(1, "a file is cut");
        fs::remove_file(there.join(seal)).unwrap();
        let mut list = sealed.clone();
        list["files"].as_array_mut().unwrap().truncate(2);
        let list_name = there.join(seal.replace("_SUCCESS-", "_INCOMPLETE-"));
        fs::write(&list_name, list.to_string()).unwrap();
        restored(2, "the export was killed");
        // A file of the right size with another byte.
        fs::rename(there.join(seal), &list_name).unwrap();
        let mut bytes = fs::read(name(listed[0])).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(name(listed[0]), bytes).unwrap();
        restored(0, "a file is damaged");
    }
}

#[test]
fn a_row_without_exactly_one_image_is_named() {
    let row = &ran().query(
        "SELECT m.sample_id, k.source_id, i.pixel_id FROM manifest m JOIN kept k ON k.sample_id = m.sample_id
         JOIN images i ON i.source_id = m.source_id ORDER BY m.epoch, m.position LIMIT 1",
    )[0];
    let id = |name: &str| row[name].as_str().unwrap();
    let cases = [
        ("reject", "spectrum", id("sample_id"), id("sample_id"), "has no image"),
        ("double", "spectrum", id("sample_id"), id("sample_id"), "has 2 images"),
        ("double", "pixels", id("pixel_id"), id("source_id"), "has 2 images"),
    ];
    for (what, step, touched, sample, expected) in cases {
        let spoilt = copy();
        touch(&spoilt, what, step, touched);
        let there = spoilt.path("out");
        let said = refused(&export(&spoilt, &there, "webdataset", &[]).output().unwrap(), &there);
        assert!(said.contains(&format!("sample `{sample}` {expected}")), "{what} {step}: {said}");
    }
}

#[test]
fn an_export_that_ends_early_has_no_half_file_and_is_continued() {
    let workspace = ran();
    for form in FORMS {
        let whole = workspace.path("whole").join(form);
        succeed(&mut export(workspace, &whole, form, &[]));
        let whole = contents(&whole);
        let is_seal = |name: &&String| name.starts_with("_SUCCESS-");
        let epochs = whole.keys().filter(is_seal).count();
        let there = workspace.path("cut").join(form);
        for signal in ["-INT", "-KILL"] {
            let (begun, before) = (Instant::now(), count_of_files(&there));
            let mut process = export(workspace, &there, form, &[]);
            let process = process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // A seal or a list, and another file.
            while count_of_files(&there) < before + 2 {
                assert!(begun.elapsed() < Duration::from_secs(120), "{form}: nothing is written");
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
            let output = process.wait_with_output().unwrap();
            let cut = contents(&there);
            assert!(cut.keys().filter(is_seal).count() < epochs, "{form}: it was not stopped: {}", stderr(&output));
            if signal == "-INT" {
                assert_eq!(output.status.code(), Some(130), "{form}: {}", stderr(&output));
                let said = "which is incomplete; run the same command again to continue";
                assert!(stderr(&output).contains(said), "{form}: {}", stderr(&output));
                assert!(!cut.keys().any(|name| name.contains('#')), "{form}: {:?}", cut.keys());
            }
            // What is there under its name is whole.
            let mut named = cut.iter().filter(|(name, _)| !name.contains('#') && !name.starts_with("_INCOMPLETE-"));
            assert!(named.all(|(name, bytes)| whole.get(name) == Some(bytes)), "{form}");
        }
        succeed(&mut export(workspace, &there, form, &[]));
        let mut ended = contents(&there);
        // Parts of a killed upload to a directory.
        ended.retain(|name, _| !name.contains('#'));
        assert!(whole == ended, "{form}");
    }
}

/// Returns the number of files below a folder, which may be written at the same time.
fn count_of_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count_of_files(&entry.path()) } else { 1 }).sum()
}

/// If the lake only references its images, they are read from the source.
#[test]
fn images_that_the_lake_refers_to_come_from_the_source() {
    let mut workspace = Workspace::small();
    let sql = workspace.path("sql");
    let queries = [
        (
            "pixels/embed.sql",
            "-- No image.\nSELECT pixel_id, source_id, info,\n\
             named_struct('bytes', CAST(NULL AS bytea), 'path', path) AS image\n\
             FROM (SELECT pixel_id, source_id, path, image_info(read_image(path)) AS info FROM listing)",
        ),
        (
            "hard_samples/few_shot.sql",
            "-- None.\nSELECT source_id, label, class_name, '' AS reason FROM images WHERE label < 0",
        ),
    ];
    for (name, text) in queries {
        fs::create_dir_all(sql.join(name).parent().unwrap()).unwrap();
        fs::write(sql.join(name), text).unwrap();
    }
    workspace.edit(&format!("sql_dir={}", sql.display()));
    workspace.edit("curriculum.strategy=real_only");
    workspace.run();
    let there = workspace.path("out");
    succeed(&mut export(&workspace, &there, "imagefolder", &["--epoch", "0"]));
    let expected = workspace.query(
        "SELECT i.digest FROM manifest m JOIN images i ON i.source_id = m.source_id
         WHERE m.epoch = 0 ORDER BY m.position",
    );
    let expected: Vec<&str> = expected.iter().map(|row| row["digest"].as_str().unwrap()).collect();
    assert!(expected.len() > 100);
    let mut files: Vec<_> = contents(&there).into_iter().filter(|(name, _)| name.ends_with(".png")).collect();
    files.sort_by_key(|(name, _)| name.rsplit('/').next().unwrap().to_owned());
    let found: Vec<String> = files.iter().map(|(_, bytes)| sha256(bytes)).collect();
    assert_eq!(found, expected);
    // Labels without an image in this epoch have a folder, too.
    let entries = fs::read_dir(there.join("epoch_0000")).unwrap();
    let names: BTreeSet<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let labels = (0..10).map(|label| label.to_string());
    assert_eq!(names, labels.chain(["metadata.jsonl".to_owned()]).collect());
}
