//! The budget that every method shares, and how learners are trained and evaluated on it in parallel.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use super::{
    dataset::Task,
    error::ExperimentError,
    learner::{Architecture, ClassBuckets, Data, Learner, LearnerError, LearningRateSchedule, Metrics, Settings},
    manifests::Epochs,
    methods::Method,
};
use crate::{
    config::{Config, Split},
    error::Result,
};

/// What all learners of one network have in common.
pub(super) struct Budget<'a> {
    pub(super) config: &'a Config,
    pub(super) task: &'a Task,
    pub(super) architecture: Architecture,
    pub(super) iterations_per_epoch: usize,
    pub(super) curriculum_epochs: usize,
}

/// The metrics of one learner on each split that is not trained on.
pub(super) type Evaluation = Vec<(Split, Metrics)>;

impl<'a> Budget<'a> {
    pub(super) fn new(config: &'a Config, task: &'a Task, architecture: Architecture) -> Self {
        let count = |value: i64| usize::try_from(value).unwrap_or_default();
        let iterations_per_epoch = count(config.learner.iterations_per_epoch);
        let curriculum_epochs = count(config.curriculum.curriculum_epochs);
        Self { config, task, architecture, iterations_per_epoch, curriculum_epochs }
    }

    /// Creates an untrained learner. `class_counts` are for losses that need the priors of the classes.
    ///
    /// # Errors
    /// Returns an error if the method's loss does not fit the classes, or if candle fails.
    pub(super) fn learner(&self, method: &Method, seed: u64, class_counts: &[usize]) -> Result<Learner, LearnerError> {
        let learner = &self.config.learner;
        let epochs = usize::try_from(self.config.curriculum.epochs).unwrap_or_default();
        let settings = Settings {
            architecture: self.architecture,
            loss: method.loss,
            sampling: method.sampling,
            schedule: LearningRateSchedule::Cosine,
            batch_size: usize::try_from(learner.batch_size).unwrap_or(1),
            learning_rate: learner.learning_rate,
            weight_decay: learner.weight_decay,
            iterations: epochs * self.iterations_per_epoch,
            seed,
        };
        Learner::new(settings, self.task.data.shape(), class_counts)
    }

    /// Trains a method's learners, one for each seed, and evaluates them. The class counts of their losses are those of
    /// the rows in the epochs of the curriculum.
    ///
    /// # Errors
    /// Returns an error if an epoch has no rows, or if a learner cannot be trained.
    pub(super) fn train(&self, method: &Method) -> Result<Vec<Evaluation>> {
        let train = |(seed, epochs): (u64, &Epochs)| {
            let curriculum = epochs.get(..self.curriculum_epochs).filter(|epochs| !epochs.is_empty());
            let counts = self.task.data.class_counts(&curriculum.unwrap_or(epochs).concat())?;
            let mut learner = self.learner(method, seed, &counts)?;
            for rows in epochs {
                learner.train(&self.task.data, rows, self.iterations_per_epoch)?;
                learner.next_epoch();
            }
            self.evaluate(&learner)
        };
        for (epoch, rows) in method.manifests.iter().flat_map(|epochs| epochs.iter().enumerate()) {
            if rows.is_empty() {
                return Err(ExperimentError::NoRows { epoch, method: method.name.clone() }.into());
            }
        }
        in_parallel((0..).zip(method.manifests.iter()).collect(), train)
    }

    /// Evaluates a learner on each split that is not trained on.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(super) fn evaluate(&self, learner: &Learner) -> Result<Evaluation, LearnerError> {
        let count = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        let few = count(self.config.hard_samples.max_class_count);
        let experiment = &self.config.experiment;
        let buckets = ClassBuckets {
            many: count(experiment.many_class_count).max(few),
            few,
            worst: count(experiment.worst_classes),
        };
        let metrics =
            |data: &Data| Metrics::new(&learner.predict(data)?, data.labels(), &self.task.class_counts, buckets);
        self.task.evaluated.iter().map(|(split, data)| Ok((*split, metrics(data)?))).collect()
    }
}

/// Calls `work` on each item, on as many threads as there are cores. Each thread has a pool of one thread, because
/// matrix products of this size are slower when they are divided. The results have the order of the items.
///
/// # Errors
/// Returns the first error of `work`, or an error if a thread cannot be started.
pub(super) fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, LearnerError> + Sync,
) -> Result<Vec<R>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let queue = Mutex::new(items.into_iter().enumerate());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || -> Result<Vec<(usize, R)>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(ExperimentError::from)?;
        let mut done = Vec::new();
        while let Some((index, item)) = take() {
            done.push((index, pool.install(|| work(item))?));
        }
        Ok(done)
    };
    let mut done = Vec::new();
    tokio::task::block_in_place(|| {
        thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
            for worker in workers {
                done.extend(worker.join().map_err(|_| ExperimentError::Panicked)??);
            }
            Ok(())
        })
    })?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
