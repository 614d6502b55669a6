//! Trains and evaluates every method on one split of the data.

use std::sync::Arc;

use super::{
    ChosenLevel, Findings, Measurement,
    adaptive::Adaptive,
    budget::{Budget, Evaluation},
    dataset::Task,
    error::ExperimentError,
    learner::{Architecture, Loss, Metrics, mean},
    manifests::{Epochs, Queries, levels},
    methods::{self, Compared, FIXED, Method},
};
use crate::{
    config::{REAL_LEVEL, REAL_ONLY, Split},
    error::{Result, text},
    pipeline::Project,
};

/// Checks that every strategy has images to train on, and adaptive ones images to measure on.
///
/// # Errors
/// Returns an error if a strategy has none, or if a query fails.
pub(super) async fn check(project: &Project, task: &Task, split: i64) -> Result<()> {
    let queries = Queries::new(project).await?;
    let compared = Compared::new(project)?;
    if let Some(strategy) = compared.first_adaptive() {
        let samples = queries.query("experiment/validation.sql", strategy, &[]).await?;
        if samples.columns().all(|columns| columns.rows() == 0) {
            return Err(ExperimentError::EmptyValidation { split, strategy: strategy.to_owned() }.into());
        }
    }
    if compared.has(FIXED) && methods::fixed_levels(project, task).is_empty() {
        return Err(ExperimentError::NoLevel { split }.into());
    }
    for strategy in compared.strategies.iter().filter(|name| *name != FIXED) {
        for ((_, epoch), levels) in levels(&queries.schedule(strategy, None).await?)? {
            let synthetic: Vec<i64> = levels.into_iter().filter(|level| *level < REAL_LEVEL).collect();
            if !synthetic.is_empty() && !synthetic.iter().any(|level| task.levels.contains(level)) {
                let levels = text::join(&synthetic.iter().map(i64::to_string).collect::<Vec<_>>(), "and");
                return Err(ExperimentError::NoSynthetic { split, epoch, strategy: strategy.clone(), levels }.into());
            }
        }
    }
    Ok(())
}

/// A split of the data, and what its methods have reached so far.
pub(super) struct Training<'a, N> {
    project: &'a Project,
    task: &'a Task,
    split_seed: i64,
    architectures: Vec<Architecture>,
    losses: Vec<Loss>,
    findings: Findings,
    /// Receives messages about the progress.
    note: N,
}

impl<'a, N: Fn(&str)> Training<'a, N> {
    /// # Errors
    /// Returns an error if the pipeline names an unknown network or loss.
    pub(super) fn new(project: &'a Project, task: &'a Task, split_seed: i64, note: N) -> Result<Self> {
        let architectures = super::architectures(&project.config)?;
        let losses: Result<Vec<Loss>, _> = project.config.experiment.losses.iter().map(|name| name.parse()).collect();
        Ok(Self { project, task, split_seed, architectures, losses: losses?, findings: Findings::default(), note })
    }

    /// Trains and evaluates every method.
    ///
    /// # Errors
    /// Returns an error if a query fails, or if a learner cannot be trained.
    pub(super) async fn run(mut self) -> Result<Findings> {
        let compared = Compared::new(self.project)?;
        self.baselines().await?;
        for strategy in &compared.strategies {
            if compared.is_adaptive(strategy) {
                self.adaptive(strategy).await?;
            } else if strategy == FIXED {
                self.fixed().await?;
            } else {
                let manifests = self.manifests(strategy, None).await?;
                for (architecture, loss) in self.variants() {
                    self.train(architecture, &Method::strategy(strategy, loss, Arc::clone(&manifests)))?;
                }
            }
        }
        Ok(self.findings)
    }

    /// Every network with every loss.
    fn variants(&self) -> Vec<(Architecture, Loss)> {
        let with = |architecture| self.losses.iter().map(move |loss| (architecture, *loss));
        self.architectures.iter().copied().flat_map(with).collect()
    }

    fn budget(&self, architecture: Architecture) -> Budget<'a> {
        Budget::new(&self.project.config, self.task, architecture)
    }

    async fn manifests(&self, strategy: &str, level: Option<i64>) -> Result<Arc<Vec<Epochs>>> {
        let mut queries = Queries::new(self.project).await?;
        let schedule = queries.schedule(strategy, level).await?;
        Ok(Arc::new(queries.manifests(self.task, strategy, &schedule).await?))
    }

    fn train(&mut self, architecture: Architecture, method: &Method) -> Result<()> {
        let evaluations = self.budget(architecture).train(method)?;
        self.record(architecture, method, &evaluations);
        Ok(())
    }

    /// Baselines train on the images of the spectrum validation set, too, since they do not need it.
    async fn baselines(&mut self) -> Result<()> {
        let mut queries = Queries::new(self.project).await?;
        queries.put("validation", &[])?;
        let schedule = queries.schedule(REAL_ONLY, None).await?;
        let real_only = queries.manifests(self.task, REAL_ONLY, &schedule).await?;
        for &architecture in &self.architectures.clone() {
            let curriculum_epochs = self.budget(architecture).curriculum_epochs;
            for method in methods::baselines(self.task, &real_only, curriculum_epochs, self.split_seed) {
                self.train(architecture, &method)?;
            }
        }
        Ok(())
    }

    /// Trains `fixed` at every level. The one with the best macro-F1 on the validation images counts, in the mean over
    /// learners; among equal levels the lowest.
    async fn fixed(&mut self) -> Result<()> {
        let mut by_level = Vec::new();
        for level in methods::fixed_levels(self.project, self.task) {
            by_level.push((level, self.manifests(FIXED, Some(level)).await?));
        }
        for (architecture, loss) in self.variants() {
            let mut best: Option<(f64, i64, Method, Vec<Evaluation>)> = None;
            for (level, manifests) in &by_level {
                let method = Method::strategy(FIXED, loss, Arc::clone(manifests));
                let evaluations = self.budget(architecture).train(&method)?;
                let validation = evaluations.iter().flatten().filter(|(split, _)| *split == Split::Validation);
                let scores: Vec<f64> = validation.map(|(_, metrics)| metrics.macro_f1).collect();
                let score = mean(&scores).unwrap_or_default();
                if best.as_ref().is_none_or(|(highest, ..)| score > *highest) {
                    best = Some((score, *level, method, evaluations));
                }
            }
            let (_, image_guidance, method, evaluations) =
                best.ok_or(ExperimentError::NoLevel { split: self.split_seed })?;
            self.record(architecture, &method, &evaluations);
            self.findings.fixed_levels.push(ChosenLevel {
                architecture: architecture.to_string(),
                method: method.name,
                split_seed: self.split_seed,
                image_guidance,
            });
        }
        Ok(())
    }

    async fn adaptive(&mut self, strategy: &str) -> Result<()> {
        for (architecture, loss) in self.variants() {
            let mut queries = Queries::new(self.project).await?;
            let (budget, method) = (self.budget(architecture), Method::strategy(strategy, loss, Arc::default()));
            let run = Adaptive { budget: &budget, strategy, method: &method, split_seed: self.split_seed };
            let (evaluations, gains) = run.train(&mut queries).await?;
            self.record(architecture, &method, &evaluations);
            self.findings.gains.extend(gains);
        }
        Ok(())
    }

    /// Keeps what a method's learners reached on the test images.
    fn record(&mut self, architecture: Architecture, method: &Method, evaluations: &[Evaluation]) {
        for (learner_seed, evaluation) in (0..).zip(evaluations) {
            for (split, metrics) in evaluation {
                let prefix = match split {
                    Split::Test => "",
                    Split::ShiftedTest => "shifted_",
                    Split::Train | Split::Validation => continue,
                };
                let row = |(metric, value)| Measurement {
                    architecture: architecture.to_string(),
                    method: method.name.clone(),
                    loss: method.loss.to_string(),
                    sampling: method.sampling.to_string(),
                    split_seed: self.split_seed,
                    learner_seed,
                    metric: format!("{prefix}{metric}"),
                    value,
                };
                self.findings.measurements.extend(by_name(metrics).map(row));
            }
        }
        (self.note)(&format!("split {}: {architecture}, {} trained", self.split_seed, method.name));
    }
}

/// Returns the metrics that have a value, with their names.
fn by_name(metrics: &Metrics) -> impl Iterator<Item = (&'static str, f64)> {
    let all = [
        ("many", metrics.many),
        ("medium", metrics.medium),
        ("few", metrics.few),
        ("overall", Some(metrics.overall)),
        ("worst_k", Some(metrics.worst)),
        ("macro_f1", Some(metrics.macro_f1)),
        ("macro_f1_all", Some(metrics.macro_f1_all)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?)))
}
