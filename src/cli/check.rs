//! `check`: reports all problems at once. Opening a pipeline finds those of everything that it names.

use std::process::ExitCode;

use serde_json::json;

use super::{
    LakeTarget, census,
    output::{self, Format},
};
use crate::{
    error::Result,
    report::{self, forecast::forecast},
    schema::HARD_SAMPLES,
};

pub(super) async fn execute(target: &LakeTarget) -> Result<ExitCode> {
    let mut pipeline = target.open().await?;
    pipeline.project.check_lake().await?;
    pipeline.look_at_sizes().await?;
    let mut warnings = pipeline.all_warnings();
    warnings.extend(report::unread(pipeline.source.census()));
    let forecast = forecast(&pipeline, Some(HARD_SAMPLES)).await?;
    warnings.extend(report::nothing_hard(&pipeline, Some(&forecast)).await?);
    warnings.extend(forecast.warnings);
    let steps: Vec<_> = pipeline.project.plan.steps.iter().map(|step| step.table.name.as_str()).collect();
    match target.format {
        Format::Text => {
            output::line(census::text(pipeline.source.census()));
            output::line(format!(
                "`{}` is sound: {} ({}), {}",
                pipeline.project.config.name,
                output::count(steps.len(), "step"),
                steps.join(", "),
                output::count(pipeline.project.config.expect.len(), "expectation")
            ));
            output::warnings(&warnings);
        }
        Format::Json => output::json(&json!({
            "name": pipeline.project.config.name, "steps": steps, "errors": [],
            "census": pipeline.source.census(), "warnings": warnings,
        })),
    }
    Ok(ExitCode::SUCCESS)
}
