//! `confidences`: finds hard training images with the built-in learner.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    FileTarget,
    output::{self, Format},
};
use crate::{error::Result, experiment};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: FileTarget,
    /// The Parquet file to write, for `hard_samples.confidences`
    file: PathBuf,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { target, file } = arguments;
    let images = experiment::confidences(&target.file.pipeline, &target.file.set, file).await?;
    match target.format {
        Format::Json => output::json(&json!({ "images": images })),
        Format::Text => output::line(format!(
            "wrote `{0}` with {1}; use it as `hard_samples.confidences = \"{0}\"`",
            file.display(),
            output::count(images, "image")
        )),
    }
    Ok(ExitCode::SUCCESS)
}
