//! Warnings about what a run has made: what the curriculum would miss.

use std::collections::BTreeMap;

use super::forecast::Forecast;
use crate::{
    error::{
        Result, Warning,
        text::{first_few, join, quote},
    },
    pipeline::Pipeline,
    schema,
    source::{Census, Count, SplitCensus},
};

/// The share of slots that keep an image, below which a warning says how far the scores are from the threshold.
const MIN_KEPT: f64 = 0.5;

/// The slots of a class, of a level, or of both together.
struct Slots {
    class_name: Option<String>,
    image_guidance: Option<i64>,
    slots: i64,
    kept: i64,
    /// The median over slots of their best text similarity.
    text_similarity: Option<f64>,
}

/// Returns the census of the pipeline's data set, with the images that could be read and the rejects.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn census(pipeline: &Pipeline) -> Result<Census> {
    let mut counts: BTreeMap<String, BTreeMap<i64, Count>> = BTreeMap::new();
    for columns in pipeline.project.query("report/census.sql").await?.columns() {
        let (splits, labels, names) =
            (columns.strings("split")?, columns.integers("label")?, columns.strings("class_name")?);
        let (images, rejects) = (columns.integers("images")?, columns.integers("rejects")?);
        let number = |count: i64| usize::try_from(count).unwrap_or(0);
        for row in 0..columns.rows() {
            let (images, rejects) = (number(images.value(row)), number(rejects.value(row)));
            let count = Count { class_name: names.value(row).to_owned(), images, rejects };
            counts.entry(splits.value(row).to_owned()).or_default().insert(labels.value(row), count);
        }
    }
    let mut census = pipeline.source.census().clone();
    counts.into_iter().for_each(|(split, counts)| census.recount(&split, counts));
    Ok(census)
}

/// Returns warnings about the splits and the classes of which images cannot be read.
pub(crate) fn unread(census: &Census) -> Vec<Warning> {
    census.splits.iter().flat_map(|split| unread_of(split).into_iter().chain(unread_classes(split))).collect()
}

/// Returns the warning that no image is hard, if `forecast` says so or a run has found none.
///
/// # Errors
/// Returns an error if the lake cannot be read.
pub(crate) async fn nothing_hard(pipeline: &Pipeline, forecast: Option<&Forecast>) -> Result<Option<Warning>> {
    let project = &pipeline.project;
    let Some(step) = project.plan.step(schema::HARD_SAMPLES) else { return Ok(None) };
    let due = forecast.and_then(|forecast| {
        let due = forecast.steps.iter().find(|due| due.step == schema::HARD_SAMPLES && !due.skipped)?;
        Some((due, step.query.is_built_in() || !forecast.reads()))
    });
    let none = match due {
        Some((due, is_known)) => is_known && due.rows.is_some_and(|rows| rows.at_most == 0),
        None => project.session.lake().size(&step.table).await?.is_some_and(|size| size.rows == 0),
    };
    Ok(if none { Some(no_hard_sample(&census(pipeline).await?)) } else { None })
}

/// Returns warnings about the synthetic images and the manifests of a pipeline that has run.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn warnings(pipeline: &Pipeline) -> Result<Vec<Warning>> {
    let config = &pipeline.project.config;
    let mut warnings = of_slots(&slots(pipeline).await?, config.filter.min_text_similarity);
    warnings.extend(held_out(pipeline).await?);
    for columns in pipeline.project.query("report/repeats.sql").await?.columns() {
        let (epochs, repeats) = (columns.integers("epoch")?, columns.integers("repeats")?);
        let many = (0..columns.rows()).find(|row| repeats.value(*row) > config.curriculum.max_repeats);
        warnings.extend(many.map(|row| {
            Warning::new(
                format!("epoch {} trains on one image {} times", epochs.value(row), repeats.value(row)),
                "few images of its level were kept; a lower `curriculum.hard_share` or `synthetic_per_hard` repeats them less",
            )
        }));
    }
    Ok(warnings)
}

/// Returns a warning if fewer hard images are held out than requested.
async fn held_out(pipeline: &Pipeline) -> Result<Option<Warning>> {
    let project = &pipeline.project;
    let requested = project.config.validation.sources;
    let Some(levels) = i64::try_from(project.config.spectrum.image_guidance.len() + 1).ok() else { return Ok(None) };
    let mut sizes = Vec::new();
    for name in ["validation", schema::HARD_SAMPLES] {
        let Some(step) = project.plan.step(name) else { return Ok(None) };
        sizes.push(project.session.lake().size(&step.table).await?.map_or(0, |size| size.rows as i64));
    }
    let (sources, hard) = (sizes[0] / levels, sizes[1]);
    Ok((requested > sources && hard > 0).then(|| {
        Warning::new(
            format!(
                "the spectrum validation set has {sources} of the {requested} hard images that `validation.sources` asks \
                 for; {} of {hard} remain to train on",
                hard - sources
            ),
            "only hard images that kept an image at every level can be in it",
        )
    }))
}

fn unread_classes(split: &SplitCensus) -> Option<Warning> {
    let classes: Vec<String> = split.unreadable.iter().map(|class| quote(class)).collect();
    (!classes.is_empty()).then(|| {
        let plural = if classes.len() == 1 { "" } else { "es" };
        Warning::new(
            format!("no image of the class{plural} {} in the split {} can be read", first_few(&classes), split.split),
            "`SELECT path, reason FROM rejects` in `discl-pipe sql` shows why, once a run has tried",
        )
    })
}

fn unread_of(split: &SplitCensus) -> Option<Warning> {
    (split.rejects > 0).then(|| {
        Warning::new(
            format!(
                "{} of {} images of the split {} could not be read",
                split.rejects,
                split.images + split.rejects,
                split.split
            ),
            "`SELECT path, reason FROM rejects` in `discl-pipe sql` shows why, once a run has tried",
        )
    })
}

async fn slots(pipeline: &Pipeline) -> Result<Vec<Slots>> {
    let mut found = Vec::new();
    for columns in pipeline.project.query("report/slots.sql").await?.columns() {
        let (classes, levels) = (columns.strings("class_name")?, columns.integers("image_guidance")?);
        let (slots, kept) = (columns.integers("slots")?, columns.integers("kept")?);
        let similarities = columns.floats("text_similarity")?;
        let rows = classes.iter().zip(&levels).zip(slots.iter().zip(&kept)).zip(&similarities);
        found.extend(rows.map(|(((class, level), (slots, kept)), similarity)| Slots {
            class_name: class.map(str::to_owned),
            image_guidance: level,
            slots: slots.unwrap_or(0),
            kept: kept.unwrap_or(0),
            text_similarity: similarity,
        }));
    }
    Ok(found)
}

fn of_slots(slots: &[Slots], threshold: f64) -> Vec<Warning> {
    let all = slots.iter().find(|slots| slots.class_name.is_none() && slots.image_guidance.is_none());
    let Some(all) = all.filter(|all| all.slots > 0) else { return Vec::new() };
    let mut warnings = Vec::new();
    if (all.kept as f64) < MIN_KEPT * all.slots as f64 {
        let median = all.text_similarity.map_or_else(String::new, |median| {
            format!("; the median of the best `text_similarity` of a slot is {median:.3}, the threshold {threshold}")
        });
        warnings.push(Warning::new(
            format!("{} of {} slots kept an image{median}", all.kept, all.slots),
            "look at `contact_sheet.png`; `filter.min_text_similarity` is the threshold",
        ));
    }
    let empty = || slots.iter().filter(|slots| slots.kept == 0);
    let levels: Vec<String> = empty().filter_map(|slots| Some(slots.image_guidance?.to_string())).collect();
    if !levels.is_empty() {
        warnings.push(Warning::new(
            format!("no image with image guidance {} was kept", join(&levels, "or")),
            "`filter.min_text_similarity` may be too high for them, or the level too low for the model",
        ));
    }
    let classes: Vec<String> = empty().filter_map(|slots| Some(quote(slots.class_name.as_ref()?))).collect();
    if !classes.is_empty() {
        warnings.push(Warning::new(
            format!("no synthetic image was kept of the classes {}", first_few(&classes)),
            "does the CLIP know the name? `prompts.common_names` gives a class another name in prompts",
        ));
    }
    warnings
}

fn no_hard_sample(census: &Census) -> Warning {
    let sizes = census.splits.first().and_then(|train| train.smallest.as_ref().zip(train.largest.as_ref()));
    let sizes = sizes.map_or_else(String::new, |(smallest, largest)| {
        let (small, large) = (quote(&smallest.class_name), quote(&largest.class_name));
        format!("; classes of train have {} ({small}) to {} images ({large})", smallest.images, largest.images)
    });
    Warning::new(format!("no image is hard{sizes}"), "`[hard_samples]` says which images are hard")
}
