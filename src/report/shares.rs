//! What an epoch of the curriculum draws, computed from the number of hard images alone: whether it would train on synthetic
//! images at all, before any is generated.

use std::collections::BTreeSet;

use crate::{
    config::{Config, LOW_QUALITY, MIXED, REAL_LEVEL, REAL_ONLY},
    error::{Error, Result, Warning, text},
    pipeline::Project,
    session::Snapshot,
};

#[derive(Debug, thiserror::Error)]
enum SharesError {
    #[error("{message}\nhint: {hint}")]
    Empty { message: String, hint: String },
}

/// The numbers of training images, by the tables `images` and `hard_samples`.
#[derive(Debug, Clone, Copy)]
struct Counts {
    hard: i64,
    non_hard: i64,
}

/// Checks that epochs would train on synthetic images if each of them were kept. Returns a warning if they would repeat
/// images too often.
///
/// # Errors
/// Returns an error if some epoch would train on no synthetic image, or if the tables cannot be read.
pub(crate) async fn check(project: &Project, snapshot: &Snapshot) -> Result<Option<Warning>> {
    let config = &project.config;
    let is_known = [MIXED, LOW_QUALITY].contains(&config.curriculum.manifest.as_str())
        && project.catalogue.get(&config.curriculum.manifest)?.is_built_in();
    if !is_known {
        return Ok(None);
    }
    let counts = counts(project, snapshot).await?;
    let is_synthetic = trains_on_synthetic(config);
    let problem = without_rows(config, counts).or_else(|| is_synthetic.then(|| without_synthetic(config, counts))?);
    match problem {
        Some((message, hint)) => Err(Error::input(SharesError::Empty { message, hint })),
        None => Ok(repeats(config, counts).filter(|_| is_synthetic)),
    }
}

/// Returns a warning about the epochs of `snapshot` for which nothing was kept of their levels. A run fails on them.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn empty_epochs(project: &Project, snapshot: &Snapshot) -> Result<Option<Warning>> {
    let (mut epochs, mut levels) = (BTreeSet::new(), BTreeSet::new());
    for columns in project.query_on(snapshot, "expect/epochs.sql", &[]).await?.columns() {
        epochs.extend(columns.integers("epoch")?.iter().flatten());
        levels.extend(columns.integers("image_guidance")?.iter().flatten());
    }
    let levels: Vec<String> = levels.iter().map(i64::to_string).collect();
    Ok((!epochs.is_empty()).then(|| {
        Warning::new(
            format!(
                "{} epochs train on no synthetic image, so a run fails: none is kept of image guidance {}",
                epochs.len(),
                text::join(&levels, "and")
            ),
            "lower `filter.min_text_similarity`, or leave these levels out of `curriculum.levels`",
        )
    }))
}

/// Whether an epoch is to train on synthetic images.
fn trains_on_synthetic(config: &Config) -> bool {
    let curriculum = &config.curriculum;
    let level = (curriculum.strategy == "fixed").then_some(curriculum.level).flatten();
    let levels = level.map_or_else(|| curriculum.levels.clone(), |level| vec![level]);
    curriculum.curriculum_epochs > 0
        && curriculum.strategy != REAL_ONLY
        && levels.iter().any(|level| *level < REAL_LEVEL)
}

async fn counts(project: &Project, snapshot: &Snapshot) -> Result<Counts> {
    let answer = project.query_on(snapshot, "report/shares.sql", &[]).await?;
    let mut counts = Counts { hard: 0, non_hard: 0 };
    for columns in answer.columns() {
        let (hard, non_hard) = (columns.integers("hard")?, columns.integers("non_hard")?);
        if columns.rows() > 0 {
            counts = Counts { hard: hard.value(0), non_hard: non_hard.value(0) };
        }
    }
    Ok(counts)
}

/// Returns how many images an epoch draws if `hard` hard images are trained on.
fn draws(config: &Config, hard: i64, non_hard: i64) -> i64 {
    let curriculum = &config.curriculum;
    match (curriculum.synthetic_per_hard, curriculum.hard_share) {
        (Some(per_hard), _) => floor(per_hard * hard as f64),
        (None, share) => {
            let share = share.unwrap_or_default();
            let taken = floor(curriculum.non_hard_fraction * non_hard as f64);
            floor(share / (1.0 - share) * taken as f64) - hard
        }
    }
}

/// Rounds down in decimal: 0.29 of 200 is 58, although it is a little less in floating point.
fn floor(value: f64) -> i64 {
    (value * 1e6).round().div_euclid(1e6) as i64
}

/// Returns why an epoch after the curriculum would have no image at all, and what to do.
fn without_rows(config: &Config, Counts { hard, non_hard }: Counts) -> Option<(String, String)> {
    let taken = floor(config.curriculum.non_hard_fraction * non_hard as f64);
    (taken == 0 && hard <= config.validation.sources).then(|| {
        let message = format!(
            "an epoch takes {taken} of the {non_hard} images that are not hard (`curriculum.non_hard_fraction` is {}), and \
             `validation.sources` ({}) may hold all {hard} hard images out of training, so an epoch of real images would \
             be empty",
            config.curriculum.non_hard_fraction, config.validation.sources
        );
        (message, "raise `curriculum.non_hard_fraction`".to_owned())
    })
}

/// Returns why an epoch would train on no synthetic image, and what to do.
fn without_synthetic(config: &Config, Counts { hard, non_hard }: Counts) -> Option<(String, String)> {
    let curriculum = &config.curriculum;
    if hard == 0 {
        let message = "no training image is hard, so no epoch would train on a synthetic image".to_owned();
        return Some((message, "`[hard_samples]` says which images are hard".to_owned()));
    }
    // How many of the hard images are held out is known once images are kept.
    let held_out = config.validation.sources.min(hard);
    if held_out == hard {
        let message = format!(
            "`validation.sources` ({}) may hold all {hard} hard images out of training, so no epoch would train on a \
             synthetic image",
            config.validation.sources
        );
        return Some((message, format!("set it to less than {hard}")));
    }
    let fewest = draws(config, hard, non_hard).min(draws(config, hard - held_out, non_hard));
    if curriculum.manifest != MIXED || fewest > 0 {
        return None;
    }
    if let Some(per_hard) = curriculum.synthetic_per_hard {
        let message = format!(
            "{per_hard} synthetic images for each of {} hard images are less than one, so no epoch would train on any",
            hard - held_out
        );
        return Some((message, "raise `curriculum.synthetic_per_hard`".to_owned()));
    }
    let taken = floor(curriculum.non_hard_fraction * non_hard as f64);
    let alone = 100.0 * hard as f64 / (hard + taken) as f64;
    let share = 100.0 * curriculum.hard_share.unwrap_or_default();
    let message = format!(
        "the {hard} hard images alone are {alone:.1} % of an epoch with {taken} of the {non_hard} other images, and \
         `curriculum.hard_share` is {share:.1} %, so no epoch would train on a synthetic image"
    );
    let mut hint = "set `curriculum.synthetic_per_hard = 3` instead".to_owned();
    // As many as three synthetic images for each hard one, rounded up, if that leaves room for the others.
    let suggested = (400.0 * hard as f64 / (4 * hard + taken) as f64).ceil() / 100.0;
    if suggested < 1.0 {
        hint += &format!(", or a `curriculum.hard_share` such as {suggested:.2}");
    }
    Some((message, hint))
}

/// Returns a warning if an epoch of one level would repeat its images too often even if all of them were kept.
fn repeats(config: &Config, Counts { hard, non_hard }: Counts) -> Option<Warning> {
    let most = config.curriculum.max_repeats;
    let pool = hard * config.spectrum.seeds.len() as i64;
    let draws = draws(config, hard, non_hard);
    let repeats = draws.div_euclid(pool.max(1)) + i64::from(draws % pool.max(1) > 0);
    (config.curriculum.manifest == MIXED && repeats > most).then(|| {
        Warning::new(
            format!(
                "an epoch draws {draws} images, but a level has at most {pool}: some would be repeated {repeats} times"
            ),
            "more `spectrum.seeds` or a lower `curriculum.hard_share` repeat them less; `curriculum.max_repeats` is the \
             limit of this warning",
        )
    })
}
