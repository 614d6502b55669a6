//! Adaptive curricula with the built-in learner as their trainer. In each epoch the learner is measured before and after a
//! probe of real images, and the strategy's own query chooses the levels from what the learner has gained so far.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    error::ArrowError,
};

use super::{
    budget::{Budget, Evaluation, in_parallel},
    error::ExperimentError,
    learner::{Learner, LearnerError},
    manifests::{Epochs, Queries, levels},
    methods::Method,
};
use crate::{
    error::Result,
    schema::{self, columns::Answer},
};

/// What one learner gained from one level in one epoch, over all classes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct LevelGain {
    pub(crate) architecture: String,
    /// The strategy, and the loss if it is not cross-entropy.
    pub(crate) method: String,
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
    /// Whether the epoch trained on this level, for any class.
    pub(crate) chosen: bool,
}

/// The probabilities that one learner gives to the true classes, before and after the probe of an epoch.
struct Probabilities {
    before: Vec<f32>,
    after: Vec<f32>,
}

/// An adaptive strategy on one split.
pub(super) struct Adaptive<'a> {
    pub(super) budget: &'a Budget<'a>,
    pub(super) strategy: &'a str,
    pub(super) method: &'a Method,
    pub(super) split_seed: i64,
}

/// A learner in training.
struct Trainee {
    learner: Learner,
    /// The rows of each class that it has trained on.
    class_counts: Vec<usize>,
}

impl Adaptive<'_> {
    /// Trains the learners of all seeds, epoch by epoch. The batches of the probe count toward the epoch, so that the
    /// learner sees no more than those of other methods. The class counts of the loss are those of the rows so far, and
    /// those of the real images before the first epoch.
    ///
    /// # Errors
    /// Returns an error if a query fails, if it gives an epoch no rows, or if a learner cannot be trained.
    pub(super) async fn train(&self, queries: &mut Queries<'_>) -> Result<(Vec<Evaluation>, Vec<LevelGain>)> {
        let Budget { config, task, iterations_per_epoch, curriculum_epochs, .. } = *self.budget;
        let count = |value: i64| usize::try_from(value).unwrap_or(1);
        let probe_batches = count(config.curriculum.probe_size).div_ceil(count(config.learner.batch_size));
        let probe_batches = probe_batches.min(iterations_per_epoch - 1);
        let probes = queries.probes(task, self.strategy).await?;
        let samples = self.validation(queries).await?;
        let rows: Vec<usize> = samples.iter().filter_map(|sample| task.rows.get(sample).copied()).collect();
        let mut trainees = self.trainees(probes.len())?;
        let (mut feedback, mut gains) = (Vec::new(), Vec::new());
        let mut manifests = Vec::new();
        for epoch in 0..curriculum_epochs {
            let measure = |(trainee, probe): (&mut Trainee, &Epochs)| {
                let learner = &mut trainee.learner;
                let before = learner.probabilities(&task.data, &rows)?;
                learner.train(&task.data, rows_of(probe, epoch), probe_batches)?;
                learner.next_epoch();
                Ok(Probabilities { before, after: learner.probabilities(&task.data, &rows)? })
            };
            let measured = in_parallel(trainees.iter_mut().zip(&probes).collect(), measure)?;
            feedback.push(self.feedback(epoch, &samples, &measured)?);
            let progress = self.progress(queries, &feedback).await?;
            let schedule = queries.schedule(self.strategy, None).await?;
            gains.extend(self.gains(epoch, &progress, &schedule)?);
            manifests = queries.manifests(task, self.strategy, &schedule).await?;
            let train = |(trainee, epochs): (&mut Trainee, &Epochs)| {
                let rows = rows_of(epochs, epoch);
                trainee.count(&task.data.class_counts(rows)?)?;
                trainee.learner.train(&task.data, rows, iterations_per_epoch - probe_batches)?;
                trainee.learner.next_epoch();
                Ok(())
            };
            self.require_rows(&manifests, epoch)?;
            in_parallel(trainees.iter_mut().zip(&manifests).collect(), train)?;
        }
        let last = curriculum_epochs..count(config.curriculum.epochs);
        for epoch in last.clone() {
            self.require_rows(&manifests, epoch)?;
        }
        let finish = |(trainee, epochs): (&mut Trainee, &Epochs)| {
            for epoch in last.clone() {
                trainee.learner.train(&task.data, rows_of(epochs, epoch), iterations_per_epoch)?;
                trainee.learner.next_epoch();
            }
            self.budget.evaluate(&trainee.learner)
        };
        Ok((in_parallel(trainees.iter_mut().zip(&manifests).collect(), finish)?, gains))
    }

    fn trainees(&self, learners: usize) -> Result<Vec<Trainee>> {
        let real = &self.budget.task.class_counts;
        let trainee = |(seed, _)| -> Result<Trainee, LearnerError> {
            let learner = self.budget.learner(self.method, seed, real)?;
            Ok(Trainee { learner, class_counts: vec![0; real.len()] })
        };
        Ok((0..).zip(0..learners).map(trainee).collect::<Result<_, _>>()?)
    }

    /// Returns an error if a learner has nothing to train on in an epoch.
    fn require_rows(&self, manifests: &[Epochs], epoch: usize) -> Result<()> {
        if manifests.iter().any(|epochs| rows_of(epochs, epoch).is_empty()) {
            return Err(ExperimentError::NoRows { epoch, method: self.method.name.clone() }.into());
        }
        Ok(())
    }

    /// Returns the `sample_id`s of the spectrum validation set.
    async fn validation(&self, queries: &Queries<'_>) -> Result<Vec<String>> {
        let mut samples = Vec::new();
        for columns in queries.query("experiment/validation.sql", self.strategy, &[]).await?.columns() {
            samples.extend(columns.strings("sample_id")?.iter().flatten().map(str::to_owned));
        }
        Ok(samples)
    }

    /// Computes `progress` from all feedback so far with the pipeline's query, and puts it in the place of the table.
    async fn progress(&self, queries: &mut Queries<'_>, feedback: &[RecordBatch]) -> Result<Answer> {
        queries.put(schema::FEEDBACK, feedback)?;
        let progress = queries.query("progress/gain.sql", self.strategy, &[]).await?;
        queries.put(schema::PROGRESS, &progress.batches)?;
        Ok(progress)
    }

    /// Returns what each learner gained in an epoch.
    fn gains(&self, epoch: usize, progress: &Answer, schedule: &Answer) -> Result<Vec<LevelGain>> {
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
        let (scheduled, none) = (levels(schedule)?, BTreeSet::new());
        let mut found = Vec::new();
        for columns in progress.columns() {
            let (trials, epochs) = (columns.strings("trial")?, columns.integers("epoch")?);
            let (levels, labels) = (columns.integers("image_guidance")?, columns.integers("label")?);
            let (gains, errors) = (columns.floats("gain")?, columns.floats("standard_error")?);
            for row in (0..columns.rows()).filter(|&row| epochs.value(row) == epoch && labels.is_null(row)) {
                let trial = trials.value(row);
                let chosen = scheduled.get(&(trial.to_owned(), epoch)).unwrap_or(&none);
                found.push(LevelGain {
                    architecture: self.budget.architecture.to_string(),
                    method: self.method.name.clone(),
                    split_seed: self.split_seed,
                    learner_seed: trial.parse().unwrap_or_default(),
                    epoch,
                    image_guidance: levels.value(row),
                    gain: gains.value(row),
                    standard_error: errors.is_valid(row).then(|| errors.value(row)),
                    chosen: chosen.contains(&levels.value(row)),
                });
            }
        }
        found.sort_by_key(|gain| (gain.learner_seed, gain.image_guidance));
        Ok(found)
    }

    /// Returns rows of the table `feedback`, with a trial for each learner.
    fn feedback(&self, epoch: usize, samples: &[String], measured: &[Probabilities]) -> Result<RecordBatch> {
        let (mut trials, mut phases, mut ids, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (seed, probabilities) in measured.iter().enumerate() {
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
            ("curriculum", Arc::new(StringArray::from(vec![self.strategy; rows]))),
            ("trial", Arc::new(StringArray::from(trials))),
            ("epoch", Arc::new(Int64Array::from(vec![epoch; rows]))),
            ("phase", Arc::new(StringArray::from(phases))),
            ("sample_id", Arc::new(StringArray::from(ids))),
            ("probability", Arc::new(Float64Array::from(values))),
        ];
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let batch: Result<RecordBatch, ArrowError> = RecordBatch::try_from_iter_with_nullable(columns);
        Ok(batch.map_err(|source| ExperimentError::Columns { table: schema::FEEDBACK, source })?)
    }
}

impl Trainee {
    /// Adds the counts of an epoch, and trains with all so far.
    fn count(&mut self, epoch: &[usize]) -> Result<(), LearnerError> {
        for (all, more) in self.class_counts.iter_mut().zip(epoch) {
            *all += more;
        }
        self.learner.set_class_counts(&self.class_counts)
    }
}

fn rows_of(epochs: &Epochs, epoch: usize) -> &[usize] {
    epochs.get(epoch).map_or(&[], Vec::as_slice)
}
