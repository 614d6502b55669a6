//! `gc`: deletes what no reader of the current version needs; without `--apply` it only says what that is.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{Format, Target, output};
use crate::{error::Result, lake};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Deletes; without it nothing is
    #[arg(long)]
    apply: bool,
    /// Hours that a file stays: younger ones may belong to a run that is about to commit, or to a version that somebody
    /// still reads
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    older_than: u64,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let project = arguments.target.open_project().await?;
    let age = Duration::from_secs(arguments.older_than.saturating_mul(3600));
    let mut garbage = Vec::new();
    for table in project.stored_tables() {
        garbage.extend(lake::gc(project.session.lake(), table, age, arguments.apply).await?);
    }
    let bytes: u64 = garbage.iter().map(|found| found.bytes).sum();
    match arguments.target.format {
        Format::Json => output::json(&json!({ "files": garbage, "bytes": bytes, "deleted": arguments.apply })),
        Format::Text => {
            for found in &garbage {
                output::line(format!("{}/{}: {} bytes", found.table, found.file, found.bytes));
            }
            let done = if arguments.apply { "deleted" } else { "nobody needs them; `--apply` deletes them" };
            output::line(format!("{} files, {bytes} bytes: {done}", garbage.len()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
