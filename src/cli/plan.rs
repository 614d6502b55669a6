//! `plan`: what a run would do, before it does it.

use std::process::ExitCode;

use super::{Format, Target, output};
use crate::{
    error::Result,
    report::forecast::{Amount, forecast, rate},
};

pub(super) async fn execute(target: &Target) -> Result<ExitCode> {
    let pipeline = target.open().await?;
    let forecasts = forecast(&pipeline).await?;
    if target.format == Format::Json {
        output::json(&forecasts);
        return Ok(ExitCode::SUCCESS);
    }
    let rate = rate(&pipeline.project).await?;
    let rows: Vec<_> = forecasts
        .iter()
        .map(|step| {
            vec![
                step.step.clone(),
                if step.skipped { "skip" } else { "run" }.to_owned(),
                if step.skipped { String::new() } else { step.rows.map_or("?".into(), amount) },
                step.unet_evaluations.map_or(String::new(), amount),
                step.seconds.map_or(String::new(), hours),
                step.bytes.map_or(String::new(), gigabytes),
                step.reason.clone(),
            ]
        })
        .collect();
    output::table(&["step", "", "rows", "UNet evaluations", "hours", "GB", "why"], &rows);
    let (speed, whose) =
        (rate.unet_evaluations, if rate.measured { "this lake's so far" } else { "the paper's, on one RTX A5000" });
    output::note(format!("hours are by {speed:.0} UNet evaluations a second: {whose}"));
    Ok(ExitCode::SUCCESS)
}

fn hours(seconds: Amount) -> String {
    in_units(seconds, 3600.0)
}

fn gigabytes(bytes: Amount) -> String {
    in_units(bytes, 1e9)
}

fn in_units(amount: Amount, unit: f64) -> String {
    let text = |amount: i64| format!("{:.1}", amount as f64 / unit);
    let (due, at_most) = (text(amount.due), text(amount.at_most));
    if due == at_most { due } else { format!("{due}–{at_most}") }
}

fn amount(amount: Amount) -> String {
    if amount.due == amount.at_most { amount.due.to_string() } else { format!("{}–{}", amount.due, amount.at_most) }
}
