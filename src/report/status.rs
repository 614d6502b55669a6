//! What the lake of a pipeline holds, table by table.

use crate::{
    error::Result,
    pipeline::{Project, staleness},
    schema::Kind,
};

/// A table as it is now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct TableStatus {
    pub(crate) table: String,
    /// Delta's version; `None` if the table was never written.
    pub(crate) version: Option<u64>,
    /// Live data files.
    pub(crate) files: usize,
    /// Live rows.
    pub(crate) rows: usize,
    /// Whether its step is complete, or why it will run; `log` for a log table.
    pub(crate) state: String,
}

/// Returns the status of every stored table of `project`.
///
/// # Errors
/// Returns an error if a log cannot be read.
pub(crate) async fn status(project: &Project) -> Result<Vec<TableStatus>> {
    let mut found = Vec::new();
    let lake = project.session.lake();
    let reasons = staleness::reasons(project).await?;
    for table in project.stored_tables() {
        let step = project.plan.steps.iter().position(|step| step.table.name == table.name);
        let state = match step.and_then(|step| reasons[step].as_ref()) {
            _ if table.kind == Kind::Log => "log".into(),
            Some(reason) => format!("will run: {reason}"),
            None => "complete".into(),
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
