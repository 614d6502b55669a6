//! The adaptive curriculum with the built-in learner as its trainer. In each epoch the learner is measured before and
//! after a probe of real images, and the pipeline's own query chooses the level from what the learner gained.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    error::ArrowError,
};

use super::{
    budget::{Budget, Evaluation, in_parallel},
    error::ExperimentError,
    learner::{Learner, LearnerError, Loss, Sampling},
    manifests::{Epochs, Queries},
    methods::Method,
};
use crate::{error::Result, plan::catalogue::Parameter, schema};

/// The name of the strategy.
pub(super) const NAME: &str = "adaptive";

/// What one learner gained from one level in one epoch.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct LevelGain {
    pub(crate) architecture: String,
    pub(crate) split_seed: i64,
    pub(crate) learner_seed: i64,
    /// Counted from 0.
    pub(crate) epoch: i64,
    /// The level: the percentage of the real image that is kept.
    pub(crate) image_guidance: i64,
    /// The mean gain in the probability of the true class.
    pub(crate) gain: f64,
    /// The standard error of the gain. `None` if it was measured on a single image.
    pub(crate) standard_error: Option<f64>,
    /// Whether the curriculum chose this level for the epoch.
    pub(crate) chosen: bool,
}

/// The probabilities that one learner gives to the true classes, before and after the probe of an epoch.
struct Probabilities {
    before: Vec<f32>,
    after: Vec<f32>,
}

/// An adaptive curriculum on one split.
pub(super) struct Adaptive<'a> {
    pub(super) budget: &'a Budget<'a>,
    /// The rows of each epoch, by level.
    pub(super) by_level: BTreeMap<i64, Epochs>,
    /// The epochs after the curriculum.
    pub(super) shared: &'a [Vec<usize>],
    pub(super) split_seed: i64,
}

impl Adaptive<'_> {
    /// Trains one learner for each seed, all of them epoch by epoch. The batches of the probe count toward the epoch,
    /// so that the learner sees no more than those of other methods.
    ///
    /// # Errors
    /// Returns an error if a query fails, or if a learner cannot be trained.
    pub(super) async fn train(&self, queries: &mut Queries<'_>) -> Result<(Method, Vec<Evaluation>, Vec<LevelGain>)> {
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
        let mut gains = Vec::new();
        for (epoch, probe) in probes.iter().enumerate() {
            let measure = |learner: &mut Learner| {
                let before = learner.probabilities(&task.data, &rows)?;
                learner.train(&task.data, probe, probe_batches)?;
                learner.next_epoch();
                Ok(Probabilities { before, after: learner.probabilities(&task.data, &rows)? })
            };
            let measured = in_parallel(learners.iter_mut().collect(), measure)?;
            let found = self.gains(queries, epoch, &samples, &seeds, &measured).await?;
            let chosen: BTreeMap<i64, i64> =
                found.iter().filter(|gain| gain.chosen).map(|gain| (gain.learner_seed, gain.image_guidance)).collect();
            let train = |(seed, learner): (i64, &mut Learner)| {
                let rows = chosen.get(&seed).and_then(|level| self.by_level.get(level)?.get(epoch));
                learner.train(&task.data, rows.map_or(&[][..], Vec::as_slice), iterations_per_epoch - probe_batches)?;
                learner.next_epoch();
                Ok(())
            };
            in_parallel((0..).zip(&mut learners).collect(), train)?;
            gains.extend(found);
        }
        let finish = |learner: &mut Learner| {
            for rows in self.shared {
                learner.train(&task.data, rows, iterations_per_epoch)?;
                learner.next_epoch();
            }
            self.budget.evaluate(learner)
        };
        Ok((method, in_parallel(learners.iter_mut().collect(), finish)?, gains))
    }

    /// Returns the `sample_id`s of the spectrum validation set.
    async fn validation(&self, queries: &Queries<'_>) -> Result<Vec<String>> {
        let mut samples = Vec::new();
        for columns in queries.query("experiment/validation.sql", &[]).await?.columns() {
            samples.extend(columns.strings("sample_id")?.iter().flatten().map(str::to_owned));
        }
        if samples.is_empty() {
            return Err(ExperimentError::EmptyValidation.into());
        }
        Ok(samples)
    }

    /// Computes the gains of an epoch with the pipeline's query, to which each learner is a trial.
    async fn gains(
        &self,
        queries: &mut Queries<'_>,
        epoch: usize,
        samples: &[String],
        seeds: &[u64],
        measured: &[Probabilities],
    ) -> Result<Vec<LevelGain>> {
        let feedback = feedback(epoch, samples, seeds, measured)
            .map_err(|source| ExperimentError::Columns { table: schema::FEEDBACK, source })?;
        queries.put(&schema::FEEDBACK_TABLE, &[feedback])?;
        let changes = [("strategy", Parameter::Text(NAME.into()))];
        let mut found = Vec::new();
        for columns in queries.query("progress/gain.sql", &changes).await?.columns() {
            let (trials, levels) = (columns.strings("trial")?, columns.integers("image_guidance")?);
            let (gains, errors) = (columns.floats("gain")?, columns.floats("standard_error")?);
            let chosen = columns.booleans("chosen")?;
            for row in 0..columns.rows() {
                found.push(LevelGain {
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
        found.sort_by_key(|gain| (gain.learner_seed, gain.image_guidance));
        Ok(found)
    }
}

/// Returns rows of the table `feedback`, with a trial for each learner.
fn feedback(
    epoch: usize,
    samples: &[String],
    seeds: &[u64],
    measured: &[Probabilities],
) -> Result<RecordBatch, ArrowError> {
    let (mut trials, mut phases, mut ids, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (seed, probabilities) in seeds.iter().zip(measured) {
        for (phase, measured) in [("before", &probabilities.before), ("after", &probabilities.after)] {
            for (sample, value) in samples.iter().zip(measured) {
                trials.push(seed.to_string());
                phases.push(phase);
                ids.push(sample.as_str());
                values.push(f64::from(*value));
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
        ("probability", Arc::new(Float64Array::from(values))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}
