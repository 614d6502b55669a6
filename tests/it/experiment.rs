//! Classifiers and the built-in learner: which images are hard, and what a curriculum is worth.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use crate::support::{Workspace, root};

/// A pipeline in which a classifier selects the hard images.
fn classified() -> Workspace {
    let mut workspace = Workspace::small();
    workspace.edit("models.classifiers.digits=tests/fixtures/classifier");
    workspace.edit("hard_samples.sql=hard_samples/classifier.sql");
    workspace.edit("hard_samples.hard_fraction=1");
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
        "experiment.losses=[\"cross_entropy\",\"balanced_softmax\"]",
        "learner.iterations_per_epoch=8",
        "curriculum.probe_size=64",
        "validation.sources=2",
    ] {
        workspace.edit(edit);
    }
    workspace
}

/// The rows of a CSV file, with their columns by name.
fn csv(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row =
        |line: &str| header.iter().map(|name| (*name).to_owned()).zip(line.split(',').map(str::to_owned)).collect();
    lines.map(row).collect()
}

#[test]
fn an_experiment_compares_methods_with_one_budget() {
    let workspace = experiment();
    let file = workspace.path("rows.csv");
    let first = workspace.json("experiment", &["--rows", file.to_str().unwrap()]);
    let rows = workspace.query("SELECT * FROM experiments ORDER BY method, learner_seed, metric");
    let methods: BTreeSet<&str> = rows.iter().map(|row| row["method"].as_str().unwrap()).collect();
    let expected = [
        "adaptive",
        "adaptive+balanced_softmax",
        "balanced_softmax",
        "cross_entropy",
        "diverse_to_specific",
        "diverse_to_specific+balanced_softmax",
        "fixed",
        "fixed+balanced_softmax",
        "least_gain",
        "least_gain+balanced_softmax",
        "logit_adjustment",
        "oversampling",
        "pretraining_images",
        "random_choice",
        "random_choice+balanced_softmax",
        "real_only",
        "real_only+balanced_softmax",
    ];
    assert_eq!(methods.into_iter().collect::<Vec<_>>(), expected, "the controls come with the strategies");
    assert_eq!(rows.len(), expected.len() * 2 * 7, "a row for each learner and metric");
    assert!(rows.iter().all(|row| row["split_seed"] == 7 && row["architecture"] == "mlp"));
    let with_loss = |row: &&Value| row["method"].as_str().unwrap().ends_with("+balanced_softmax");
    assert!(rows.iter().filter(with_loss).all(|row| row["loss"] == "balanced_softmax"));
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
    assert_eq!(differences.len(), (expected.len() - 1) * 7);
    assert!(differences.iter().all(|difference| difference["interval"].is_null()), "one split has no interval");
    // The file has every row of the table.
    let written = csv(&file);
    for row in &rows {
        let same = |written: &&BTreeMap<String, String>| {
            ["architecture", "method", "loss", "sampling", "metric"].iter().all(|name| written[*name] == row[*name])
                && ["split_seed", "learner_seed"]
                    .iter()
                    .all(|name| row[*name] == written[*name].parse::<i64>().unwrap())
        };
        let found: Vec<_> = written.iter().filter(same).collect();
        assert_eq!(found.len(), 1, "{row}");
        assert_eq!(found[0]["value"].parse::<f64>().unwrap(), row["value"].as_f64().unwrap());
    }
    let of_level = written.iter().find(|row| row["metric"] == "level" && row["method"] == "fixed").unwrap();
    assert_eq!(of_level["value"], first["fixed_levels"][0]["image_guidance"].to_string());
    assert!(["10", "50", "90"].contains(&of_level["value"].as_str()));
    let chosen = written.iter().filter(|row| row["method"] == "adaptive" && row["metric"] == "chosen");
    let counts: Vec<i64> = chosen.map(|row| row["value"].parse().unwrap()).collect();
    assert_eq!((counts.len(), counts.iter().sum::<i64>()), (4 * 3, 4 * 2), "a level of each epoch and learner");
    levels_are_those_of_the_schedules(&first);
    // A second run replaces the rows with bit-identical ones.
    assert!(workspace.json("experiment", &[]) == first, "another answer");
    let again = workspace.query("SELECT * FROM experiments ORDER BY method, learner_seed, metric");
    assert!(again == rows, "other rows");
}

/// Each of the two learners trains on one level in each of four epochs: the one with the greatest gain, the one with the
/// least, or one by chance.
fn levels_are_those_of_the_schedules(found: &Value) {
    let stages = found["stages"].as_array().unwrap();
    let gains = |method: &str, epoch: i64, learner: i64| -> Vec<(f64, i64, bool)> {
        let same =
            |stage: &&Value| stage["method"] == method && stage["epoch"] == epoch && stage["learner_seed"] == learner;
        let gain = |stage: &Value| {
            let (gain, level) = (stage["gain"].as_f64().unwrap(), stage["image_guidance"].as_i64().unwrap());
            (gain, level, stage["chosen"] == true)
        };
        stages.iter().filter(same).map(gain).collect()
    };
    let mut drawn = BTreeSet::new();
    for method in ["adaptive", "least_gain", "random_choice"] {
        for (epoch, learner) in (0..4).flat_map(|epoch| (0..2).map(move |learner| (epoch, learner))) {
            let gains = gains(method, epoch, learner);
            let chosen: Vec<&(f64, i64, bool)> = gains.iter().filter(|gain| gain.2).collect();
            assert_eq!((gains.len(), chosen.len()), (3, 1), "{method} {epoch} {learner}");
            let (most, least) =
                gains.iter().fold((f64::MIN, f64::MAX), |(most, least), gain| (most.max(gain.0), least.min(gain.0)));
            match method {
                "adaptive" => assert_eq!(chosen[0].0, most, "{epoch} {learner}"),
                "least_gain" => assert_eq!(chosen[0].0, least, "{epoch} {learner}"),
                _ => drop(drawn.insert((chosen[0].0 == most, chosen[0].1))),
            }
        }
    }
    assert!(drawn.len() > 2, "always the same level, or always by the gain: {drawn:?}");
}

#[test]
fn what_an_experiment_needs_is_said_before_it_begins() {
    let said = |edits: &[&str], arguments: &[&str]| {
        let mut workspace = experiment();
        edits.iter().for_each(|edit| workspace.edit(edit));
        let output = workspace.command("experiment", arguments).output().unwrap();
        assert!(!output.status.success());
        assert!(!workspace.lake().exists(), "nothing was made");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = said(&["experiment.strategies=text_only"], &[]);
    assert!(
        text.contains("`experiment.strategies`: found `text_only`, which needs 0 in `curriculum.levels`"),
        "{text}"
    );
    let own = tempfile::tempdir().unwrap();
    let query = own.path().join("schedule/oversampling.sql");
    std::fs::create_dir(query.parent().unwrap()).unwrap();
    std::fs::copy(root().join("sql/schedule/real_only.sql"), query).unwrap();
    let text = said(&[&format!("sql_dir={}", own.path().display()), "experiment.strategies=oversampling"], &[]);
    assert!(text.contains("found `oversampling`, which is the name of a baseline"), "{text}");
    for strategy in ["adaptive", "random_choice", "least_gain"] {
        let text = said(&["curriculum.probe_size=0", &format!("experiment.strategies={strategy}")], &[]);
        assert!(text.contains(&format!("found `{strategy}`, which needs `curriculum.probe_size`")), "{text}");
    }
    let text = said(&["experiment.strategies=easy"], &[]);
    assert!(text.contains("schedule/easy.sql"), "{text}");
    let text = said(&["experiment.losses=focal"], &[]);
    assert!(text.contains("`experiment.losses`: found \"focal\", expected one of"), "{text}");
    let text = said(&["experiment.split=[{seed=1},{seed=1}]"], &[]);
    assert!(text.contains("duplicate value 1"), "{text}");
    // What only one of the splits lacks.
    let text = said(&["experiment.split=[{seed=1},{seed=2, set=\"validation.sources=0\"}]"], &[]);
    assert!(text.contains("found `adaptive`, which needs `curriculum.probe_size` and `validation.sources`"), "{text}");
    let text = said(&[], &["--rows", "no/such/folder/rows.csv"]);
    assert!(text.contains("`no/such/folder/rows.csv` cannot be written"), "{text}");
}

#[test]
fn a_strategy_without_images_is_said_before_any_training() {
    // Nothing passes this filter, and the pipeline by itself expects nothing to.
    let nothing = ["filter.min_text_similarity=0.99", "expect=[]", "curriculum.strategy=real_only"];
    let said = |edit: &str| {
        let mut workspace = experiment();
        nothing.iter().chain([&edit]).for_each(|edit| workspace.edit(edit));
        let output = workspace.command("experiment", &[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !said.contains("trained"), "{said}");
        said
    };
    let text = said("experiment.strategies=[\"fixed\",\"adaptive\"]");
    assert!(text.contains("split 7: the strategy `adaptive` has nothing to measure on"), "{text}");
    let text = said("experiment.strategies=fixed");
    assert!(text.contains("split 7: no level has a kept image for the strategy `fixed`"), "{text}");
    let text = said("experiment.strategies=diverse_to_specific");
    assert!(text.contains("split 7: epoch 0 of the strategy `diverse_to_specific` has no image to train on"), "{text}");
}

/// `validation.sources` takes images from the manifests, not from the baselines.
#[test]
fn baselines_train_on_every_training_image() {
    let measured = |sources: &str| {
        let mut workspace = experiment();
        workspace.edit("experiment.strategies=diverse_to_specific");
        workspace.edit("experiment.losses=cross_entropy");
        workspace.edit(sources);
        workspace.json("experiment", &[]);
        let of = |methods: &str| {
            workspace.query(&format!(
                "SELECT method, learner_seed, metric, value FROM experiments WHERE method IN ({methods}) ORDER BY 1, 2, 3"
            ))
        };
        (of("'cross_entropy', 'balanced_softmax', 'oversampling'"), of("'real_only'"))
    };
    let (without, with) = (measured("validation.sources=0"), measured("validation.sources=6"));
    assert!(without.0 == with.0, "baselines lack images of the validation set");
    assert!(without.1 != with.1, "manifests hold images of the validation set");
}
