//! `verify`: exit code 0 where the lake is clean and complete, 1 with the findings otherwise.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Format, Target, output};
use crate::{error::Result, report::verify::verify};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Decodes every image, and makes some images and scores again from what is recorded of them
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
        Format::Text if findings.is_empty() => output::line("clean: every file whole, no row twice, none missing"),
        Format::Text => {
            for finding in &findings {
                output::line(format!("{}: {}", finding.table, finding.problem));
            }
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
