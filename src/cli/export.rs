//! `export`: writes the manifest and its images for a trainer.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    LakeTarget,
    output::{self, Format},
    progress::Bars,
};
use crate::{
    error::{Result, text::bytes},
    export::{self, Epochs, Options, ShardSize},
    run::Stop,
};

/// How long the export of a chunk may take after a signal.
pub(super) const GRACE: Duration = Duration::from_secs(25);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: LakeTarget,
    /// The directory or URL to write to
    destination: String,
    /// The format of the files
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    export_format: As,
    /// An epoch, or the first and last of several, as in 3..5 [default: all]
    #[arg(long, value_name = "N|A..B")]
    epoch: Option<Epochs>,
    /// The curriculum; required if the manifest has several
    #[arg(long, value_name = "NAME")]
    curriculum: Option<String>,
    /// The trial; required if the manifest has several
    #[arg(long, value_name = "T")]
    trial: Option<String>,
    /// Approximate size of a tar shard or Parquet file
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    shard_size: ShardSize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum As {
    Webdataset,
    Imagefolder,
    Parquet,
}

pub(super) async fn execute(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    let project = arguments.target.open_project().await?;
    let options = Options {
        format: match arguments.export_format {
            As::Webdataset => export::Format::WebDataset,
            As::Imagefolder => export::Format::ImageFolder,
            As::Parquet => export::Format::Parquet,
        },
        epochs: arguments.epoch.unwrap_or_default(),
        curriculum: arguments.curriculum.clone(),
        trial: arguments.trial.clone(),
        shard_size: arguments.shard_size,
        stop: stop.clone(),
    };
    let summary =
        export::export(&project, &arguments.destination, &options, &Bars::new(), &|note| output::note(note)).await?;
    if let Some(reason) = &summary.stale {
        output::note(format!(
            "warning: exported a manifest that is not up to date ({reason})\nhint: `discl-pipe run` updates it; then export \
             it to another destination"
        ));
    }
    match arguments.target.format {
        Format::Json => output::json(&summary),
        Format::Text => {
            let complete = match summary.complete.len() {
                0 => String::new(),
                count => format!("; {} already complete", output::count(count, "epoch")),
            };
            output::line(format!(
                "{}, {}, {}, {} of images in {}{complete}",
                output::count(summary.epochs.len(), "epoch"),
                output::count(summary.rows, "row"),
                output::count(summary.files, "file"),
                bytes(summary.image_bytes),
                summary.destination
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}
