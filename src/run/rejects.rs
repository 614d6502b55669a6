//! Clears rejects, so that the next run tries them again after their cause was fixed.

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    pipeline::Project,
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
    let lake = project.session.lake();
    let Some(size) = lake.size(&REJECTS_TABLE).await?.filter(|size| size.rows > 0) else { return Ok(0) };
    let mut rejecting = BTreeSet::new();
    for columns in project.query("report/rejects.sql").await?.columns() {
        rejecting.extend(columns.strings("step")?.iter().flatten().map(str::to_owned));
    }
    let steps = project.plan.steps.iter().skip_while(|step| !rejecting.contains(&step.table.name));
    for step in steps {
        if lake.size(&step.table).await?.is_some() {
            lake.complete(&step.table, 0).await?;
        }
    }
    // This comes last: if the call is interrupted, the rejects are still there and the next call repeats everything.
    if !lake.replace(&REJECTS_TABLE, &[], None, Some(size.version)).await? {
        return Err(Error::failed(Contended));
    }
    Ok(size.rows)
}
