//! Out-of-fold probabilities: how probable a built-in learner finds the class of an image that it was not trained on.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};

use super::{
    budget::in_parallel,
    dataset::{Image, grayscale_images},
    error::ExperimentError,
    learner::{Architecture, Data, Learner, LearningRateSchedule, Loss, Sampling, Settings, Shape, mean},
};
use crate::{
    config::{Config, Split},
    error::Result,
    identity::Digest,
    lake::DataFile,
    schema,
    source::Source,
};

/// How many parts the training images are split into. Each is scored by learners of the other parts.
const FOLDS: usize = 5;

/// Writes a Parquet file for `hard_samples.confidences`: the mean out-of-fold probability of each training image's
/// class, over as many learners as `experiment.learner_seeds`, each trained on the budget of the curriculum. Returns the
/// number of images.
///
/// # Errors
/// Returns an error if the source cannot be read, a learner cannot be trained, or the file cannot be written.
pub(crate) async fn confidences(path: &Path, set: &[String], file: &Path) -> Result<usize> {
    let config = Config::load(path, set)?;
    let source = Source::open(&config.source, "").await?;
    let side = u32::try_from(config.learner.image_side).unwrap_or(u32::MAX);
    let mut images = grayscale_images(&source, side, Some(Split::Train)).await?;
    // An order that depends on neither the source's order nor the classes.
    images.sort_by_cached_key(|image| key(config.seed, &image.path));
    let probabilities = out_of_fold(&config, &images, side)?;
    let table = &*schema::CONFIDENCES_TABLE;
    let paths: ArrayRef = Arc::new(images.iter().map(|image| Some(image.path.as_str())).collect::<StringArray>());
    let values: ArrayRef = Arc::new(Float64Array::from(probabilities));
    let rows = RecordBatch::try_new(Arc::clone(&table.schema), vec![paths, values])
        .map_err(|source| ExperimentError::Columns { table: schema::CONFIDENCES, source })?;
    let written = DataFile::write("confidences", &table.schema, &[rows])?;
    fs::write(file, &written.bytes).map_err(|source| ExperimentError::Write { path: file.to_owned(), source })?;
    Ok(images.len())
}

fn key(seed: i64, path: &str) -> String {
    Digest::new("out_of_fold").part(&seed.to_le_bytes()).text(path).id()
}

/// Returns the probability of each image's class, in the order of the images.
fn out_of_fold(config: &Config, images: &[Image], side: u32) -> Result<Vec<f64>> {
    let labels: Vec<u32> = images.iter().map(|image| image.label).collect();
    let classes = labels.iter().max().map_or(1, |label| *label as usize + 1);
    let shape = Shape { channels: 1, height: side as usize, width: side as usize, classes };
    let pixels = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
    let data = Data::new(shape, pixels, labels)?;
    let architecture: Architecture = super::architectures(config)?.first().copied().unwrap_or(Architecture::Mlp);
    let folds = folds(data.labels());
    let seeds = u64::try_from(config.experiment.learner_seeds).unwrap_or_default();
    let jobs: Vec<(usize, u64)> = (0..FOLDS).flat_map(|fold| (0..seeds).map(move |seed| (fold, seed))).collect();
    let count = |value: i64| usize::try_from(value).unwrap_or(1);
    let per_epoch = count(config.learner.iterations_per_epoch);
    let scored = in_parallel(jobs, |(fold, seed)| {
        let (held_out, trained): (Vec<usize>, Vec<usize>) = (0..folds.len()).partition(|&row| folds[row] == fold);
        let settings = Settings {
            architecture,
            loss: Loss::CrossEntropy,
            sampling: Sampling::Plain,
            schedule: LearningRateSchedule::Cosine,
            batch_size: count(config.learner.batch_size),
            learning_rate: config.learner.learning_rate,
            weight_decay: config.learner.weight_decay,
            iterations: count(config.curriculum.epochs) * per_epoch,
            seed,
        };
        if held_out.is_empty() || trained.is_empty() {
            return Ok(Vec::new());
        }
        let mut learner = Learner::new(settings.clone(), shape, &data.class_counts(&trained)?)?;
        learner.train(&data, &trained, settings.iterations)?;
        let probabilities = learner.probabilities(&data, &held_out)?;
        Ok(held_out.into_iter().zip(probabilities).collect())
    })?;
    let mut values = vec![Vec::new(); images.len()];
    for (row, probability) in scored.into_iter().flatten() {
        values[row].push(f64::from(probability));
    }
    // If there is only one image, no learner can score it, and it counts as the hardest.
    Ok(values.iter().map(|values| mean(values).unwrap_or_default()).collect())
}

/// Returns the part of each row. The rows of a class are dealt out in turn.
fn folds(labels: &[u32]) -> Vec<usize> {
    let mut dealt: BTreeMap<u32, usize> = BTreeMap::new();
    let deal = |label: &u32| {
        let next = dealt.entry(*label).or_default();
        *next += 1;
        (*next - 1) % FOLDS
    };
    labels.iter().map(deal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_share_of_each_class() {
        let labels: Vec<u32> = (0..40).map(|row| u32::from(row % 4 == 0)).collect();
        let folds = folds(&labels);
        for fold in 0..FOLDS {
            let of = |class: u32| (0..40).filter(|&row| folds[row] == fold && labels[row] == class).count();
            assert_eq!((of(0), of(1)), (6, 2), "fold {fold}");
        }
    }
}
