//! What is in the lake of a pipeline, table by table.

use crate::{
    error::Result,
    pipeline::{Pipeline, staleness::why},
    schema::Kind,
};

/// A table as it is now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TableStatus {
    /// Its name.
    pub table: String,
    /// Delta's version; none where it was never written.
    pub version: Option<u64>,
    /// Live data files.
    pub files: usize,
    /// Live rows.
    pub rows: usize,
    /// Whether its step is complete, or why it will run.
    pub state: String,
}

/// Every table of `pipeline` that is written.
///
/// # Errors
/// Where a log cannot be read.
pub async fn status(pipeline: &Pipeline) -> Result<Vec<TableStatus>> {
    let mut found = Vec::new();
    let lake = pipeline.session.lake();
    for table in pipeline.tables() {
        let state = match pipeline.plan.steps.iter().find(|step| step.table.name == table.name) {
            Some(step) => why(&pipeline.session, &pipeline.own_tables, step).await?,
            None => None,
        };
        let state = match (state, &table.kind) {
            (_, Kind::Journal) => "journal".into(),
            (Some(reason), _) => format!("will run: {reason}"),
            (None, _) => "complete".into(),
        };
        let size = lake.size(table).await?;
        found.push(TableStatus {
            table: table.name.clone(),
            version: size.map(|size| size.version),
            files: size.map_or(0, |size| size.files),
            rows: size.map_or(0, |size| size.rows),
            state,
        });
    }
    Ok(found)
}
