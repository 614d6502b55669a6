//! Means with their spread, and paired differences with their intervals.

use std::collections::{BTreeMap, BTreeSet};

use super::Measured;
use crate::experiment::learner::{Comparison, LearnerError, Score, mean, standard_deviation};

/// The seed of the bootstrap's resamples.
const BOOTSTRAP_SEED: u64 = 0;

/// What a method reached in one metric.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Line {
    /// The network.
    pub architecture: String,
    /// The method.
    pub method: String,
    /// The metric.
    pub metric: String,
    /// Learners, over all splits.
    pub runs: usize,
    /// Their mean, in percent.
    pub mean: f64,
    /// Their sample standard deviation; none of one.
    pub standard_deviation: Option<f64>,
}

/// By how much the pipeline's own strategy is above another method, run by run.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The network.
    pub architecture: String,
    /// The strategy.
    pub method: String,
    /// What it is compared with.
    pub than: String,
    /// The metric.
    pub metric: String,
    /// The mean over splits of the mean over learners, in points.
    pub mean: f64,
    /// Where the bootstrap's 95 % interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// An experiment in figures.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Summary {
    /// For each network, method and metric.
    pub lines: Vec<Line>,
    /// For each network, other method and metric.
    pub differences: Vec<Difference>,
}

type Scores<'a> = BTreeMap<(&'a str, &'a str, &'a str), Vec<Score>>;

impl Summary {
    /// Sums up, and compares `strategy` with every other method.
    ///
    /// # Errors
    /// A measure that is not finite or is there twice.
    pub(super) fn new(measured: &[Measured], strategy: &str) -> Result<Self, LearnerError> {
        let mut scores: Scores<'_> = BTreeMap::new();
        for row in measured {
            let key = (row.architecture.as_str(), row.method.as_str(), row.metric.as_str());
            let seed = |seed: i64| u64::try_from(seed).unwrap_or_default();
            let score =
                Score { split_seed: seed(row.split_seed), learner_seed: seed(row.learner_seed), value: row.value };
            scores.entry(key).or_default().push(score);
        }
        let lines = scores.iter().filter_map(|(&(architecture, method, metric), scores)| {
            let values: Vec<f64> = scores.iter().map(|score| score.value).collect();
            Some(Line {
                architecture: architecture.to_owned(),
                method: method.to_owned(),
                metric: metric.to_owned(),
                runs: values.len(),
                mean: mean(&values)?,
                standard_deviation: standard_deviation(&values),
            })
        });
        let lines = lines.collect();
        let mut differences = Vec::new();
        for (&(architecture, than, metric), theirs) in scores.iter().filter(|(key, _)| key.1 != strategy) {
            let Some(ours) = scores.get(&(architecture, strategy, metric)) else { continue };
            let Comparison { mean, low, high, .. } = Comparison::new(ours, theirs, BOOTSTRAP_SEED)?;
            let (architecture, method) = (architecture.to_owned(), strategy.to_owned());
            let (than, metric) = (than.to_owned(), metric.to_owned());
            differences.push(Difference { architecture, method, than, metric, mean, low, high });
        }
        Ok(Self { lines, differences })
    }

    /// The metrics that were measured, in the order of reports.
    pub fn metrics(&self) -> Vec<&str> {
        let found: BTreeSet<&str> = self.lines.iter().map(|line| line.metric.as_str()).collect();
        let order = ["many", "medium", "few", "overall", "worst_k", "macro_f1"];
        let rank = |metric: &str| {
            let plain = metric.strip_prefix("shifted_");
            (plain.is_some(), order.iter().position(|name| *name == plain.unwrap_or(metric)))
        };
        let mut metrics: Vec<&str> = found.into_iter().collect();
        metrics.sort_by_key(|metric| rank(metric));
        metrics
    }
}
