//! The adaptive curriculum with the built-in learner as its trainer: at each epoch it is measured before and after a
//! probe of real images, and the pipeline's own query chooses the level from what it has learned.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    error::ArrowError,
};

use super::{
    manifests::{Epochs, Queries},
    methods::Method,
    train::{Budget, Judgement, in_parallel},
};
use crate::{
    error::{Error, Result},
    experiment::learner::{Learner, LearnerError, Loss, Sampling},
    plan::catalogue::Parameter,
    schema,
};

/// What the strategy is called.
pub(super) const NAME: &str = "adaptive";

/// What an adaptive curriculum found of a level at an epoch.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Stage {
    /// The network.
    pub architecture: String,
    /// The seed of the split.
    pub split_seed: i64,
    /// The seed of the learner.
    pub learner_seed: i64,
    /// The epoch, from 0.
    pub epoch: i64,
    /// Percent of the real image kept.
    pub image_guidance: i64,
    /// Mean gain in the probability of the true class.
    pub gain: f64,
    /// Its standard error; none of one image.
    pub standard_error: Option<f64>,
    /// Whether it is the level of the epoch.
    pub chosen: bool,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the spectrum validation set is empty: no hard image has a kept image at every level\nhint: lower \
     `filter.min_text_similarity`, or raise `filter.max_attempts`"
)]
struct EmptyValidation;

/// One learner's measurements of an epoch.
struct Measurement {
    before: Vec<f32>,
    after: Vec<f32>,
}

/// What an adaptive run is made from.
pub(super) struct Adaptive<'a> {
    pub(super) budget: &'a Budget<'a>,
    /// What the manifest has at each level and epoch.
    pub(super) by_level: BTreeMap<i64, Epochs>,
    /// The epochs after the curriculum.
    pub(super) shared: &'a [Vec<usize>],
    pub(super) split_seed: i64,
}

impl Adaptive<'_> {
    /// Trains one learner for each seed, all of them epoch by epoch. The batches of the probe are taken from the
    /// epoch's own, so that the learner sees no more than others.
    ///
    /// # Errors
    /// Where a query fails, or a learner cannot be trained.
    pub(super) async fn train(&self, queries: &mut Queries<'_>) -> Result<(Method, Vec<Judgement>, Vec<Stage>)> {
        let Budget { config, task, iterations_per_epoch, .. } = *self.budget;
        let method = Method {
            name: NAME.to_owned(),
            loss: Loss::CrossEntropy,
            sampling: Sampling::Plain,
            epochs: Epochs::new(),
        };
        let count = |value: i64| usize::try_from(value).unwrap_or(1);
        let probe_batches = count(config.curriculum.probe_size).div_ceil(count(config.learner.batch_size));
        let probe_batches = probe_batches.min(iterations_per_epoch - 1);
        let probes = queries.real_images(task, config.curriculum.probe_size).await?;
        let samples = self.validation(queries).await?;
        let rows: Vec<usize> = samples.iter().filter_map(|sample| task.rows.get(sample).copied()).collect();
        let seeds = self.budget.seeds();
        let learners: Result<Vec<Learner>, LearnerError> =
            seeds.iter().map(|&seed| self.budget.learner(&method, seed)).collect();
        let mut learners = learners?;
        let mut stages = Vec::new();
        for (epoch, probe) in probes.iter().enumerate() {
            let measure = |learner: &mut Learner| {
                let before = learner.probabilities(&task.data, &rows)?;
                learner.train(&task.data, probe, probe_batches)?;
                learner.next_epoch();
                Ok(Measurement { before, after: learner.probabilities(&task.data, &rows)? })
            };
            let measured = in_parallel(learners.iter_mut().collect(), measure)?;
            let found = self.progress(queries, epoch, &samples, &seeds, &measured).await?;
            let chosen: BTreeMap<i64, i64> = found
                .iter()
                .filter(|stage| stage.chosen)
                .map(|stage| (stage.learner_seed, stage.image_guidance))
                .collect();
            let train = |(seed, learner): (i64, &mut Learner)| {
                let rows = chosen.get(&seed).and_then(|level| self.by_level.get(level)?.get(epoch));
                learner.train(&task.data, rows.map_or(&[][..], Vec::as_slice), iterations_per_epoch - probe_batches)?;
                learner.next_epoch();
                Ok(())
            };
            in_parallel((0..).zip(&mut learners).collect(), train)?;
            stages.extend(found);
        }
        let finish = |learner: &mut Learner| {
            for rows in self.shared {
                learner.train(&task.data, rows, iterations_per_epoch)?;
                learner.next_epoch();
            }
            self.budget.judge(learner)
        };
        Ok((method, in_parallel(learners.iter_mut().collect(), finish)?, stages))
    }

    /// The images of the spectrum validation set.
    async fn validation(&self, queries: &Queries<'_>) -> Result<Vec<String>> {
        let mut samples = Vec::new();
        for columns in queries.query("experiment/validation.sql", &[]).await?.columns() {
            samples.extend(columns.strings("sample_id")?.iter().flatten().map(str::to_owned));
        }
        if samples.is_empty() {
            return Err(Error::failed(EmptyValidation));
        }
        Ok(samples)
    }

    /// What the pipeline's query makes of an epoch's measurements: each learner is a trial.
    async fn progress(
        &self,
        queries: &mut Queries<'_>,
        epoch: usize,
        samples: &[String],
        seeds: &[u64],
        measured: &[Measurement],
    ) -> Result<Vec<Stage>> {
        let feedback =
            feedback(epoch, samples, seeds, measured).map_err(|error| Error::query(schema::FEEDBACK, error.into()))?;
        queries.put(&schema::FEEDBACK_TABLE, &[feedback])?;
        let changes = [("strategy", Parameter::Text(NAME.into()))];
        let mut stages = Vec::new();
        for columns in queries.query("progress/gain.sql", &changes).await?.columns() {
            let (trials, levels) = (columns.strings("trial")?, columns.integers("image_guidance")?);
            let (gains, errors) = (columns.floats("gain")?, columns.floats("standard_error")?);
            let chosen = columns.booleans("chosen")?;
            for row in 0..columns.rows() {
                stages.push(Stage {
                    architecture: self.budget.architecture.to_string(),
                    split_seed: self.split_seed,
                    learner_seed: trials.value(row).parse().unwrap_or_default(),
                    epoch: i64::try_from(epoch).unwrap_or(i64::MAX),
                    image_guidance: levels.value(row),
                    gain: gains.value(row),
                    standard_error: errors.is_valid(row).then(|| errors.value(row)),
                    chosen: chosen.value(row),
                });
            }
        }
        stages.sort_by_key(|stage| (stage.learner_seed, stage.image_guidance));
        Ok(stages)
    }
}

/// Rows of the table `feedback`, one trial for each learner.
fn feedback(
    epoch: usize,
    samples: &[String],
    seeds: &[u64],
    measured: &[Measurement],
) -> Result<RecordBatch, ArrowError> {
    let (mut trials, mut phases, mut ids, mut probabilities) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (seed, measurement) in seeds.iter().zip(measured) {
        for (phase, values) in [("before", &measurement.before), ("after", &measurement.after)] {
            for (sample, value) in samples.iter().zip(values) {
                trials.push(seed.to_string());
                phases.push(phase);
                ids.push(sample.as_str());
                probabilities.push(f64::from(*value));
            }
        }
    }
    let rows = ids.len();
    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("feedback_id", Arc::new(StringArray::new_null(rows))),
        ("curriculum", Arc::new(StringArray::from(vec![NAME; rows]))),
        ("trial", Arc::new(StringArray::from(trials))),
        ("epoch", Arc::new(Int64Array::from(vec![epoch; rows]))),
        ("phase", Arc::new(StringArray::from(phases))),
        ("sample_id", Arc::new(StringArray::from(ids))),
        ("probability", Arc::new(Float64Array::from(probabilities))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}
