//! `confidences`: finds out which training images are hard, by the built-in learner.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{Format, Target, output};
use crate::{error::Result, experiment};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// The Parquet file to write, for `hard_samples.confidences`
    file: PathBuf,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { target, file } = arguments;
    let images = experiment::confidences(&target.pipeline, &target.set, file).await?;
    match target.format {
        Format::Json => output::json(&json!({ "images": images })),
        Format::Text => output::line(format!("{images} images; `hard_samples.confidences` takes `{}`", file.display())),
    }
    Ok(ExitCode::SUCCESS)
}
