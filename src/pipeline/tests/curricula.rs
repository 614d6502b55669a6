//! The shipped curricula: the schedule of every strategy, invariants of every manifest, and the choice of hard images.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::{AsArray, Float64Array, RecordBatch};

use super::{Curricula, Row, integers, strings};
use crate::{identity::Digest, schema, session};

/// Strategy, epochs, curriculum epochs, levels, and the schedule.
const SCHEDULES: &[(&str, i64, i64, &str, &str)] = &[
    ("real_only", 65, 60, "[0,10,30,50]", "100 ×65"),
    ("text_only", 65, 60, "[0,10,30,50]", "0 ×60, 100 ×5"),
    ("fixed", 65, 60, "[0,10,30,50]", "10 ×60, 100 ×5"),
    ("all_levels", 65, 60, "[0,10,30,50]", "0+10+30+50 ×60, 100 ×5"),
    ("diverse_to_specific", 65, 60, "[0,10,30,50]", "0 ×15, 10 ×15, 30 ×15, 50 ×15, 100 ×5"),
    ("specific_to_diverse", 65, 60, "[0,10,30,50]", "50 ×15, 30 ×15, 10 ×15, 0 ×15, 100 ×5"),
    ("shrink", 65, 60, "[0,10,30,50]", "0+10+30+50 ×15, 10+30+50 ×15, 30+50 ×15, 50 ×15, 100 ×5"),
    // A remainder goes to the earliest stages, whatever the order of the levels.
    ("diverse_to_specific", 9, 7, "[50,10,30]", "10 ×3, 30 ×2, 50 ×2, 100 ×2"),
    ("specific_to_diverse", 9, 7, "[50,10,30]", "50 ×3, 30 ×2, 10 ×2, 100 ×2"),
    ("shrink", 9, 7, "[50,10,30]", "10+30+50 ×3, 30+50 ×2, 50 ×2, 100 ×2"),
    ("recursive", 11, 9, "[10,30,50]", "10 ×1, 30 ×1, 50 ×1, 30 ×1, 10 ×1, 30 ×1, 50 ×1, 30 ×1, 10 ×1, 100 ×2"),
    ("recursive", 5, 4, "[10,30]", "10 ×1, 30 ×1, 10 ×1, 30 ×1, 100 ×1"),
    // With fewer epochs than levels, the last levels have none.
    ("diverse_to_specific", 4, 2, "[0,10,30]", "0 ×1, 10 ×1, 100 ×2"),
    // One level, no curriculum epochs, only curriculum epochs.
    ("diverse_to_specific", 5, 3, "[10]", "10 ×3, 100 ×2"),
    ("recursive", 5, 3, "[10]", "10 ×3, 100 ×2"),
    ("shrink", 5, 3, "[10]", "10 ×3, 100 ×2"),
    ("random", 5, 3, "[10]", "10 ×3, 100 ×2"),
    ("all_levels", 3, 0, "[0,10]", "100 ×3"),
    ("diverse_to_specific", 3, 0, "[0,10]", "100 ×3"),
    ("random", 3, 0, "[0,10]", "100 ×3"),
    ("recursive", 3, 0, "[0,10]", "100 ×3"),
    ("diverse_to_specific", 4, 4, "[0,10]", "0 ×2, 10 ×2"),
    // The hard images themselves are a level.
    ("diverse_to_specific", 7, 6, "[100,10,50]", "10 ×2, 50 ×2, 100 ×3"),
    ("all_levels", 3, 2, "[10,100]", "10+100 ×2, 100 ×1"),
    ("text_only", 4, 4, "[0,10]", "0 ×4"),
];

#[tokio::test]
async fn every_strategy_has_its_schedule() {
    for &(strategy, epochs, curriculum_epochs, levels, expected) in SCHEDULES {
        let edits = [
            format!("curriculum.strategy={strategy}"),
            format!("curriculum.epochs={epochs}"),
            format!("curriculum.curriculum_epochs={curriculum_epochs}"),
            "spectrum.image_guidance=[0,10,30,50]".to_owned(),
            format!("curriculum.levels={levels}"),
            "curriculum.level=10".to_owned(),
        ];
        let edits: Vec<&str> = edits.iter().map(String::as_str).collect();
        let schedule = Curricula::open(&edits).await.schedule().await;
        assert_eq!(schedule, expected, "{strategy} of {curriculum_epochs} in {epochs} epochs over {levels}");
    }
}

#[tokio::test]
async fn random_levels_depend_on_the_epoch_the_seed_and_the_trial() {
    let of = async |seed: &str| {
        let edits = ["curriculum.strategy=random", "curriculum.epochs=60", "curriculum.curriculum_epochs=60", seed];
        Curricula::open(&edits).await.schedule().await
    };
    let (one, other) = (of("seed=1").await, of("seed=2").await);
    assert_ne!(one, other);
    assert_eq!(one, of("seed=1").await);
    assert_eq!(other, of("curriculum.seed=2").await);
    assert_ne!(of("curriculum.trials=[\"1\"]").await, of("curriculum.trials=[\"0\"]").await);
    for level in [0, 10, 30, 50, 70, 90] {
        let epochs: usize = one
            .split(", ")
            .filter_map(|run| run.strip_prefix(&format!("{level} ×")))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        assert!((3..=20).contains(&epochs), "{level} in {epochs} of 60 epochs");
    }
}

/// The class profile of ImageNet-LT: 864 classes with 114,203 images, and 136 few-shot ones with 1,643.
fn imagenet_lt() -> Vec<i64> {
    let spread =
        |images: i64, classes: i64| (0..classes).map(move |n| images / classes + i64::from(n < images % classes));
    spread(114_203, 864).chain(spread(1_643, 136)).collect()
}

#[tokio::test]
async fn imagenet_lt_mixes_as_many_rows_as_the_released_code() {
    for (sources, real, synthetic) in [(0, 1_643, 3_749), (100, 1_543, 3_849)] {
        let edits = [
            "spectrum.image_guidance=[0,10,30,50]".to_owned(),
            "curriculum.epochs=2".to_owned(),
            "curriculum.curriculum_epochs=1".to_owned(),
            "curriculum.non_hard_fraction=0.3".to_owned(),
            "curriculum.hard_share=0.136".to_owned(),
            format!("validation.sources={sources}"),
        ];
        let mut curricula = Curricula::open(&edits.iter().map(String::as_str).collect::<Vec<_>>()).await;
        // 6,035 images of each level: four of most sources, three of the others.
        curricula.long_tail(&imagenet_lt(), &[0, 10, 30, 50], |row, _| if row < 1_106 { 4 } else { 3 }).await;
        let mut counts: BTreeMap<(i64, String), usize> = BTreeMap::new();
        for row in curricula.manifest().await {
            *counts.entry((row.epoch, row.origin)).or_default() += 1;
        }
        let count = |epoch, origin: &str| counts.get(&(epoch, origin.to_owned())).copied().unwrap_or(0);
        assert_eq!([count(0, "non_hard"), count(0, "hard"), count(0, "synthetic")], [34_260, real, synthetic]);
        assert_eq!([count(1, "non_hard"), count(1, "hard"), count(1, "synthetic")], [34_260, 5_392, 0]);
    }
}

/// Invariants of every manifest, whatever the strategy, the data and the shares.
#[tokio::test]
async fn manifests_keep_their_promises() {
    let strategies = ["all_levels", "diverse_to_specific", "random", "recursive", "shrink", "specific_to_diverse"];
    let mut numbers = Digest::new("mixes").part(b"1").bytes().into_iter().cycle();
    let mut below = |end: u8| numbers.next().unwrap() % end;
    for (mix, strategy) in strategies.iter().enumerate() {
        let share = [0.05, 0.136, 0.4, 0.7][usize::from(below(4))];
        let fraction = [0.1, 0.5, 1.0][usize::from(below(3))];
        let classes: Vec<i64> =
            (0..6).map(|class| if class < 3 { 21 + i64::from(below(30)) } else { 1 + i64::from(below(15)) }).collect();
        let kept: Vec<usize> = (0..7).map(|_| usize::from(below(4))).collect();
        let edits = [
            format!("curriculum.strategy={strategy}"),
            "spectrum.image_guidance=[10,50,90]".to_owned(),
            "curriculum.epochs=7".to_owned(),
            "curriculum.curriculum_epochs=5".to_owned(),
            format!("curriculum.hard_share={share}"),
            format!("curriculum.non_hard_fraction={fraction}"),
            format!("curriculum.class_balanced={}", below(2) == 0),
            format!("validation.sources={}", below(3)),
        ];
        let edits: Vec<&str> = edits.iter().map(String::as_str).collect();
        let mut manifests = Vec::new();
        for (target_partitions, batch_size) in [(1, 8192), (5, 3)] {
            let settings = session::Settings { target_partitions, batch_size, memory_limit: None };
            let mut curricula = Curricula::with(&edits, settings).await;
            curricula.long_tail(&classes, &[10, 50, 90], |row, level| kept[(row + level as usize) % 7]).await;
            let rows = curricula.manifest().await;
            check(&curricula, &rows, share, fraction, &format!("mix {mix}: {edits:?}, {classes:?}, {kept:?}")).await;
            manifests.push(rows);
        }
        assert!(manifests[0] == manifests[1], "mix {mix}: partitions and batches change the manifest");
    }
}

async fn check(curricula: &Curricula, rows: &[Row], share: f64, fraction: f64, what: &str) {
    let [kept, images] = [curricula.ids("kept", "sample_id").await, curricula.ids("images", "source_id").await];
    let validation = curricula.ids("validation", "source_id").await;
    let hard: BTreeSet<String> = &curricula.ids("hard_samples", "source_id").await - &validation;
    let context = curricula.pipeline.project.session.context(&curricula.snapshot).unwrap();
    let test = context.sql("SELECT source_id FROM images WHERE split = 'test'").await.unwrap().collect().await.unwrap();
    let test: BTreeSet<&str> =
        test.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten()).collect();
    let train = images.len() - test.len() - validation.len();
    let non_hard = (fraction * (train - hard.len()) as f64).floor();
    let quota = (share / (1.0 - share) * non_hard).floor() as usize;
    for row in rows {
        let known = if row.origin == "synthetic" { &kept } else { &images };
        assert!(known.contains(&row.sample), "{what}: {row:?}");
        assert!(!validation.contains(&row.source) && !test.contains(row.source.as_str()), "{what}: {row:?}");
        assert_eq!(row.origin == "synthetic", row.level < 100, "{what}: {row:?}");
    }
    for epoch in 0..7 {
        let of = |origin: &str| rows.iter().filter(|row| row.epoch == epoch && row.origin == origin).count();
        let positions = rows.iter().filter(|row| row.epoch == epoch).map(|row| row.position);
        let count = of("non_hard") + of("hard") + of("synthetic");
        assert!(positions.eq(0..count as i64), "{what}: positions of epoch {epoch}");
        assert_eq!(of("non_hard"), non_hard as usize, "{what}: epoch {epoch}");
        // An epoch has every hard image. If these are fewer than the share, the share is kept.
        let expected = if hard.is_empty() { 0 } else { quota.max(hard.len()) };
        assert_eq!(of("hard") + of("synthetic"), expected, "{what}: epoch {epoch}");
        let drawn = |origin: &str| {
            let mut repeats: BTreeMap<(i64, &str), usize> = BTreeMap::new();
            for row in rows.iter().filter(|row| row.epoch == epoch && row.origin == origin) {
                let part = if curricula.pipeline.project.config.curriculum.class_balanced { row.label } else { 0 };
                *repeats.entry((part, &row.sample)).or_default() += 1;
            }
            repeats
        };
        for origin in ["synthetic", "hard"] {
            let repeats = drawn(origin);
            for (part, sample) in repeats.keys() {
                let of_part = repeats.iter().filter(|((other, _), _)| other == part).map(|(_, count)| *count);
                let (least, most) = (of_part.clone().min().unwrap(), of_part.max().unwrap());
                assert!(
                    most - least <= 1,
                    "{what}: epoch {epoch} has {sample} up to {most} times, others {least} times"
                );
            }
        }
        assert!(hard.iter().all(|id| drawn("hard").keys().any(|(_, sample)| sample == id)), "{what}: epoch {epoch}");
    }
}

/// Level 10 has an outlier, level 50 gains less, and level 90 gains as much as level 10.
#[tokio::test]
async fn progress_leaves_outliers_out_and_breaks_ties_downwards() {
    let edits = [
        "curriculum.strategy=adaptive",
        "curriculum.trials=[\"a\",\"b\"]",
        "curriculum.probe_size=3",
        "curriculum.epochs=4",
        "curriculum.curriculum_epochs=3",
        "validation.sources=5",
    ];
    let mut curricula = Curricula::open(&edits).await;
    let gains = [(10, [0.2, 0.25, 0.3, 0.35, 0.9]), (50, [0.1; 5]), (90, [0.275; 5])];
    let (mut samples, mut levels, mut feedback) = (Vec::new(), Vec::new(), Vec::new());
    for (level, gains) in gains {
        for (number, gain) in gains.into_iter().enumerate() {
            let sample = format!("{level} {number}");
            feedback.extend([(sample.clone(), "before", 0.05), (sample.clone(), "after", 0.05 + gain)]);
            samples.push(sample);
            levels.push(level);
        }
    }
    curricula.set(
        "validation",
        &[
            ("sample_id", strings(&samples)),
            ("source_id", strings(&samples)),
            ("label", integers(&vec![4; samples.len()])),
            ("image_guidance", integers(&levels)),
        ],
    );
    let column = |value: &str| strings(&vec![value; feedback.len()]);
    curricula.set(
        "feedback",
        &[
            ("curriculum", column("adaptive")),
            ("trial", column("b")),
            ("epoch", integers(&vec![0; feedback.len()])),
            ("phase", strings(&feedback.iter().map(|row| row.1).collect::<Vec<_>>())),
            ("sample_id", strings(&feedback.iter().map(|row| &row.0).collect::<Vec<_>>())),
            ("probability", Arc::new(Float64Array::from_iter_values(feedback.iter().map(|row| row.2)))),
        ],
    );
    curricula.fill("progress").await;
    let progress = curricula.text("SELECT * FROM progress ORDER BY label, image_guidance").await;
    // 0.9 exceeds 0.35 + 1.5 (0.35 - 0.25). The others have the mean 0.275 and the standard deviation 0.06455.
    insta::assert_snapshot!(progress, @r"
    +------------+-------+-------+-------+----------------+---------+----------+-------+----------------+--------+
    | curriculum | trial | epoch | label | image_guidance | samples | outliers | gain  | standard_error | chosen |
    +------------+-------+-------+-------+----------------+---------+----------+-------+----------------+--------+
    | adaptive   | b     | 0     | 4     | 10             | 5       | 1        | 0.275 | 0.032274861    | true   |
    | adaptive   | b     | 0     | 4     | 50             | 5       | 0        | 0.1   | 0.0            | false  |
    | adaptive   | b     | 0     | 4     | 90             | 5       | 0        | 0.275 | 0.0            | false  |
    | adaptive   | b     | 0     |       | 10             | 5       | 1        | 0.275 | 0.032274861    | true   |
    | adaptive   | b     | 0     |       | 50             | 5       | 0        | 0.1   | 0.0            | false  |
    | adaptive   | b     | 0     |       | 90             | 5       | 0        | 0.275 | 0.0            | false  |
    +------------+-------+-------+-------+----------------+---------+----------+-------+----------------+--------+
    ");
    curricula.fill("schedule").await;
    insta::assert_snapshot!(curricula.text("SELECT * EXCEPT (label) FROM schedule ORDER BY trial, epoch").await, @r"
    +------------+-------+-------+-------+----------------+
    | curriculum | trial | epoch | stage | image_guidance |
    +------------+-------+-------+-------+----------------+
    | adaptive   | a     | 3     | 3     | 100            |
    | adaptive   | b     | 0     | 0     | 10             |
    | adaptive   | b     | 3     | 3     | 100            |
    +------------+-------+-------+-------+----------------+
    ");
    curricula.long_tail(&[30, 8], &[10, 50, 90], |_, _| 1).await;
    curricula.set("validation", &[("source_id", strings::<&str>(&[]))]);
    curricula.fill("probe").await;
    let probe = curricula
        .text("SELECT trial, epoch, count(*) AS rows, count(DISTINCT sample_id) AS images FROM probe GROUP BY 1, 2 ORDER BY 1, 2")
        .await;
    insta::assert_snapshot!(probe, @r"
    +-------+-------+------+--------+
    | trial | epoch | rows | images |
    +-------+-------+------+--------+
    | a     | 0     | 3    | 3      |
    | a     | 1     | 3    | 3      |
    | a     | 2     | 3    | 3      |
    | b     | 0     | 3    | 3      |
    | b     | 1     | 3    | 3      |
    | b     | 2     | 3    | 3      |
    +-------+-------+------+--------+
    ");
}

#[tokio::test]
async fn hard_samples_by_confidence_take_a_threshold_and_a_share() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let schema = Arc::clone(&schema::find(schema::CONFIDENCES).unwrap().schema);
    let paths: Vec<String> = (0..500).map(|row| format!("train.parquet#{row}")).collect();
    let probability = |row: i32| if row < 10 { f64::from((row * 7) % 10) / 10.0 } else { 1.0 };
    let probabilities = Float64Array::from_iter_values((0..500).map(probability));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![strings(&paths), Arc::new(probabilities)]).unwrap();
    let paths = &paths[..10];
    let data = crate::lake::DataFile::write("rows", &schema, &[rows]).unwrap();
    std::fs::write(file.path(), &data.bytes).unwrap();
    let of = async |edits: &[&str]| {
        let path = format!("hard_samples.confidences={}", file.path().display());
        let all: Vec<&str> = ["hard_samples.sql=hard_samples/low_confidence.sql", path.as_str()]
            .into_iter()
            .chain(edits.iter().copied())
            .collect();
        let mut curricula = Curricula::open(&all).await;
        let images = paths.iter().map(|path| format!("id of {path}")).collect::<Vec<_>>();
        curricula.set(
            "images",
            &[
                ("source_id", strings(&images)),
                ("path", strings(paths)),
                ("label", integers(&[3; 10])),
                ("class_name", strings(&[["zero"; 5], ["one"; 5]].concat())),
                ("split", strings(&["train"; 10])),
            ],
        );
        let real = curricula.pipeline.project.session.snapshot().await.unwrap();
        let context = curricula.pipeline.project.session.context(&real).unwrap();
        let confidences = context.table("confidences").await.unwrap().collect().await.unwrap();
        curricula.snapshot.set("confidences", confidences[0].schema(), confidences).unwrap();
        curricula.fill("hard_samples").await;
        curricula.text("SELECT source_id, reason FROM hard_samples ORDER BY reason").await
    };
    insta::assert_snapshot!(of(&["hard_samples.max_probability=0.25"]).await, @r"
    +-----------------------+-----------------------------------+
    | source_id             | reason                            |
    +-----------------------+-----------------------------------+
    | id of train.parquet#0 | its class has the probability 0.0 |
    | id of train.parquet#3 | its class has the probability 0.1 |
    | id of train.parquet#6 | its class has the probability 0.2 |
    +-----------------------+-----------------------------------+
    ");
    insta::assert_snapshot!(of(&["hard_samples.hard_fraction=0.2"]).await, @r"
    +-----------------------+-----------------------------------+
    | source_id             | reason                            |
    +-----------------------+-----------------------------------+
    | id of train.parquet#0 | its class has the probability 0.0 |
    | id of train.parquet#3 | its class has the probability 0.1 |
    +-----------------------+-----------------------------------+
    ");
    // A fifth of all images, and a fifth of those that are not excluded.
    let others = "hard_samples.exclude_classes=[\"zero\"]";
    insta::assert_snapshot!(of(&["hard_samples.hard_fraction=0.2", others]).await, @r"
    +-----------------------+-----------------------------------+
    | source_id             | reason                            |
    +-----------------------+-----------------------------------+
    | id of train.parquet#6 | its class has the probability 0.2 |
    | id of train.parquet#9 | its class has the probability 0.3 |
    +-----------------------+-----------------------------------+
    ");
}

/// Two classes of ImageNet are named "missile".
#[tokio::test]
async fn classes_of_one_name_stay_apart_in_tables() {
    let mut curricula = Curricula::open(&[]).await;
    let names = strings(&["missile", "missile", "owl"]);
    curricula.set("classes", &[("label", integers(&[657, 744, 3])), ("class_name", Arc::clone(&names))]);
    let ids = strings(&["a", "b", "c"]);
    let columns = [
        ("sample_id", Arc::clone(&ids)),
        ("source_id", ids),
        ("label", integers(&[657, 744, 3])),
        ("class_name", names),
        ("image_guidance", integers(&[0; 3])),
        ("seed", integers(&[1; 3])),
    ];
    curricula.set("candidates", &columns);
    for query in ["report/slots.sql", "report/levels.sql"] {
        let project = &curricula.pipeline.project;
        let answer = project.query_on(&curricula.snapshot, query, &[]).await.unwrap();
        let names = answer.columns().flat_map(|columns| {
            columns.strings("class_name").unwrap().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        });
        let expected = ["missile (657)", "missile (744)", "owl"].map(str::to_owned);
        assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(expected), "{query}");
    }
}
