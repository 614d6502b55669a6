//! Trains every learner of a split, as many at once as there are cores, each on one.

use std::{collections::BTreeMap, sync::Mutex};

use super::{
    ChosenLevel, Findings, Measured,
    adaptive::{self, Adaptive},
    architectures,
    dataset::Task,
    manifests::{Queries, REAL, fixed},
    methods::{self, Method, REAL_ONLY},
};
use crate::{
    config::{Config, Split},
    error::{Error, Result},
    experiment::learner::{
        Architecture, ClassBuckets, Data, Learner, LearnerError, LearningRateSchedule, Metrics, Settings,
    },
    pipeline::Project,
};

/// What the learners of a pipeline have in common.
pub(super) struct Budget<'a> {
    pub(super) config: &'a Config,
    pub(super) task: &'a Task,
    pub(super) architecture: Architecture,
    pub(super) iterations_per_epoch: usize,
}

/// How one learner does on each split that judges.
pub(super) type Judgement = Vec<(Split, Metrics)>;

/// Trains and judges every method on the split of `project`.
///
/// # Errors
/// Where a query fails, or a learner cannot be trained.
pub(super) async fn split(project: &Project, task: &Task, split_seed: i64, note: impl Fn(&str)) -> Result<Findings> {
    let config = &project.config;
    let mut queries = Queries::new(project).await?;
    let mut strategies = config.experiment.strategies.clone();
    let adaptive = strategies.iter().any(|name| name == adaptive::NAME);
    for needed in [Some(REAL_ONLY), adaptive.then_some("fixed")].into_iter().flatten() {
        if !strategies.iter().any(|name| name == needed) {
            strategies.push(needed.to_owned());
        }
    }
    let manifests = queries.manifests(task, &strategies).await?;
    let real = queries.real_images(task, i64::MAX).await?;
    let shared = manifests.get(REAL_ONLY).and_then(|epochs| epochs.get(real.len()..)).unwrap_or_default();
    let mut findings = Findings::default();
    for architecture in architectures(config)? {
        let budget = Budget::new(config, task, architecture);
        let mut named = methods::baselines(task, &real, shared, split_seed);
        let wanted = |name: &str| config.experiment.strategies.iter().any(|wanted| wanted == name);
        named.extend(methods::strategies(&manifests, wanted));
        let mut write = |method: &Method, seeds: &[Judgement]| {
            findings.measured.extend(measured(method, architecture, split_seed, seeds));
        };
        for method in &named {
            write(method, &budget.train(method)?);
            note(&format!("split {split_seed}: {architecture}, {} trained", method.name));
        }
        if wanted("fixed") {
            let levels = &config.spectrum.image_guidance;
            let mut fixed_methods = methods::strategies(&manifests, |name| name.starts_with("fixed_"));
            let (level, seeds) = budget.choose(&fixed_methods, levels)?;
            if let Some(method) = fixed_methods.iter_mut().find(|method| method.name == fixed(level)) {
                method.name = "fixed".to_owned();
                write(method, &seeds);
            }
            note(&format!("split {split_seed}: {architecture}, fixed trained, best at {level}"));
            let architecture = architecture.to_string();
            findings.fixed_levels.push(ChosenLevel { architecture, split_seed, image_guidance: level });
        }
        if adaptive {
            let levels = config.spectrum.image_guidance.iter().copied().chain([REAL]);
            let by_level: BTreeMap<i64, _> =
                levels.filter_map(|level| Some((level, manifests.get(&fixed(level))?.clone()))).collect();
            let run = Adaptive { budget: &budget, by_level, shared, split_seed };
            let (method, seeds, stages) = run.train(&mut queries).await?;
            findings.measured.extend(measured(&method, architecture, split_seed, &seeds));
            findings.stages.extend(stages);
            note(&format!("split {split_seed}: {architecture}, {} trained", method.name));
        }
    }
    Ok(findings)
}

impl<'a> Budget<'a> {
    fn new(config: &'a Config, task: &'a Task, architecture: Architecture) -> Self {
        let iterations_per_epoch = usize::try_from(config.learner.iterations_per_epoch).unwrap_or(1);
        Self { config, task, architecture, iterations_per_epoch }
    }

    /// Seeds of the learners.
    pub(super) fn seeds(&self) -> Vec<u64> {
        (0..u64::try_from(self.config.experiment.learner_seeds).unwrap_or_default()).collect()
    }

    /// A learner that has not begun.
    pub(super) fn learner(&self, method: &Method, seed: u64) -> Result<Learner, LearnerError> {
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
        Learner::new(settings, self.task.data.shape(), &self.task.class_counts)
    }

    /// Trains a method's learners, one for each seed, and judges them.
    fn train(&self, method: &Method) -> Result<Vec<Judgement>> {
        let train = |seed| {
            let mut learner = self.learner(method, seed)?;
            for rows in &method.epochs {
                learner.train(&self.task.data, rows, self.iterations_per_epoch)?;
                learner.next_epoch();
            }
            self.judge(&learner)
        };
        in_parallel(self.seeds(), train)
    }

    /// How a learner does on each split that judges.
    pub(super) fn judge(&self, learner: &Learner) -> Result<Judgement, LearnerError> {
        let count = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        let few = count(self.config.hard_samples.max_class_count);
        let experiment = &self.config.experiment;
        let buckets = ClassBuckets {
            many: count(experiment.many_class_count).max(few),
            few,
            worst: count(experiment.worst_classes),
        };
        let judge =
            |data: &Data| Metrics::new(&learner.predict(data)?, data.labels(), &self.task.class_counts, buckets);
        self.task.judged.iter().map(|(split, data)| Ok((*split, judge(data)?))).collect()
    }

    /// The level at which the macro-F1 on the validation images is best in the mean over learners, the lowest of equal
    /// ones, with these learners' judgements.
    fn choose(&self, methods: &[Method], levels: &[i64]) -> Result<(i64, Vec<Judgement>)> {
        let mut best: Option<(f64, i64, Vec<Judgement>)> = None;
        let mut levels = levels.to_vec();
        levels.sort_unstable();
        for level in levels {
            let Some(method) = methods.iter().find(|method| method.name == fixed(level)) else { continue };
            let seeds = self.train(method)?;
            let validation = seeds.iter().flatten().filter(|(split, _)| *split == Split::Validation);
            let scores: Vec<f64> = validation.map(|(_, metrics)| metrics.macro_f1).collect();
            let score = crate::experiment::learner::mean(&scores).unwrap_or_default();
            if best.as_ref().is_none_or(|(least, _, _)| score > *least) {
                best = Some((score, level, seeds));
            }
        }
        let best = best.map(|(_, level, seeds)| (level, seeds));
        best.ok_or_else(|| Error::Data("no level has a manifest to train on".into()))
    }
}

/// The measures of a method's learners on the test images.
fn measured(method: &Method, architecture: Architecture, split_seed: i64, seeds: &[Judgement]) -> Vec<Measured> {
    let mut rows = Vec::new();
    for (learner_seed, judgement) in (0..).zip(seeds) {
        for (split, metrics) in judgement {
            let prefix = match split {
                Split::Test => "",
                Split::ShiftedTest => "shifted_",
                Split::Train | Split::Validation => continue,
            };
            for (metric, value) in named(metrics) {
                rows.push(Measured {
                    architecture: architecture.to_string(),
                    method: method.name.clone(),
                    loss: method.loss.to_string(),
                    sampling: method.sampling.to_string(),
                    split_seed,
                    learner_seed,
                    metric: format!("{prefix}{metric}"),
                    value,
                });
            }
        }
    }
    rows
}

/// Metrics by their names, those that there are.
fn named(metrics: &Metrics) -> impl Iterator<Item = (&'static str, f64)> {
    let all = [
        ("many", metrics.many),
        ("medium", metrics.medium),
        ("few", metrics.few),
        ("overall", Some(metrics.overall)),
        ("worst_k", Some(metrics.worst)),
        ("macro_f1", Some(metrics.macro_f1)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// Does work on each item, as many at once as there are cores, each in a pool of one thread: matrix products of this
/// size are slower when they are parted. Results come in the order of the items.
///
/// # Errors
/// The first error, or threads that cannot be started.
pub(super) fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R, LearnerError> + Sync,
) -> Result<Vec<R>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(items.len());
    let queue = Mutex::new(items.into_iter().enumerate());
    let take = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let worker = || -> Result<Vec<(usize, R)>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.map_err(|error| Error::Data(format!("no thread could be started: {error}")))?;
        let mut done = Vec::new();
        while let Some((place, item)) = take() {
            done.push((place, pool.install(|| work(item))?));
        }
        Ok(done)
    };
    let mut done = Vec::new();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
            for worker in workers {
                let ended = worker.join().map_err(|_| Error::Data("a learner's thread has failed".into()))?;
                done.extend(ended?);
            }
            Ok::<(), Error>(())
        })
    })?;
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
