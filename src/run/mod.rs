//! Executes a plan: runs the steps that are not complete, skips the others, checks the expectations, and finally
//! updates the contact sheet.
//!
//! - A **full-refresh** table is replaced by the rows of its query ([`replace`]).
//! - An **incremental** table gets one row for each row of another table, in units ([`accumulate`]). Models run here.
//! - A full-refresh step whose query reads a later table is **repeated** with the steps up to that table until its rows no
//!   longer change ([`runner`]). In this way, low scores lead to further attempts.

mod accumulate;
mod expect;
mod follow;
mod generate;
mod job;
mod ledger;
mod rejects;
mod replace;
mod runner;
mod shard;
mod shutdown;
#[cfg(test)]
mod tests;
mod units;

use std::time::Duration;

pub(crate) use follow::follow;
pub(crate) use job::{Options, Outcome, Progress};
pub(crate) use rejects::clear_rejects;
pub(crate) use shard::Shard;
pub(crate) use shutdown::Stop;

use self::{
    job::Job,
    runner::{RunResult, Runner},
};
use crate::{
    error::{Diagnostic, Diagnostics, Error, Result},
    models::Models,
    pipeline::{Pipeline, staleness},
    plan::Plan,
    report, schema,
};

/// How often a run starts again from a step that another run has changed.
const MAX_RESTARTS: u32 = 100;
/// How long it waits before it does.
const RESTART_DELAY: Duration = Duration::from_millis(300);

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(
        "another run keeps changing `{table}`\nhint: two pipelines of one name on one lake must have the same settings"
    )]
    Contended { table: String },
}

/// Runs `pipeline` up to the last step that `options` name. Committed rows stay, whatever happens.
///
/// # Errors
/// Returns an error if `options` name an unknown step, or if a step or an expectation fails; [`Error::Interrupted`] if
/// the run was stopped; [`Error::Waiting`] if other workers did not finish in time.
pub(crate) async fn run(pipeline: &Pipeline, options: &Options, progress: &dyn Progress) -> Result<Vec<Outcome>> {
    let job = Job::new(&pipeline.project, options, progress);
    let steps = &job.plan.steps;
    let last = match &options.until {
        Some(until) => find_step(job.plan, until)?,
        None => steps.len().saturating_sub(1),
    };
    let last = steps[..=last].iter().filter_map(|step| step.repeats_to).fold(last, usize::max);
    pipeline.project.check_lake().await?;
    rejects::notice_changes(job.lake(), steps).await?;
    report_device(job, &pipeline.models, last).await?;
    let ended = run_steps(job, last, async |complete| check_shares(pipeline, complete, last).await).await;
    match &ended {
        Ok(outcomes) => update_contact_sheet(pipeline, outcomes).await?,
        // The images may tell why.
        Err(Error::Expectation { .. }) if is_kept(pipeline).await? => {
            report::write_contact_sheet(&pipeline.project).await?;
        }
        Err(_) => {}
    }
    ended
}

/// Runs the steps up to the one at `last`, and those that are repeated with it. Calls `check` on those that are complete.
async fn run_steps(job: Job<'_>, last: usize, check: impl AsyncFn(&[Outcome]) -> Result<()>) -> Result<Vec<Outcome>> {
    let runner = Runner::new(job);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut restarts = 0;
    while outcomes.len() <= last {
        if job.options.stop.is_requested() {
            return Err(Error::Interrupted);
        }
        let first = outcomes.len();
        match runner.run(first).await? {
            RunResult::Complete(complete) => {
                outcomes.extend(complete);
                expect::check(job.session, job.plan, first..=outcomes.len() - 1).await?;
                check(&outcomes[first..]).await?;
            }
            RunResult::Restart(index) if restarts < MAX_RESTARTS => {
                restarts += 1;
                tokio::time::sleep(RESTART_DELAY).await;
                outcomes.truncate(runner.loop_start(index));
            }
            RunResult::Restart(index) => {
                return Err(Error::failed(RunError::Contended { table: job.plan.steps[index].table.name.clone() }));
            }
        }
    }
    Ok(outcomes)
}

/// Checks, once the hard images are known, that epochs will train on synthetic images, if the run is to make manifests.
async fn check_shares(pipeline: &Pipeline, complete: &[Outcome], last: usize) -> Result<()> {
    let makes_manifests = pipeline.project.plan.steps[..=last].iter().any(|step| step.table.name == schema::MANIFEST);
    if makes_manifests && complete.iter().any(|outcome| outcome.step == schema::HARD_SAMPLES) {
        report::shares::check(&pipeline.project, &pipeline.project.session.snapshot().await?).await?;
    }
    Ok(())
}

/// Chooses the device of the models and reports it, if a step up to `last` will call a model.
async fn report_device(job: Job<'_>, models: &Models, last: usize) -> Result<()> {
    for step in job.plan.steps[..=last].iter().filter(|step| step.calls_models()) {
        if staleness::reason(job.session, step).await?.is_some() {
            job.progress.device(&tokio::task::block_in_place(|| models.choose_device())?);
            return Ok(());
        }
    }
    Ok(())
}

/// Whether it is decided which images are kept.
async fn is_kept(pipeline: &Pipeline) -> Result<bool> {
    let Some(step) = pipeline.project.plan.step(schema::KEPT) else { return Ok(false) };
    Ok(staleness::reason(&pipeline.project.session, step).await?.is_none())
}

/// Writes the contact sheet if the kept images changed, or if it is missing.
async fn update_contact_sheet(pipeline: &Pipeline, outcomes: &[Outcome]) -> Result<()> {
    let Some(kept) = outcomes.iter().find(|outcome| outcome.step == schema::KEPT) else { return Ok(()) };
    if !kept.skipped || !report::has_contact_sheet(&pipeline.project).await? {
        report::write_contact_sheet(&pipeline.project).await?;
    }
    Ok(())
}

/// Returns the position of the step that `--until` names.
///
/// # Errors
/// Returns an error that names the steps if there is none.
pub(crate) fn find_step(plan: &Plan, until: &str) -> Result<usize> {
    plan.steps.iter().position(|step| step.table.name == until).ok_or_else(|| {
        let known: Vec<_> = plan.steps.iter().map(|step| format!("`{}`", step.table.name)).collect();
        let message = format!("there is no such step; the steps are {}", known.join(", "));
        let file = format!("--until {until}");
        Diagnostics::from(vec![Diagnostic { file, line: None, key: String::new(), message, help: None }]).into()
    })
}
