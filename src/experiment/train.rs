//! Trains and evaluates every method on one split of the data.

use std::collections::BTreeMap;

use super::{
    ChosenLevel, Findings, Measurement,
    adaptive::{self, Adaptive},
    architectures,
    budget::{Budget, Evaluation},
    dataset::Task,
    error::ExperimentError,
    learner::{Architecture, Metrics, mean},
    manifests::{Queries, REAL, fixed},
    methods::{self, Method, REAL_ONLY},
};
use crate::{config::Split, error::Result, pipeline::Project};

/// Trains and evaluates every method on the split of `project`. `note` receives messages about the progress.
///
/// # Errors
/// Returns an error if a query fails, or if a learner cannot be trained.
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
        let mut methods = methods::baselines(task, &real, shared, split_seed);
        let requested = |name: &str| config.experiment.strategies.iter().any(|strategy| strategy == name);
        methods.extend(methods::strategies(&manifests, requested));
        let mut record = |method: &Method, evaluations: &[Evaluation]| {
            findings.measurements.extend(measurements(method, architecture, split_seed, evaluations));
        };
        for method in &methods {
            record(method, &budget.train(method)?);
            note(&format!("split {split_seed}: {architecture}, {} trained", method.name));
        }
        if requested("fixed") {
            let levels = &config.spectrum.image_guidance;
            let mut fixed_methods = methods::strategies(&manifests, |name| name.starts_with("fixed_"));
            let (level, evaluations) = best_level(&budget, &fixed_methods, levels)?;
            if let Some(method) = fixed_methods.iter_mut().find(|method| method.name == fixed(level)) {
                method.name = "fixed".to_owned();
                record(method, &evaluations);
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
            let (method, evaluations, gains) = run.train(&mut queries).await?;
            findings.measurements.extend(measurements(&method, architecture, split_seed, &evaluations));
            findings.gains.extend(gains);
            note(&format!("split {split_seed}: {architecture}, {} trained", method.name));
        }
    }
    Ok(findings)
}

/// Returns the level with the best macro-F1 on the validation images, in the mean over learners, and the evaluations of
/// these learners. Among equal levels the lowest wins.
fn best_level(budget: &Budget<'_>, methods: &[Method], levels: &[i64]) -> Result<(i64, Vec<Evaluation>)> {
    let mut best: Option<(f64, i64, Vec<Evaluation>)> = None;
    let mut levels = levels.to_vec();
    levels.sort_unstable();
    for level in levels {
        let Some(method) = methods.iter().find(|method| method.name == fixed(level)) else { continue };
        let evaluations = budget.train(method)?;
        let validation = evaluations.iter().flatten().filter(|(split, _)| *split == Split::Validation);
        let scores: Vec<f64> = validation.map(|(_, metrics)| metrics.macro_f1).collect();
        let score = mean(&scores).unwrap_or_default();
        if best.as_ref().is_none_or(|(highest, _, _)| score > *highest) {
            best = Some((score, level, evaluations));
        }
    }
    let (_, level, evaluations) = best.ok_or(ExperimentError::NoLevel)?;
    Ok((level, evaluations))
}

/// Returns what a method's learners reached on the test images.
fn measurements(
    method: &Method,
    architecture: Architecture,
    split_seed: i64,
    evaluations: &[Evaluation],
) -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (learner_seed, evaluation) in (0..).zip(evaluations) {
        for (split, metrics) in evaluation {
            let prefix = match split {
                Split::Test => "",
                Split::ShiftedTest => "shifted_",
                Split::Train | Split::Validation => continue,
            };
            for (metric, value) in by_name(metrics) {
                rows.push(Measurement {
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

/// Returns the metrics that have a value, with their names.
fn by_name(metrics: &Metrics) -> impl Iterator<Item = (&'static str, f64)> {
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
