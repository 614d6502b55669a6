//! `status`: the tables of the lake, and what is left to do.

use std::process::ExitCode;

use serde_json::json;

use super::{
    LakeTarget,
    output::{self, Format},
};
use crate::{error::Result, report, report::status::status};

pub(super) async fn execute(target: &LakeTarget) -> Result<ExitCode> {
    let project = target.open_project().await?;
    let tables = status(&project).await?;
    let levels = report::levels(&project).await?;
    let warnings = project.session.lake().warnings();
    if target.format == Format::Json {
        output::json(&json!({ "tables": tables, "levels": levels, "warnings": warnings }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = tables
        .iter()
        .map(|table| {
            vec![
                table.table.clone(),
                table.version.map_or("-".into(), |version| version.to_string()),
                table.files.to_string(),
                table.rows.to_string(),
                table.state.clone(),
            ]
        })
        .collect();
    output::table(&["table", "version", "files", "rows", "state"], &rows);
    if !levels.is_empty() {
        output::line("");
        output::tables(&report::tables(&project).await?);
    }
    output::warnings(&warnings);
    Ok(ExitCode::SUCCESS)
}
