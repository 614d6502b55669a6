//! `plan`: what a run would do, before it does it.

use std::process::ExitCode;

use super::{Format, Target, output};
use crate::{
    error::Result,
    forecast::{Amount, forecast},
};

pub(super) async fn execute(target: &Target) -> Result<ExitCode> {
    let pipeline = target.open().await?;
    let forecasts = forecast(&pipeline).await?;
    if target.format == Format::Json {
        output::json(&forecasts);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = forecasts
        .iter()
        .map(|step| {
            vec![
                step.step.clone(),
                if step.skipped { "skip" } else { "run" }.to_owned(),
                if step.skipped { String::new() } else { step.rows.map_or("?".into(), amount) },
                step.unet_evaluations.map_or(String::new(), amount),
                step.reason.clone(),
            ]
        })
        .collect();
    output::table(&["step", "", "rows", "UNet evaluations", "why"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn amount(amount: Amount) -> String {
    if amount.due == amount.at_most { amount.due.to_string() } else { format!("{}–{}", amount.due, amount.at_most) }
}
