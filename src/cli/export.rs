//! `export`: the manifest out to a trainer, with its images.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{Format, Target, output, progress::Bars};
use crate::{
    error::Result,
    export::{self, Bound, Epochs, Options},
    run::Stop,
};

/// How long the chunk that is being written may take after a signal.
pub(super) const GRACE: Duration = Duration::from_secs(25);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Where the files go: a directory or URL
    destination: String,
    /// What they are
    #[arg(long = "as", value_enum, value_name = "FORM")]
    form: Form,
    /// One epoch, or the first and the last of several, as in 3..5; all of them
    #[arg(long, value_name = "N|A..B")]
    epoch: Option<Epochs>,
    /// The curriculum, where the manifest has several
    #[arg(long, value_name = "NAME")]
    curriculum: Option<String>,
    /// The trial, where the manifest has several
    #[arg(long, value_name = "T")]
    trial: Option<String>,
    /// About how large a tar shard or a Parquet file is
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    shard_size: Bound,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Tar shards: NAME-epochNNNN-SSSSSS.tar
    Webdataset,
    /// A folder for each label: epoch_NNNN/LABEL/POSITION.png
    Imagefolder,
    /// Parquet files: epoch_NNNN/part-SSSSS.parquet
    Parquet,
}

pub(super) async fn execute(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    let project = arguments.target.open_project().await?;
    let options = Options {
        form: match arguments.form {
            Form::Webdataset => export::Form::WebDataset,
            Form::Imagefolder => export::Form::ImageFolder,
            Form::Parquet => export::Form::Parquet,
        },
        epochs: arguments.epoch.unwrap_or_default(),
        curriculum: arguments.curriculum.clone(),
        trial: arguments.trial.clone(),
        shard_size: arguments.shard_size,
        stop: stop.clone(),
    };
    let summary = export::export(&project, &arguments.destination, &options, &Bars::new()).await?;
    if let Some(reason) = &summary.stale {
        output::note(format!("the manifest is not up to date ({reason}): what was written is the manifest as it was"));
    }
    match arguments.target.format {
        Format::Json => output::json(&summary),
        Format::Text => output::line(format!(
            "{} epochs, {} rows, {} files, {} bytes of images in {}",
            summary.epochs.len(),
            summary.rows,
            summary.files,
            summary.image_bytes,
            summary.destination
        )),
    }
    Ok(ExitCode::SUCCESS)
}
