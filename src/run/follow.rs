//! Alternates with a trainer: runs, waits for its feedback, and runs again, until the curriculum is complete.

use super::{
    job::{Options, Outcome, Progress},
    run,
};
use crate::{
    error::{Error, Result},
    feedback::{self, Awaited},
    pipeline::Pipeline,
};

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
        tokio::select! {
            waited = feedback::wait(&pipeline.project) => waited?,
            () = options.stop.requested() => return Err(Error::Interrupted),
        }
        pipeline.project.reload_feedback().await?;
    }
}
