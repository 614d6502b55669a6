//! Clears rejects, so that the next run tries them again after their cause was fixed, and notices if another program has.

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    lake::Lake,
    pipeline::Project,
    plan::Step,
    schema::REJECTS_TABLE,
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
    notice_changes(project).await?;
    let lake = project.session.lake();
    let Some(size) = lake.size(&REJECTS_TABLE).await?.filter(|size| size.rows > 0) else { return Ok(0) };
    let mut rejecting = BTreeSet::new();
    for columns in project.query("report/rejects.sql").await?.columns() {
        rejecting.extend(columns.strings("step")?.iter().flatten().map(str::to_owned));
    }
    let steps = &project.plan.steps;
    let first = steps.iter().position(|step| rejecting.contains(&step.table.name)).unwrap_or(steps.len());
    reset(lake, &steps[first..]).await?;
    // This comes last: if the call is interrupted, the rejects are still there and the next call repeats everything.
    if !lake.replace(&REJECTS_TABLE, &[], None, Some(size.version)).await? {
        return Err(Error::failed(Contended));
    }
    Ok(size.rows)
}

/// Marks the steps as incomplete if another program has changed `rejects`, because rows that it removed are missing now.
///
/// # Errors
/// Returns an error if the lake cannot be read or written.
pub(super) async fn notice_changes(project: &Project) -> Result<()> {
    let lake = project.session.lake();
    if lake.changed(&REJECTS_TABLE).await?.is_none() {
        return Ok(());
    }
    let seen = lake.size(&REJECTS_TABLE).await?.map_or(0, |size| size.version);
    reset(lake, &project.plan.steps).await?;
    lake.complete(&REJECTS_TABLE, 0, seen).await
}

/// Marks the tables of `steps` that exist as incomplete.
///
/// # Errors
/// Returns an error if the lake cannot be read or written.
pub(super) async fn reset(lake: &Lake, steps: &[Step]) -> Result<()> {
    for step in steps {
        if lake.size(&step.table).await?.is_some() {
            lake.reset(&step.table).await?;
        }
    }
    Ok(())
}
