//! `plan`: what a run would do.

use std::process::ExitCode;

use serde_json::json;

use super::{
    LakeTarget, census,
    output::{self, Format},
};
use crate::{
    error::{Result, text::bytes},
    report::{
        self,
        forecast::{Amount, forecast, rate},
    },
};

pub(super) async fn execute(target: &LakeTarget) -> Result<ExitCode> {
    let mut pipeline = target.open().await?;
    pipeline.look_at_sizes().await?;
    let forecast = forecast(&pipeline, None).await?;
    let mut warnings = pipeline.all_warnings();
    warnings.extend(report::unread(pipeline.source.census()));
    warnings.extend(report::nothing_hard(&pipeline, Some(&forecast)).await?);
    warnings.extend(forecast.warnings);
    let forecasts = forecast.steps;
    if target.format == Format::Json {
        output::json(&json!({
            "census": pipeline.source.census(), "steps": forecasts, "warnings": warnings,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(census::text(pipeline.source.census()) + "\n");
    let rate = rate(&pipeline.project).await?;
    let rows: Vec<_> = forecasts
        .iter()
        .map(|step| {
            let rows = step.rows.map_or("?".to_owned(), |rows| range(rows, |count| count.to_string()));
            vec![
                step.step.clone(),
                if step.skipped { "skip" } else { "run" }.to_owned(),
                if step.skipped { String::new() } else { rows },
                step.unet_evaluations.map_or(String::new(), |amount| range(amount, |count| count.to_string())),
                step.seconds.map_or(String::new(), |amount| range(amount, |count| output::duration(count as f64))),
                step.bytes.map_or(String::new(), |amount| range(amount, |count| bytes(count.max(0).unsigned_abs()))),
                step.reason.clone(),
            ]
        })
        .collect();
    output::table(&["step", "", "rows", "UNet evaluations", "time", "size", "why"], &rows);
    let source = if rate.measured { "measured on this lake" } else { "as in the paper, on an RTX A5000" };
    output::note(format!("time is estimated at {:.0} UNet evaluations per second, {source}", rate.unet_evaluations));
    if forecasts.iter().any(|step| !step.skipped && step.rows.is_none()) {
        output::note("`?` is known once the steps before it have run");
    }
    output::warnings(&warnings);
    Ok(ExitCode::SUCCESS)
}

/// What is due, up to what is due at most if further attempts are needed.
fn range(amount: Amount, shown: impl Fn(i64) -> String) -> String {
    let (due, at_most) = (shown(amount.due), shown(amount.at_most));
    if due == at_most { due } else { format!("{due}–{at_most}") }
}
