//! `feedback`: imports a trainer's measurements for an adaptive curriculum.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    LakeTarget,
    output::{self, Format},
};
use crate::{error::Result, feedback};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: LakeTarget,
    /// A Parquet file: curriculum, trial, epoch, phase, sample_id and probability
    file: PathBuf,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let project = arguments.target.open_project().await?;
    let added = feedback::import(&project, &arguments.file).await?;
    match arguments.target.format {
        Format::Json => output::json(&json!({ "rows": added })),
        Format::Text if added == 0 => output::line("no new rows: the lake has all of them already"),
        Format::Text => output::line(format!(
            "imported {}; `discl-pipe run` continues with {}",
            output::count(added, "row"),
            if added == 1 { "it" } else { "them" }
        )),
    }
    Ok(ExitCode::SUCCESS)
}
