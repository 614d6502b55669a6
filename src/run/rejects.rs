//! Forgetting rejects, so that a run tries them again: after a fix of what was wrong with them.

use std::collections::BTreeSet;

use arrow::{array::AsArray, compute::cast, datatypes::DataType};

use crate::{
    error::{Error, Result},
    pipeline::Pipeline,
    report, schema,
};

/// Empties `rejects`, and marks every step from the first that has some as incomplete. Gives the number of rejects. What
/// is known of the lake's tables is out of date afterwards: `pipeline` has to be opened again.
///
/// # Errors
/// Where the lake cannot be read or written.
pub async fn forget_rejects(pipeline: &Pipeline) -> Result<usize> {
    let lake = pipeline.session.lake();
    let table = schema::find(schema::REJECTS).ok_or_else(|| Error::Data("no schema of `rejects`".into()))?;
    let Some(size) = lake.size(table).await?.filter(|size| size.rows > 0) else { return Ok(0) };
    let mut steps = BTreeSet::new();
    for batch in report::rows(pipeline, "report/rejects.sql").await? {
        let names = batch.column_by_name("step").and_then(|names| cast(names, &DataType::Utf8).ok());
        steps.extend(names.iter().flat_map(|names| names.as_string::<i32>()).flatten().map(str::to_owned));
    }
    let first = pipeline.plan.steps.iter().position(|step| steps.contains(&step.table.name));
    for step in pipeline.plan.steps.iter().skip(first.unwrap_or(usize::MAX)) {
        if lake.size(&step.table).await?.is_some() {
            lake.complete(&step.table, 0).await?;
        }
    }
    // last: an interrupted call leaves rejects, and the next one does it all again
    if !lake.replace(table, &[], None, Some(size.version)).await? {
        return Err(Error::Data("another run adds to `rejects`; `--retry-rejects` again when it has ended".into()));
    }
    Ok(size.rows)
}
