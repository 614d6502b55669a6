//! Alternates with a trainer: runs, waits for its feedback, and runs again, until the curriculum is complete.

use super::{
    job::{Options, Outcome, Progress},
    run,
};
use crate::{
    error::{
        Error, Result,
        text::{join, quote},
    },
    feedback::{self, Awaited},
    pipeline::Pipeline,
};

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(
        "the spectrum validation set has changed since {} measured on it, so no trial can go on\nhint: add a new name to \
         `curriculum.trials` to train anew",
        measured(.trials)
    )]
    Stale { trials: Vec<String> },
}

fn measured(trials: &[String]) -> String {
    let names: Vec<String> = trials.iter().map(|trial| quote(trial)).collect();
    let (plural, was) = if names.len() == 1 { ("", "was") } else { ("s", "were") };
    format!("the trial{plural} {} {was}", join(&names, "and"))
}

/// Runs `pipeline`, and runs it again whenever feedback arrives. Calls `on_wait` with the awaited epochs before it
/// waits. Returns the outcomes of the last run.
///
/// # Errors
/// Returns an error if a run fails; [`Error::Interrupted`] if it was stopped while it waited.
pub(crate) async fn follow(
    pipeline: &mut Pipeline,
    options: &Options,
    progress: &dyn Progress,
    mut on_wait: impl FnMut(&[Awaited]),
) -> Result<Vec<Outcome>> {
    loop {
        let outcomes = run(pipeline, options, progress).await?;
        let awaited = feedback::awaited(&pipeline.project).await?;
        if awaited.is_empty() {
            return Ok(outcomes);
        }
        on_wait(&awaited);
        if awaited.iter().all(|awaited| awaited.stale) {
            return Err(Error::input(FollowError::Stale { trials: awaited.into_iter().map(|it| it.trial).collect() }));
        }
        tokio::select! {
            waited = feedback::wait(&pipeline.project) => waited?,
            () = options.stop.requested() => return Err(Error::Interrupted),
        }
        pipeline.project.reload_feedback().await?;
    }
}
