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
    lake::{Collector, Garbage},
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
    let (lake, tables) = (project.session.lake(), project.stored_tables().collect());
    let (mut collector, mut garbage) = Collector::find(lake, tables, age, arguments.apply).await?;
    let mut failed = None;
    if arguments.apply {
        let mut deleted = Vec::new();
        for found in garbage {
            match collector.delete(&found).await {
                Ok(true) => deleted.push(found),
                Ok(false) => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        garbage = deleted;
    }
    print(arguments, &garbage);
    // What was deleted before is named all the same.
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn print(arguments: &Arguments, garbage: &[Garbage]) {
    let total: u64 = garbage.iter().map(|found| found.bytes).sum();
    match arguments.target.format {
        Format::Json => output::json(&json!({ "files": garbage, "bytes": total, "deleted": arguments.apply })),
        Format::Text => {
            for found in garbage {
                output::line(format!("{}: {}", found.name(), bytes(found.bytes)));
            }
            let files = output::count(garbage.len(), "file");
            match (garbage.is_empty(), arguments.apply) {
                (true, _) => output::line(format!("no files to delete that are older than {} h", arguments.older_than)),
                (false, true) => output::line(format!("deleted {files}, {}", bytes(total))),
                (false, false) => output::line(format!("{files}, {}; delete with `--apply`", bytes(total))),
            }
        }
    }
}
