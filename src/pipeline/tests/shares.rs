//! What an epoch would train on, found from numbers alone, against the manifests that queries make.

use std::collections::BTreeMap;

use super::Curricula;
use crate::{identity::Digest, report::shares};

/// Draws the settings of a curriculum.
struct Drawn {
    number: u64,
}

impl Drawn {
    fn below(&self, what: &str, end: u64) -> u64 {
        Digest::new("shares").part(&self.number.to_le_bytes()).text(what).draw(end)
    }

    fn of<T: Copy>(&self, what: &str, values: &[T]) -> T {
        values[usize::try_from(self.below(what, values.len() as u64)).unwrap()]
    }

    fn edits(&self) -> Vec<String> {
        let strategies =
            ["all_levels", "diverse_to_specific", "fixed", "random", "recursive", "shrink", "specific_to_diverse"];
        let curriculum_epochs = self.below("curriculum_epochs", 5);
        let share = match self.below("share", 3) {
            0 => "curriculum.synthetic_per_hard=".to_owned() + self.of("per hard", &["0.05", "0.4", "1", "2.28", "9"]),
            _ => "curriculum.hard_share=".to_owned() + self.of("hard share", &["0.05", "0.136", "0.4", "0.6", "0.97"]),
        };
        vec![
            format!("curriculum.strategy={}", self.of("strategy", &strategies)),
            format!("curriculum.manifest=manifest/{}.sql", self.of("manifest", &["mixed", "mixed", "low_quality"])),
            "spectrum.image_guidance=[0,10,50]".to_owned(),
            format!("curriculum.levels={}", self.of("levels", &["[0,10,50]", "[10,50]", "[50,100]", "[10]"])),
            "curriculum.level=".to_owned() + self.of("level", &["10", "50", "100"]),
            format!("curriculum.epochs={}", curriculum_epochs + self.below("after", 3).max(1)),
            format!("curriculum.curriculum_epochs={curriculum_epochs}"),
            format!("curriculum.non_hard_fraction={}", self.of("fraction", &["0", "0.01", "0.29", "1"])),
            format!("curriculum.class_balanced={}", self.of("balanced", &["true", "false"])),
            format!("validation.sources={}", self.of("sources", &[0, 0, 1, 3, 50])),
            share,
        ]
    }

    fn classes(&self) -> Vec<i64> {
        let size = |class: u64| match class {
            0..2 => 20 + self.below(&format!("frequent {class}"), 60),
            _ => self.below(&format!("rare {class}"), 8),
        };
        (0..4).map(|class| size(class).try_into().unwrap()).collect()
    }
}

/// Returns the epochs without a row, and those without a synthetic row although their level is below 100.
fn empty_epochs(schedule: &BTreeMap<i64, Vec<i64>>, rows: &[super::Row]) -> Vec<i64> {
    let is_empty = |(epoch, levels): (&i64, &Vec<i64>)| {
        let of_epoch = || rows.iter().filter(|row| row.epoch == *epoch);
        let synthetic = of_epoch().any(|row| row.origin == "synthetic");
        (of_epoch().next().is_none() || (levels.iter().any(|level| *level < 100) && !synthetic)).then_some(*epoch)
    };
    schedule.iter().filter_map(is_empty).collect()
}

/// Of random settings on random data, those that are accepted give no epoch without rows, and none of a synthetic level
/// without synthetic rows.
#[tokio::test]
async fn accepted_settings_give_every_epoch_its_images() {
    let mut curricula = Curricula::small(&[]).await;
    let (mut accepted, mut refused) = (0, BTreeMap::new());
    for number in 0..500 {
        let drawn = Drawn { number };
        let edits = drawn.edits();
        if let Err(problem) = curricula.edit(&edits) {
            *refused.entry(problem.split(':').nth(1).unwrap_or_default().to_owned()).or_insert(0) += 1;
            continue;
        }
        // Each hard image keeps at least one image of each level.
        let kept = usize::try_from(1 + drawn.below("kept", 3)).unwrap();
        curricula.long_tail(&drawn.classes(), &[0, 10, 50], |_, _| kept).await;
        let (project, snapshot) = (&curricula.pipeline.project, &curricula.snapshot);
        if let Err(problem) = shares::check(project, snapshot).await {
            let problem: String = problem.to_string().chars().filter(|c| !c.is_ascii_digit()).take(24).collect();
            *refused.entry(problem).or_insert(0) += 1;
            continue;
        }
        accepted += 1;
        let rows = curricula.manifest().await;
        let schedule = curricula.levels_by_epoch().await;
        assert_eq!(empty_epochs(&schedule, &rows), Vec::<i64>::new(), "{number}: {edits:?} {:?}", drawn.classes());
    }
    assert!(accepted > 100 && refused.len() >= 4, "{accepted} accepted; {refused:?}");
}

/// The share of hard images that a curriculum keeps by default is less than those of digits_lt alone.
#[tokio::test]
async fn a_share_below_the_hard_images_is_refused_with_numbers() {
    let edits = ["curriculum.non_hard_fraction=0.3", "curriculum.hard_share=0.136"];
    let mut curricula = Curricula::open(&edits).await;
    curricula.long_tail(&[100, 100, 110, 27], &[0], |_, _| 1).await;
    // Classes with fewer than 20 images are hard.
    curricula.long_tail(&[100, 100, 110, 14, 13], &[0], |_, _| 1).await;
    let of = async |curricula: &Curricula| {
        shares::check(&curricula.pipeline.project, &curricula.snapshot).await.map(|warning| warning.map(|w| w.message))
    };
    insta::assert_snapshot!(of(&curricula).await.unwrap_err(), @r"
    the 27 hard images alone are 22.5 % of an epoch with 93 of the 310 other images, and `curriculum.hard_share` is 13.6 %, so no epoch would train on a synthetic image
    hint: set `curriculum.synthetic_per_hard = 3` instead, or a `curriculum.hard_share` such as 0.54
    ");
    curricula.edit(&["curriculum.synthetic_per_hard=3".to_owned()]).unwrap_err();
    curricula.edit(&["curriculum.hard_share=0.54".to_owned(), "curriculum.non_hard_fraction=0.3".to_owned()]).unwrap();
    assert_eq!(of(&curricula).await.unwrap(), None);
    curricula.edit(&["validation.sources=27".to_owned()]).unwrap();
    insta::assert_snapshot!(of(&curricula).await.unwrap_err(), @r"
    `validation.sources` (27) may hold all 27 hard images out of training, so no epoch would train on a synthetic image
    hint: set it to less than 27
    ");
    curricula.edit(&["curriculum.hard_share=0.99".to_owned(), "spectrum.seeds=[1]".to_owned()]).unwrap();
    insta::assert_snapshot!(of(&curricula).await.unwrap().unwrap(), @"an epoch draws 30663 images, but a level has at most 27: some would be repeated 1136 times");
    curricula.edit(&["hard_samples.max_class_count=1".to_owned()]).unwrap();
    curricula.long_tail(&[100, 100], &[0], |_, _| 1).await;
    insta::assert_snapshot!(of(&curricula).await.unwrap_err(), @r"
    no training image is hard, so no epoch would train on a synthetic image
    hint: `[hard_samples]` says which images are hard
    ");
    curricula.edit(&["hard_samples.max_class_count=1".to_owned(), "curriculum.strategy=real_only".to_owned()]).unwrap();
    assert_eq!(of(&curricula).await.unwrap(), None);
}

/// Shares are counted in decimal: floating point makes 0.29 of 200 a little less than 58.
#[tokio::test]
async fn shares_are_counted_in_decimal() {
    let mut curricula = Curricula::open(&[]).await;
    let edits = |share: &str, fraction: &str| {
        ["curriculum.hard_share=", "curriculum.non_hard_fraction="]
            .iter()
            .zip([share, fraction])
            .map(|(key, value)| format!("{key}{value}"))
            .chain(["curriculum.epochs=1".to_owned(), "curriculum.curriculum_epochs=1".to_owned()])
            .collect::<Vec<_>>()
    };
    for (share, fraction, others, non_hard, hard) in [
        ("0.6", "1", 310, 310, 465),
        ("0.99", "1", 310, 310, 30_690),
        ("0.5", "0.29", 200, 58, 58),
        ("0.5", "0.57", 200, 114, 114),
    ] {
        curricula.edit(&edits(share, fraction)).unwrap();
        curricula.long_tail(&[others, 9], &[0, 10, 30, 50, 70, 90], |_, _| 1).await;
        let rows = curricula.manifest().await;
        let of = |is_easy: bool| rows.iter().filter(|row| (row.origin == "non_hard") == is_easy).count();
        assert_eq!((of(true), of(false)), (non_hard, hard), "{share} {fraction}");
    }
}
