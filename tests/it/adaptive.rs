//! The adaptive loop through files alone: a trainer reads tables and writes feedback.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{Field, Schema},
};
use serde_json::Value;

use crate::{
    readers,
    support::{Workspace, root, skipped, stderr},
};

fn adaptive() -> Workspace {
    let mut workspace = Workspace::small();
    for edit in [
        "curriculum.strategy=adaptive",
        "curriculum.manifest=manifest/low_quality.sql",
        "curriculum.trials=[\"one\",\"two\"]",
        "curriculum.probe_size=40",
        "curriculum.epochs=3",
        "curriculum.curriculum_epochs=2",
        "validation.sources=4",
    ] {
        workspace.edit(edit);
    }
    workspace
}

/// Returns the feedback of an epoch from a trainer that learns most from `level`. All samples of a level have one gain.
fn measure(workspace: &Workspace, level: i64) -> Vec<(String, String, f64)> {
    let rows = workspace.query("SELECT sample_id, image_guidance FROM validation ORDER BY sample_id");
    let rows = rows.iter().flat_map(|row| {
        let sample = row["sample_id"].as_str().unwrap().to_owned();
        let gain = if row["image_guidance"] == level { 0.3 } else { 0.1 };
        [(sample.clone(), "before".to_owned(), 0.2), (sample, "after".to_owned(), 0.2 + gain)]
    });
    rows.collect()
}

/// Writes feedback as a trainer would.
fn write(workspace: &Workspace, trial: &str, epoch: i64, rows: &[(String, String, f64)]) -> PathBuf {
    let texts = |of: &dyn Fn(&(String, String, f64)) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let columns: [(&str, ArrayRef); 6] = [
        ("curriculum", texts(&|_| "adaptive".into())),
        ("trial", texts(&|_| trial.into())),
        ("epoch", Arc::new(Int64Array::from(vec![epoch; rows.len()]))),
        ("phase", texts(&|row| row.1.clone())),
        ("sample_id", texts(&|row| row.0.clone())),
        ("probability", Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Float64Array>())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, c)| c).collect()).unwrap();
    let path = workspace.path(&format!("{trial}-{epoch}.parquet"));
    let mut writer = parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn hand_in(workspace: &Workspace, file: &std::path::Path) -> Result<Value, String> {
    // Feedback needs neither the source nor the models.
    let nowhere = ["source.root=/nowhere", "models.diffusion=/nowhere", "models.clip=/nowhere"];
    let mut command = workspace.command("feedback", &[file.to_str().unwrap(), "--format", "json"]);
    command.args(nowhere.iter().flat_map(|edit| ["--set", edit]));
    let output = command.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    if output.status.success() { Ok(said) } else { Err(said.to_string()) }
}

fn levels(workspace: &Workspace, trial: &str) -> Vec<i64> {
    let rows = workspace.query(&format!("SELECT image_guidance FROM schedule WHERE trial = '{trial}' ORDER BY epoch"));
    rows.iter().map(|row| row["image_guidance"].as_i64().unwrap()).collect()
}

#[test]
fn trials_walk_to_the_levels_they_learn_from() {
    let workspace = adaptive();
    let run = workspace.run();
    let awaited = |run: &Value| -> BTreeMap<String, i64> {
        let rows = run["awaits"].as_array().unwrap().iter();
        rows.map(|row| (row["trial"].as_str().unwrap().to_owned(), row["epoch"].as_i64().unwrap())).collect()
    };
    assert_eq!(awaited(&run), BTreeMap::from([("one".into(), 0), ("two".into(), 0)]));
    assert_eq!(levels(&workspace, "one"), [100], "the last epoch is real, the others wait");
    assert_eq!(workspace.number("SELECT count(*) FROM probe WHERE trial = 'one' AND epoch = 1"), 40.0);
    assert_eq!(workspace.number("SELECT count(*) FROM validation"), 16.0, "four sources, three levels and the image");

    // One trial learns most from 50, then from the real images. The other learns most from 10.
    let first = write(&workspace, "one", 0, &measure(&workspace, 50));
    assert_eq!(hand_in(&workspace, &first).unwrap()["rows"], 32);
    assert_eq!(hand_in(&workspace, &first).unwrap()["rows"], 0, "the same again");
    let run = workspace.run();
    assert!(skipped(&run)["validation"] && !skipped(&run)["manifest"], "{run:#}");
    assert_eq!(awaited(&run), BTreeMap::from([("one".into(), 1), ("two".into(), 0)]));
    assert_eq!(levels(&workspace, "one"), [50, 100]);
    let one = workspace.query("SELECT * FROM manifest WHERE trial = 'one' AND epoch = 0 ORDER BY position");
    assert!(one.iter().any(|row| row["origin"] == "synthetic" && row["image_guidance"] == 50));
    for (trial, epoch, level) in [("two", 0, 10), ("one", 1, 100), ("two", 1, 10)] {
        hand_in(&workspace, &write(&workspace, trial, epoch, &measure(&workspace, level))).unwrap();
    }
    let run = workspace.run();
    assert_eq!(awaited(&run), BTreeMap::new());
    assert_eq!((levels(&workspace, "one"), levels(&workspace, "two")), (vec![50, 100, 100], vec![10, 10, 100]));
    let again = workspace.query("SELECT * FROM manifest WHERE trial = 'one' AND epoch = 0 ORDER BY position");
    assert_eq!(one, again, "another trial's feedback moves nothing");
    assert_eq!(workspace.number("SELECT gain FROM progress WHERE trial = 'two' AND epoch = 1 AND chosen"), 0.3);
    workspace.ok("verify", &[]);
}

#[test]
fn wrong_feedback_is_refused_with_counts_and_nothing_of_it_is_taken() {
    let workspace = adaptive();
    workspace.run();
    let whole = measure(&workspace, 50);
    let refused = |workspace: &Workspace, trial: &str, epoch: i64, rows: &[(String, String, f64)]| {
        hand_in(workspace, &write(workspace, trial, epoch, rows)).unwrap_err()
    };
    let said = refused(&workspace, "one", 0, &whole[..whole.len() - 3]);
    assert!(said.contains("3 samples of the spectrum validation set that are missing from an epoch's phase"), "{said}");
    let said = refused(&workspace, "three", 0, &whole);
    assert!(said.contains("32 rows of a trial that `curriculum.trials` does not name"), "{said}");
    let said = refused(&workspace, "one", 1, &whole);
    assert!(said.contains("32 rows of an epoch whose predecessor has no complete feedback"), "{said}");
    let said = refused(&workspace, "one", 2, &whole);
    assert!(said.contains("32 rows of an epoch outside of the curriculum"), "{said}");
    let mut wild = whole.clone();
    wild[0].2 = 1.5;
    wild[1].2 = f64::NAN;
    wild[2].0 = "nobody".into();
    wild[3].1 = "later".into();
    let said = refused(&workspace, "one", 0, &wild);
    for part in
        ["2 rows whose probability is not from 0 to 1", "1 rows of a phase other", "1 rows of a sample that is not"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // All numbers of the file are equal, and its statistics leave NaN out.
    let mut equal = whole.clone();
    equal.iter_mut().for_each(|row| row.2 = 0.5);
    equal.iter_mut().take(4).for_each(|row| row.2 = f64::NAN);
    let said = refused(&workspace, "one", 0, &equal);
    assert!(said.contains("4 rows whose probability is not from 0 to 1"), "{said}");
    assert_eq!(workspace.number("SELECT count(*) FROM feedback"), 0.0);

    hand_in(&workspace, &write(&workspace, "one", 0, &whole)).unwrap();
    let mut other = whole.clone();
    other[0].2 += 0.1;
    let said = refused(&workspace, "one", 0, &other);
    assert!(said.contains("1 rows that contradict feedback already stored for that epoch"), "{said}");
    // A larger validation set makes the trial stale: it is not awaited, and a new one is asked for.
    let mut workspace = workspace;
    workspace.edit("validation.sources=9");
    let awaited = workspace.run()["awaits"].clone();
    assert_eq!((&awaited[0]["trial"], &awaited[0]["stale"]), (&Value::from("one"), &Value::from(true)), "{awaited}");
    assert_eq!((&awaited[1]["trial"], &awaited[1]["stale"]), (&Value::from("two"), &Value::from(false)), "{awaited}");
    let said = stderr(&workspace.command("run", &[]).output().unwrap());
    assert!(said.contains("trial one: it was measured on another spectrum validation set"), "{said}");
    assert!(said.contains("trial two: epoch 0 needs feedback from before and after its probe"), "{said}");
    let said = refused(&workspace, "one", 0, &measure(&workspace, 50));
    assert!(said.contains("rows of a trial that was measured on another spectrum validation set"), "{said}");
    // A trainer that waits is not left waiting.
    workspace.edit("curriculum.trials=[\"one\"]");
    let output = workspace.command("run", &["--follow"]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the spectrum validation set has changed since the trial \"one\" was measured on it"),
        "{said}"
    );

    let none = workspace.path("none.parquet");
    std::fs::write(&none, "hello").unwrap();
    assert!(hand_in(&workspace, &none).unwrap_err().contains("none.parquet"));
}

/// A trainer that reads the tables by the loader of `examples/pytorch`, and writes feedback as the example of CLIP does.
/// It computes with numpy: PyTorch would be 3 GB to install for every run of these tests. `make trainers` runs the
/// examples themselves.
#[test]
fn an_outside_trainer_needs_nothing_but_the_tables() {
    let workspace = adaptive();
    workspace.run();
    let mut trainer = std::process::Command::new(readers::environment("readers").join("bin/python"));
    trainer.arg("-B").arg(root().join("tests/readers/trainer.py")).arg(root().join("examples/pytorch"));
    trainer.arg(workspace.lake().join("digits_lt")).arg(workspace.path("run")).args(["--trial", "two", "--pipeline"]);
    trainer.arg(&workspace.pipeline).args(["--program", env!("CARGO_BIN_EXE_discl-pipe"), "--", "--lake"]);
    trainer.arg(workspace.lake());
    for edit in &workspace.set {
        trainer.arg("--set").arg(edit);
    }
    let output = trainer.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let accuracy: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(accuracy["test"].as_f64().unwrap() > 50.0, "{accuracy}");
    assert_eq!(workspace.number("SELECT count(*) FROM feedback WHERE trial = 'two'"), 64.0);
    assert_eq!(levels(&workspace, "two").len(), 3);
    assert_eq!(workspace.number("SELECT count(*) FROM feedback WHERE trial = 'one'"), 0.0);
    workspace.ok("verify", &[]);
}
