//! The method computed a second time, in Python, from the documentation alone: in each of these settings every table is
//! equal, row for row. `tests/independent/` has the second implementation.
//!
//! Images are generated once per lake; a setting changes what is selected of them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::{
    readers,
    support::{Workspace, root, stderr},
};

/// Rare classes: 12 hard images, four levels.
const LONG_TAIL: &[&str] = &[
    "hard_samples.max_class_count=10",
    "spectrum.image_guidance=[0,10,50,90]",
    "spectrum.seeds=[10,20]",
    "spectrum.timesteps=10",
    "filter.max_attempts=2",
    "curriculum.epochs=7",
    "curriculum.curriculum_epochs=5",
    "curriculum.non_hard_fraction=0.2",
];

const LONG_TAIL_SETTINGS: &[&[&str]] = &[
    &[],
    // Strategies, with fewer epochs than levels, no epoch after the curriculum, none in it.
    &["curriculum.strategy=specific_to_diverse", "curriculum.curriculum_epochs=7"],
    &["curriculum.strategy=shrink", "curriculum.levels=[100,50,10]"],
    &["curriculum.strategy=recursive", "curriculum.epochs=9", "curriculum.curriculum_epochs=8"],
    &["curriculum.strategy=recursive", "curriculum.levels=[50]", "curriculum.curriculum_epochs=2"],
    &["curriculum.strategy=random", "curriculum.levels=[100,10,50]", "curriculum.trials=[\"a\",\"b\",\"c\"]"],
    &["curriculum.strategy=all_levels", "curriculum.levels=[100,10,50]", BALANCED],
    &["curriculum.strategy=text_only"],
    &["curriculum.curriculum_epochs=2", "curriculum.seed=1"],
    &["curriculum.curriculum_epochs=0"],
    // Shares. Some of these products are whole numbers in decimals, and a little less in binary fractions.
    &["curriculum.strategy=random", "curriculum.seed=5", "curriculum.hard_share=0.48"],
    &[
        "curriculum.strategy=fixed",
        "curriculum.level=50",
        "curriculum.hard_share=0.6",
        "curriculum.non_hard_fraction=0.8",
    ],
    &["curriculum.epochs=6", "curriculum.hard_share=0.98", "curriculum.non_hard_fraction=0.1"],
    &["curriculum.strategy=real_only", "curriculum.hard_share=0.45", BALANCED],
    // Every image of a level.
    &[LOW_QUALITY],
    &[LOW_QUALITY, "curriculum.strategy=all_levels", "curriculum.trials=[\"x\",\"y\"]"],
    &[LOW_QUALITY, "curriculum.strategy=shrink", "curriculum.levels=[90,10]"],
    // The validation set.
    &["validation.sources=3", "curriculum.probe_size=20"],
    &["validation.sources=4", LOW_QUALITY, "curriculum.probe_size=1000"],
    &["validation.sources=3", "spectrum.image_guidance=[10,50]", "curriculum.seed=9"],
    // The filter.
    &["filter.min_text_similarity=0.61", "filter.max_attempts=4", "spectrum.image_guidance=[50,90]"],
    &["filter.min_text_similarity=0.5", "filter.max_attempts=1"],
    // Classes and their texts.
    &[
        "hard_samples.max_class_count=5",
        "hard_samples.exclude_classes=[\"eight\"]",
        "prompts.captions=[\"a photo of {class}.\",\"{class} in the wild.\"]",
    ],
];

/// Poor images and an adaptive curriculum: 16 hard images, two levels.
const ADAPTIVE: &[&str] = &[
    "hard_samples.hard_fraction=0.08",
    "spectrum.image_guidance=[50,90]",
    "spectrum.seeds=[10,20]",
    "spectrum.timesteps=10",
    "filter.max_attempts=2",
    "filter.min_text_similarity=0.5",
    "validation.sources=6",
    "curriculum.epochs=5",
    "curriculum.curriculum_epochs=4",
    "curriculum.non_hard_fraction=0.3",
    "curriculum.probe_size=30",
    "curriculum.trials=[\"one\",\"two\"]",
];

/// With feedback of three epochs of trial `one` and one of `two`.
const ADAPTIVE_SETTINGS: &[&[&str]] = &[
    &[ADAPT],
    &[ADAPT, "curriculum.exploration=0.5", MIXED, "curriculum.synthetic_per_hard=2.28"],
    &[ADAPT, "curriculum.levels=[50,100]", "curriculum.seed=3"],
    // What may be edited after feedback.
    &[ADAPT, "curriculum.curriculum_epochs=2"],
    &[ADAPT, "curriculum.trials=[\"two\",\"three\"]"],
    &[ADAPT, "validation.sources=3"],
    &[ADAPT, "validation.sources=7"],
    &["curriculum.strategy=adaptive_by_class", "curriculum.exploration=0.5", MIXED, "curriculum.hard_share=0.4"],
    &["curriculum.strategy=adaptive_by_class", BALANCED, MIXED, "curriculum.synthetic_per_hard=0.75"],
    &["curriculum.strategy=least_gain"],
    &["curriculum.strategy=random_choice"],
    &["curriculum.strategy=all_levels", BALANCED, MIXED, "curriculum.synthetic_per_hard=1.5"],
];

const ADAPT: &str = "curriculum.strategy=adaptive";
const MIXED: &str = "curriculum.manifest=manifest/mixed.sql";
const LOW_QUALITY: &str = "curriculum.manifest=manifest/low_quality.sql";
const BALANCED: &str = "curriculum.class_balanced=true";

/// Poor images: one level that runs one timestep, so that many images may be hard.
const POOR: &[&str] = &[
    "spectrum.image_guidance=[90]",
    "spectrum.seeds=[10]",
    "spectrum.timesteps=10",
    "filter.max_attempts=1",
    "validation.sources=0",
    "curriculum.strategy=random",
    "curriculum.manifest=manifest/mixed.sql",
    "curriculum.epochs=2",
    "curriculum.curriculum_epochs=1",
];

/// `DIR` is the workspace.
const POOR_SETTINGS: &[&[&str]] = &[
    &["hard_samples.hard_fraction=0.29", SHARE],
    &["hard_samples.hard_fraction=1", "hard_samples.max_probability=0.2", SHARE],
    // Many equal probabilities.
    &["hard_samples.hard_fraction=0.145", "hard_samples.exclude_classes=[\"three\",\"eight\"]", CONFIDENCES, SHARE],
    &["hard_samples.hard_fraction=1", "hard_samples.max_probability=0.1", CONFIDENCES, SHARE],
    &[
        "hard_samples.hard_fraction=0.1",
        "prompts.descriptions=DIR/descriptions.json",
        "prompts.common_names=DIR/common_names.json",
        "prompts.generation=a photo of {class}, {description}",
        "prompts.filter=the digit {class}",
        "seed=7",
    ],
];

const SHARE: &str = "curriculum.hard_share=0.6";
const CONFIDENCES: &str = "hard_samples.confidences=DIR/confidences.parquet";

const _: () = assert!(LONG_TAIL_SETTINGS.len() + ADAPTIVE_SETTINGS.len() + POOR_SETTINGS.len() >= 40);

fn workspace(pipeline: &str, settings: &[&str]) -> Workspace {
    let mut workspace = Workspace::full();
    workspace.pipeline = root().join("pipelines").join(pipeline).with_extension("toml");
    settings.iter().for_each(|edit| workspace.edit(edit));
    workspace
}

fn python(script: &str, arguments: &[&str]) -> Output {
    let mut process = Command::new(readers::environment("readers").join("bin/python"));
    process.args(["-s", "-E", "-B"]).arg(root().join("tests/independent").join(script)).args(arguments);
    process.current_dir(root()).output().unwrap()
}

/// The folder of the pipeline's tables.
fn tables(workspace: &Workspace) -> PathBuf {
    workspace.lake().join(workspace.pipeline.file_stem().unwrap())
}

/// Runs the pipeline in each setting and compares every table with the second implementation.
fn compare(workspace: &mut Workspace, settings: &[&[&str]]) {
    let base = workspace.set.clone();
    for edits in settings {
        edits.iter().for_each(|edit| workspace.edit(edit));
        workspace.ok("run", &[]);
        let (pipeline, tables) = (workspace.pipeline.display().to_string(), tables(workspace).display().to_string());
        let set = workspace.set.iter().flat_map(|edit| ["--set", edit]);
        let arguments: Vec<&str> = [pipeline.as_str(), &tables].into_iter().chain(set).collect();
        let output = python("compare.py", &arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{edits:?}:\n{said}{}", stderr(&output));
        workspace.set.clone_from(&base);
    }
}

#[test]
fn curricula_of_a_long_tail_are_computed_a_second_time() {
    let mut workspace = workspace("digits_lt", LONG_TAIL);
    compare(&mut workspace, LONG_TAIL_SETTINGS);
    // A threshold as it is shown keeps the image whose score it is, even where the shown number is the greater one.
    let score = workspace.query(
        "SELECT text_similarity FROM kept \
         WHERE CAST(text_similarity AS DOUBLE) < CAST(CAST(text_similarity AS VARCHAR) AS DOUBLE) \
         ORDER BY text_similarity LIMIT 1",
    );
    let threshold = format!("filter.min_text_similarity={}", score[0]["text_similarity"]);
    compare(&mut workspace, &[&[&threshold]]);
}

#[test]
fn adaptive_curricula_are_computed_a_second_time() {
    let mut workspace = workspace("digits_low_quality", ADAPTIVE);
    compare(&mut workspace, &[&[]]);
    for strategy in ["adaptive", "adaptive_by_class", "least_gain", "random_choice"] {
        workspace.edit(&format!("curriculum.strategy={strategy}"));
        for (trial, epoch, kind) in
            [("one", "0", "random"), ("one", "1", "random"), ("one", "2", "random"), ("two", "0", "equal")]
        {
            let file = workspace.path("feedback.parquet").display().to_string();
            let lake = tables(&workspace).display().to_string();
            let output = python("made_up.py", &["feedback", &lake, &file, strategy, trial, epoch, kind]);
            assert!(output.status.success(), "{}", stderr(&output));
            workspace.ok("feedback", &[&file]);
        }
    }
    compare(&mut workspace, ADAPTIVE_SETTINGS);
}

#[test]
fn hard_samples_and_prompts_are_computed_a_second_time() {
    let mut workspace = workspace("digits_low_quality", POOR);
    let file = workspace.path("confidences.parquet").display().to_string();
    let output = python("made_up.py", &["confidences", "data/digits_low_quality/train.parquet", &file]);
    assert!(output.status.success(), "{}", stderr(&output));
    let digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let descriptions = digits.map(|name| format!("\"{name}\":[\"thin\",\"bold\",\"leaning\"]")).join(",");
    fs::write(workspace.path("descriptions.json"), format!("{{{descriptions}}}")).unwrap();
    fs::write(workspace.path("common_names.json"), "{\"one\":\"1\",\"eight\":\"8\"}").unwrap();
    let folder = workspace.path("").display().to_string();
    let settings: Vec<Vec<String>> = POOR_SETTINGS
        .iter()
        .map(|edits| edits.iter().map(|edit| edit.replace("DIR", folder.trim_end_matches('/'))).collect())
        .collect();
    for edits in &settings {
        compare(&mut workspace, &[&edits.iter().map(String::as_str).collect::<Vec<_>>()]);
    }
}
