//! `verify`: exits with 0 if the lake is clean and complete, otherwise with 1 and the findings.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Target,
    output::{self, Format},
};
use crate::{error::Result, report::verify::verify};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Also compare with the source, decode all images, and reproduce some images and scores
    #[arg(long)]
    deep: bool,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let target = &arguments.target;
    let project = match arguments.deep {
        true => target.open().await?.project,
        false => target.open_project().await?,
    };
    let findings = verify(&project, arguments.deep).await?;
    match target.format {
        Format::Json => output::json(&json!({ "findings": findings })),
        Format::Text if findings.is_empty() => {
            output::line("clean: every file is intact, no row is missing or duplicated")
        }
        Format::Text => {
            for finding in &findings {
                output::line(format!("{}: {}", finding.table, finding.problem));
            }
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
