//! Clears rejects, so that the next run tries them again after their cause was fixed, and notices if another program has.

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    lake::Lake,
    pipeline::Project,
    plan::Step,
    schema::{REJECTS, REJECTS_TABLE, columns::Columns},
    session::Session,
    storage::simulated::{Mutant, has},
};

#[derive(Debug, thiserror::Error)]
#[error("another run adds to `rejects`\nhint: use `--retry-rejects` again when it has ended")]
struct Contended;

/// Empties `rejects`. Marks the first step that has rejects, and all later steps, as incomplete. Returns the number of
/// rejects.
///
/// # Errors
/// Returns an error if the lake cannot be read or written, or if another run adds rejects meanwhile.
pub(crate) async fn clear_rejects(project: &Project) -> Result<usize> {
    project.check_lake().await?;
    clear(&project.session, &project.plan.steps).await
}

/// Like [`clear_rejects`], of the pipeline with these `steps`.
pub(super) async fn clear(session: &Session, steps: &[Step]) -> Result<usize> {
    let lake = session.lake();
    notice_changes(lake, steps).await?;
    let Some(size) = lake.size(&REJECTS_TABLE).await?.filter(|size| size.rows > 0) else { return Ok(0) };
    let rejecting = rejecting(session).await?;
    let first = steps.iter().position(|step| rejecting.contains(&step.table.name)).unwrap_or(steps.len());
    // From this commit on no step is complete. If the call is interrupted, the next run resets them all.
    if !lake.clear(&REJECTS_TABLE, size.version).await? {
        return Err(Error::failed(Contended));
    }
    if !has(Mutant::ForgetReset) {
        reset(lake, &steps[first..]).await?;
    }
    lake.complete(&REJECTS_TABLE, 0, size.version + 1).await?;
    Ok(size.rows)
}

/// Returns the steps that have rejects.
async fn rejecting(session: &Session) -> Result<BTreeSet<String>> {
    let fail = |error| Error::query(REJECTS, error);
    let context = session.context(&session.snapshot().await?)?;
    let rows = context.table(REJECTS).await.and_then(|rows| rows.select_columns(&["step"])).map_err(fail)?;
    let mut rejecting = BTreeSet::new();
    for batch in rows.collect().await.map_err(fail)? {
        rejecting.extend(Columns::new(REJECTS, &batch).strings("step")?.iter().flatten().map(str::to_owned));
    }
    Ok(rejecting)
}

/// Marks the steps as incomplete if another program has changed `rejects`, because rows that it removed are missing now.
///
/// # Errors
/// Returns an error if the lake cannot be read or written.
pub(super) async fn notice_changes(lake: &Lake, steps: &[Step]) -> Result<()> {
    if lake.changed(&REJECTS_TABLE).await?.is_none() {
        return Ok(());
    }
    let seen = lake.size(&REJECTS_TABLE).await?.map_or(0, |size| size.version);
    reset(lake, steps).await?;
    lake.complete(&REJECTS_TABLE, 0, seen).await
}

/// Marks the tables of `steps` as incomplete. Creates those that were never written, because a run in progress may be about
/// to create one with rows that it has computed before.
///
/// # Errors
/// Returns an error if the lake cannot be read or written.
pub(super) async fn reset(lake: &Lake, steps: &[Step]) -> Result<()> {
    for step in steps {
        lake.reset(&step.table).await?;
    }
    Ok(())
}
