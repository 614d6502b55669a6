//! `verify`: exit code 0 where the lake is clean and complete, 1 with the findings otherwise.

use std::process::ExitCode;

use serde_json::json;

use super::{Format, Target, output};
use crate::{error::Result, verify::verify};

pub(super) async fn execute(target: &Target) -> Result<ExitCode> {
    let pipeline = target.open().await?;
    let findings = verify(&pipeline).await?;
    match target.format {
        Format::Json => output::json(&json!({ "findings": findings })),
        Format::Text if findings.is_empty() => output::line("clean: every file whole, no row twice, none missing"),
        Format::Text => {
            for finding in &findings {
                output::line(format!("{}: {}", finding.table, finding.problem));
            }
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
