//! Means with their spread, and paired differences with their intervals.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Measurement,
    learner::{Comparison, LearnerError, Score, mean, standard_deviation},
};

/// What a method reached in one metric.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Line {
    pub(crate) architecture: String,
    pub(crate) method: String,
    pub(crate) metric: String,
    /// The number of learners, over all splits.
    pub(crate) runs: usize,
    /// In percent.
    pub(crate) mean: f64,
    /// The sample standard deviation. `None` for a single run.
    pub(crate) standard_deviation: Option<f64>,
}

/// How much better the pipeline's own strategy is than another method, compared run by run.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Difference {
    pub(crate) architecture: String,
    /// The pipeline's own strategy.
    pub(crate) method: String,
    /// The method that it is compared with.
    pub(crate) than: String,
    pub(crate) metric: String,
    /// The mean over splits of the mean over learners, in percentage points.
    pub(crate) mean: f64,
    /// The lower and the upper end of Student's 95 % interval over splits. `None` for a single split.
    pub(crate) interval: Option<(f64, f64)>,
}

/// The figures of an experiment.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Summary {
    /// One line for each network, method and metric.
    pub(crate) lines: Vec<Line>,
    /// One difference for each network, other method and metric.
    pub(crate) differences: Vec<Difference>,
}

type Scores<'a> = BTreeMap<(&'a str, &'a str, &'a str), Vec<Score>>;

impl Summary {
    /// Summarizes the measurements, and compares `strategy` with every other method.
    ///
    /// # Errors
    /// Returns an error if a value is not finite, or if a run is missing or has two values.
    pub(super) fn new(measurements: &[Measurement], strategy: &str) -> Result<Self, LearnerError> {
        let mut scores: Scores<'_> = BTreeMap::new();
        for row in measurements {
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
            let Comparison { mean, interval } = Comparison::new(ours, theirs)?;
            let (architecture, method) = (architecture.to_owned(), strategy.to_owned());
            let (than, metric) = (than.to_owned(), metric.to_owned());
            differences.push(Difference { architecture, method, than, metric, mean, interval });
        }
        Ok(Self { lines, differences })
    }

    /// Returns the metrics that were measured, in the order of reports.
    pub(crate) fn metrics(&self) -> Vec<&str> {
        let found: BTreeSet<&str> = self.lines.iter().map(|line| line.metric.as_str()).collect();
        let order = ["many", "medium", "few", "overall", "worst_k", "macro_f1", "macro_f1_all"];
        let rank = |metric: &str| {
            let plain = metric.strip_prefix("shifted_");
            (plain.is_some(), order.iter().position(|name| *name == plain.unwrap_or(metric)))
        };
        let mut metrics: Vec<&str> = found.into_iter().collect();
        metrics.sort_by_key(|metric| rank(metric));
        metrics
    }
}
