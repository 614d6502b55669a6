//! A run: the steps, the tables and functions, its options on this machine, and the receiver of its progress.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{shard::Shard, shutdown::Stop};
use crate::{
    lake::Lake,
    models::{Models, Rates, diffusion::Stats},
    pipeline::Project,
    plan::Plan,
    session::Session,
};

/// How a run proceeds on this machine. The tables do not depend on it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The last step to run; `None` runs all steps.
    pub(crate) until: Option<String>,
    /// Units in flight at once; their rows share the models' batches. If absent, as many as keep the models busy.
    pub(crate) units_in_flight: Option<usize>,
    /// Shuffles the units by this number.
    pub(crate) unit_order: Option<u64>,
    /// The units of this worker; `None` stands for all units.
    pub(crate) shard: Option<Shard>,
    /// How long a worker waits for the units of others.
    pub(crate) wait: Duration,
    /// Stops the run early, after the units that it has begun.
    pub(crate) stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        let (wait, stop) = (Duration::from_secs(3600), Stop::default());
        Self { until: None, units_in_flight: None, unit_order: None, shard: None, wait, stop }
    }
}

/// Receives the progress of a run.
pub(crate) trait Progress: Send + Sync {
    /// Reports the device that the models run on, and why it was chosen.
    fn device(&self, description: &str);
    /// Reports that a step begins with `rows` to generate, or 0 if their number is not known.
    fn started(&self, step: &str, rows: usize);
    /// Reports that the step waits for `rows` of other workers.
    fn waiting(&self, step: &str, rows: usize);
    /// Reports that `rows` more of the step are committed.
    fn advanced(&self, step: &str, rows: usize);
    /// Reports that a step has ended, or that there was nothing to do.
    fn ended(&self, outcome: &Outcome);
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Outcome {
    /// The name of its table.
    pub(crate) step: String,
    /// Whether there was nothing to do.
    pub(crate) skipped: bool,
    /// Why it ran or was skipped.
    pub(crate) reason: String,
    /// Rows that were added to an incremental table, or that the new version of a full-refresh table has.
    pub(crate) rows: usize,
    /// Rows that failed.
    pub(crate) rejects: usize,
    /// Wall time in seconds.
    pub(crate) seconds: f64,
    /// The rates of the diffusion model; `None` if it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rates: Option<Rates>,
}

impl Outcome {
    /// Creates the outcome of a step before it runs. `reason` is why it has to run; `None` if it does not.
    pub(super) fn new(step: &str, reason: Option<String>) -> Self {
        Self {
            step: step.to_owned(),
            skipped: reason.is_none(),
            reason: reason.unwrap_or_else(|| "it is up to date".into()),
            rows: 0,
            rejects: 0,
            seconds: 0.0,
            rates: None,
        }
    }

    /// Records a version of a full-refresh table that was written since `started`.
    pub(super) fn replaced(&mut self, rows: usize, started: Instant) {
        self.skipped = false;
        self.rows = rows;
        self.seconds += started.elapsed().as_secs_f64();
    }

    /// Records rows that were added to an incremental table since `started`, and the rates of the diffusion model since.
    pub(super) fn added(&mut self, counts: RowCounts, started: Instant, rates: Option<Rates>) {
        self.skipped = false;
        self.rows += counts.rows;
        self.rejects += counts.rejects;
        self.seconds += started.elapsed().as_secs_f64();
        // Of several rounds, the one that generated most images counts: the first.
        self.rates = self.rates.or(rates);
    }
}

/// Rows that a step has added, and rows that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowCounts {
    pub(super) rows: usize,
    pub(super) rejects: usize,
}

/// A run of a pipeline.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) plan: &'a Plan,
    pub(super) session: &'a Arc<Session>,
    /// The share of a step's rows that may fail.
    pub(super) max_reject_fraction: f64,
    pub(super) options: &'a Options,
    pub(super) progress: &'a dyn Progress,
}

impl<'a> Job<'a> {
    pub(super) fn new(project: &'a Project, options: &'a Options, progress: &'a dyn Progress) -> Self {
        let Project { config, plan, session, .. } = project;
        Self { plan, session, max_reject_fraction: config.rejects.max_fraction, options, progress }
    }

    pub(super) fn lake(&self) -> &'a Lake {
        self.session.lake()
    }

    /// Returns what the diffusion model has done so far.
    pub(super) fn generated(&self) -> Stats {
        self.session.models().and_then(Models::stats).unwrap_or_default()
    }
}
