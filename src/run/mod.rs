//! Walks a plan: runs what is not complete, skips what is, asks the expectations, and closes with the
//! contact sheet.

use std::{sync::Arc, time::Duration};

mod accumulate;
mod ledger;
mod rejects;
mod replace;
mod runner;
mod shard;
mod shutdown;
mod units;

pub use rejects::forget_rejects;
pub use runner::{Outcome, Progress};
pub use shard::Shard;
pub use shutdown::Stop;

use self::runner::{Ran, Runner};
use crate::{
    error::{Diagnostic, Diagnostics, Error, Result},
    pipeline::{Pipeline, staleness::why},
    report,
};

/// How often a run looks again at a step that another run has changed.
const PATIENCE: u32 = 100;
/// How long it waits before.
const PAUSE: Duration = Duration::from_millis(300);

/// How a run goes here.
#[derive(Debug, Clone)]
pub struct Options {
    /// The last step to run; all of them where there is none.
    pub until: Option<String>,
    /// Units that are worked on at once.
    pub units_in_flight: usize,
    /// Takes units in another order.
    pub unit_order: Option<u64>,
    /// Which units are this worker's; all of them where there is none.
    pub shard: Option<Shard>,
    /// How long a worker waits for the units of others.
    pub wait: Duration,
    /// Ends the run early: it finishes what it has begun.
    pub stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        let (wait, stop) = (Duration::from_secs(3600), Stop::default());
        Self { until: None, units_in_flight: 6, unit_order: None, shard: None, wait, stop }
    }
}

/// Runs `pipeline` as far as `options` say. What was committed stays whatever happens.
///
/// # Errors
/// Where a step or an expectation fails.
pub async fn run(pipeline: &Pipeline, options: &Options, progress: Arc<dyn Progress>) -> Result<Vec<Outcome>> {
    let last = last_step(pipeline, options.until.as_deref())?;
    let whole = pipeline.plan.steps.iter().enumerate().filter(|(index, _)| *index <= last);
    let last = whole.filter_map(|(_, step)| step.repeats_to).fold(last, usize::max);
    settle_device(pipeline, last, progress.as_ref()).await?;
    let runner = Runner {
        session: Arc::clone(&pipeline.session),
        plan: pipeline.plan.clone(),
        own_tables: pipeline.own_tables.clone(),
        options: runner::Options {
            units_in_flight: options.units_in_flight,
            unit_order: options.unit_order,
            max_reject_fraction: pipeline.config.rejects.max_fraction,
            shard: options.shard,
            wait: options.wait,
            stop: options.stop.clone(),
        },
        progress,
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut patience = PATIENCE;
    while outcomes.len() <= last {
        if options.stop.is_asked() {
            return Err(Error::Interrupted);
        }
        let first = outcomes.len();
        match runner.run(first).await? {
            Ran::Through(through) => {
                outcomes.extend(through);
                runner.expect(first..=outcomes.len() - 1).await?;
            }
            Ran::Again(index) if patience > 0 => {
                patience -= 1;
                tokio::time::sleep(PAUSE).await;
                outcomes.truncate(runner.first_of(index));
            }
            Ran::Again(index) => {
                return Err(Error::Data(format!(
                    "another run keeps changing `{}`; two pipelines of one name on one lake must not differ",
                    pipeline.plan.steps[index].table.name
                )));
            }
        }
    }
    let made = |outcome: &Outcome| !outcome.skipped && outcome.step == "kept";
    if outcomes.iter().any(made)
        || outcomes.iter().any(|o| o.step == "kept") && !report::has_contact_sheet(pipeline).await?
    {
        report::write_contact_sheet(pipeline).await?;
    }
    Ok(outcomes)
}

/// Where a step up to `last` will ask a model, settles what it runs on, before any work.
async fn settle_device(pipeline: &Pipeline, last: usize, progress: &dyn Progress) -> Result<()> {
    for step in pipeline.plan.steps.iter().take(last + 1).filter(|step| step.asks_models()) {
        if why(&pipeline.session, &pipeline.own_tables, step).await?.is_some() {
            let models = &pipeline.session.functions().models;
            progress.device(&tokio::task::block_in_place(|| models.choose_device())?);
            return Ok(());
        }
    }
    Ok(())
}

fn last_step(pipeline: &Pipeline, until: Option<&str>) -> Result<usize> {
    let steps = &pipeline.plan.steps;
    let Some(until) = until else {
        return Ok(steps.len().saturating_sub(1));
    };
    steps.iter().position(|step| step.table.name == until).ok_or_else(|| {
        let known: Vec<_> = steps.iter().map(|step| format!("`{}`", step.table.name)).collect();
        let message = format!("no such step, steps are {}", known.join(", "));
        let file = format!("--until {until}");
        Diagnostics::from(vec![Diagnostic { file, line: None, key: String::new(), message, help: None }]).into()
    })
}
