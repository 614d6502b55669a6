//! `gc`: lists the files that no table needs, and deletes them with `--apply`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    LakeTarget,
    output::{self, Format},
};
use crate::{
    error::{Result, text::bytes},
    lake,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: LakeTarget,
    /// Delete the files; otherwise they are only listed
    #[arg(long)]
    apply: bool,
    /// Keep files younger than this: a run may be about to commit them
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
    let total: u64 = garbage.iter().map(|found| found.bytes).sum();
    match arguments.target.format {
        Format::Json => output::json(&json!({ "files": garbage, "bytes": total, "deleted": arguments.apply })),
        Format::Text => {
            for found in &garbage {
                output::line(format!("{}/{}: {}", found.table, found.file, bytes(found.bytes)));
            }
            let files = output::count(garbage.len(), "file");
            match (garbage.is_empty(), arguments.apply) {
                (true, _) => output::line(format!("no files to delete that are older than {} h", arguments.older_than)),
                (false, true) => output::line(format!("deleted {files}, {}", bytes(total))),
                (false, false) => output::line(format!("{files}, {}; delete with `--apply`", bytes(total))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
