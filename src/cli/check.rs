//! `check`: every diagnostic at once; opening a pipeline is what finds them.

use std::process::ExitCode;

use serde_json::json;

use super::{Format, Target, output};
use crate::error::Result;

pub(super) async fn execute(target: &Target) -> Result<ExitCode> {
    let pipeline = target.open().await?;
    let steps: Vec<_> = pipeline.project.plan.steps.iter().map(|step| step.table.name.as_str()).collect();
    match target.format {
        Format::Text => output::line(format!(
            "`{}` is sound: {} steps ({}), {} expectations",
            pipeline.project.config.name,
            steps.len(),
            steps.join(", "),
            pipeline.project.plan.expectations.len()
        )),
        Format::Json => output::json(&json!({ "name": pipeline.project.config.name, "steps": steps, "errors": [] })),
    }
    Ok(ExitCode::SUCCESS)
}
