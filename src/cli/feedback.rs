//! `feedback`: takes what a trainer measured, for an adaptive curriculum.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{Format, Target, output};
use crate::{error::Result, feedback};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// A Parquet file with curriculum, trial, epoch, phase (before or after), sample_id and probability
    file: PathBuf,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let project = arguments.target.open_project().await?;
    let added = feedback::import(&project, &arguments.file).await?;
    match arguments.target.format {
        Format::Json => output::json(&json!({ "rows": added })),
        Format::Text if added == 0 => output::line("nothing new: all of it is there already"),
        Format::Text => output::line(format!("{added} rows; `discl-pipe run` goes on with them")),
    }
    Ok(ExitCode::SUCCESS)
}
