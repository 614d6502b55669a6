//! Classifiers and the built-in learner: which images are hard, and what a curriculum is worth.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{Workspace, root};

/// A pipeline in which a classifier selects the hard images.
fn classified() -> Workspace {
    let mut workspace = Workspace::small();
    workspace.edit("models.classifiers.digits=tests/fixtures/classifier");
    workspace.edit("hard_samples.sql=hard_samples/classifier.sql");
    workspace.edit("hard_samples.classifier=digits");
    workspace
}

#[test]
fn a_classifier_finds_what_is_hard_as_its_own_runtime_does() {
    let workspace = classified();
    workspace.ok("run", &["--until", "hard_samples"]);
    let golden = std::fs::read_to_string(root().join("tests/fixtures/classifier/golden.json")).unwrap();
    let golden: BTreeMap<String, f64> = serde_json::from_str(&golden).unwrap();
    let rows = workspace.query(
        "SELECT i.path, i.class_name, p.classes[i.label + 1] AS probability, array_length(p.classes) AS classes
         FROM images i
         JOIN (SELECT pixel_id, classify('digits', image) AS classes FROM pixels) p ON p.pixel_id = i.pixel_id
         WHERE i.split = 'train'",
    );
    assert_eq!(rows.len(), golden.len());
    for row in &rows {
        let (path, found) = (row["path"].as_str().unwrap(), row["probability"].as_f64().unwrap());
        assert!((found - golden[path]).abs() < 1e-5, "{path}: {found} and not {}", golden[path]);
        assert_eq!(row["classes"], 10);
    }
    // The least probable tenth, or everything below a probability.
    let hard = |edits: &[&str]| {
        let mut workspace = classified();
        edits.iter().for_each(|edit| workspace.edit(edit));
        workspace.ok("run", &["--until", "hard_samples"]);
        let rows = workspace.query("SELECT i.path FROM hard_samples h JOIN images i ON i.source_id = h.source_id");
        rows.iter().map(|row| row["path"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let below: BTreeSet<String> =
        golden.iter().filter(|(_, probability)| **probability < 0.25).map(|(path, _)| path.clone()).collect();
    assert_eq!(hard(&["hard_samples.max_probability=0.25"]), below);
    assert_eq!(hard(&["hard_samples.hard_fraction=0.1"]).len(), golden.len() / 10);
    // No image of an excluded class is hard.
    let class = rows.iter().find(|row| below.contains(row["path"].as_str().unwrap())).unwrap()["class_name"].clone();
    let of_class = |path: &String| rows.iter().any(|row| row["path"] == path.as_str() && row["class_name"] == class);
    let others: BTreeSet<String> = below.iter().filter(|path| !of_class(path)).cloned().collect();
    assert!(others.len() < below.len());
    assert_eq!(hard(&["hard_samples.max_probability=0.25", &format!("hard_samples.exclude_classes={class}")]), others);
}

#[test]
fn a_classifier_that_is_not_there_is_named() {
    let mut workspace = classified();
    workspace.edit("hard_samples.classifier=cars");
    let output = workspace.command("check", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("found \"cars\", expected a name of `[models.classifiers]`: `digits`"), "{said}");
    workspace.edit("hard_samples.classifier=digits");
    workspace.edit("models.classifiers.digits=tests/fixtures/onnx");
    let output = workspace.command("check", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`models.classifiers.digits`: cannot read"), "{said}");
}

#[test]
fn the_learner_finds_out_of_fold_what_is_hard() {
    let mut workspace = Workspace::small();
    workspace.edit("experiment.learner_seeds=2");
    let file = workspace.path("confidences.parquet");
    let said = workspace.json("confidences", &[file.to_str().unwrap()]);
    assert_eq!(said["images"], 337);
    let first = std::fs::read(&file).unwrap();
    workspace.ok("confidences", &[file.to_str().unwrap()]);
    assert_eq!(first, std::fs::read(&file).unwrap(), "the same bytes again");
    workspace.edit("hard_samples.sql=hard_samples/low_confidence.sql");
    workspace.edit(&format!("hard_samples.confidences={}", file.display()));
    workspace.edit("hard_samples.hard_fraction=0.2");
    workspace.ok("run", &["--until", "hard_samples"]);
    let rare = workspace.number("SELECT avg(CASE WHEN label IN (5, 8, 9) THEN 1.0 ELSE 0.0 END) FROM hard_samples");
    let of_all = 12.0 / 337.0;
    assert!(rare > 2.0 * of_all, "{rare} of the hard images are of the rarest classes, {of_all} of all");
}

/// An experiment that takes seconds: 12 hard images, two learners, one split.
fn experiment() -> Workspace {
    let mut workspace = Workspace::small();
    for edit in [
        "experiment.split=[{seed=7}]",
        "experiment.learner_seeds=2",
        "experiment.strategies=[\"fixed\",\"adaptive\",\"diverse_to_specific\"]",
        "learner.iterations_per_epoch=8",
        "curriculum.probe_size=64",
        "validation.sources=2",
    ] {
        workspace.edit(edit);
    }
    workspace
}

#[test]
fn an_experiment_compares_methods_with_one_budget() {
    let workspace = experiment();
    let first = workspace.json("experiment", &[]);
    let rows = workspace.query("SELECT * FROM experiments ORDER BY method, learner_seed, metric");
    let methods: BTreeSet<&str> = rows.iter().map(|row| row["method"].as_str().unwrap()).collect();
    let expected = [
        "adaptive",
        "balanced_softmax",
        "cross_entropy",
        "diverse_to_specific",
        "fixed",
        "logit_adjustment",
        "oversampling",
        "pretraining_images",
    ];
    assert_eq!(methods.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(rows.len(), expected.len() * 2 * 6, "a row for each learner and metric");
    assert!(rows.iter().all(|row| row["split_seed"] == 7 && row["architecture"] == "mlp"));
    for line in first["summary"]["lines"].as_array().unwrap() {
        let (method, metric) = (line["method"].as_str().unwrap(), line["metric"].as_str().unwrap());
        let values: Vec<f64> = rows
            .iter()
            .filter(|row| row["method"] == method && row["metric"] == metric)
            .map(|row| row["value"].as_f64().unwrap())
            .collect();
        assert!(values.iter().all(|value| (0.0..=100.0).contains(value)));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((line["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{method} {metric}");
    }
    let differences = first["summary"]["differences"].as_array().unwrap();
    assert_eq!(differences.len(), (expected.len() - 1) * 6);
    // Each of the two learners has one level in each of four epochs, the one with the highest gain.
    let stages = first["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 4 * 2 * 4, "three levels of the spectrum, and the real images");
    for stage in stages.iter().filter(|stage| stage["chosen"] == true) {
        let same = |other: &&Value| {
            other["epoch"] == stage["epoch"] && other["learner_seed"] == stage["learner_seed"] && *other != stage
        };
        let others = stages.iter().filter(same).map(|other| other["gain"].as_f64().unwrap());
        assert!(others.fold(f64::MIN, f64::max) <= stage["gain"].as_f64().unwrap(), "{stage}");
    }
    assert_eq!(stages.iter().filter(|stage| stage["chosen"] == true).count(), 4 * 2);
    let level = first["fixed_levels"][0]["image_guidance"].as_i64().unwrap();
    assert!([10, 50, 90].contains(&level));
    // A second run replaces the rows with bit-identical ones.
    assert!(workspace.json("experiment", &[]) == first, "another answer");
    let again = workspace.query("SELECT * FROM experiments ORDER BY method, learner_seed, metric");
    assert!(again == rows, "other rows");
}

#[test]
fn what_an_experiment_needs_is_said_before_it_begins() {
    let said = |edits: &[&str]| {
        let mut workspace = experiment();
        edits.iter().for_each(|edit| workspace.edit(edit));
        let output = workspace.command("experiment", &[]).output().unwrap();
        assert!(!output.status.success());
        assert!(!workspace.lake().exists(), "nothing was made");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = said(&["experiment.strategies=text_only"]);
    assert!(text.contains("`experiment.strategies`: found `text_only`, which needs 0 in"), "{text}");
    let text = said(&["curriculum.probe_size=0"]);
    assert!(text.contains("found `adaptive`, which needs `curriculum.probe_size`"), "{text}");
    let text = said(&["experiment.strategies=easy"]);
    assert!(text.contains("schedule/easy.sql"), "{text}");
    let text = said(&["experiment.split=[{seed=1},{seed=1}]"]);
    assert!(text.contains("duplicate value 1"), "{text}");
}
