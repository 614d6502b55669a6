//! The command line: one file per command, and the only place that prints.
//!
//! stdout is data, stderr is progress. Flags say only how a command runs here: what a pipeline means is in
//! its file, and `--set` edits that file before it is read.

mod check;
mod confidences;
mod doctor;
mod experiment;
mod export;
mod feedback;
mod gc;
mod models;
mod output;
mod plan;
mod progress;
mod prompts;
mod run;
mod sql;
mod status;
mod verify;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    error::{self, Error, Result},
    models::onnx::Device,
    models::{FetchProgress, ModelOptions},
    pipeline::{self, Pipeline},
    run::Stop,
    session,
};

/// Threads of the queries; models have their own.
const STACK_BYTES: usize = 16 << 20;

#[derive(Debug, Parser)]
#[command(name = "discl-pipe", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reports everything that is wrong with a pipeline, at once
    Check(Target),
    /// Says what a run would do: steps, reasons, rows, UNet evaluations
    Plan(Target),
    /// Makes what is missing
    Run(run::Arguments),
    /// Takes what a trainer measured, for an adaptive curriculum
    Feedback(feedback::Arguments),
    /// Writes how probable the built-in learner finds each training image's class, out of fold
    Confidences(confidences::Arguments),
    /// Asks a language model for descriptions of the classes, for `{description}` in prompts
    Prompts(prompts::Arguments),
    /// Compares strategies and baselines on the built-in learner
    Experiment(Target),
    /// Writes the manifest with its images for a trainer: WebDataset, image folders or Parquet
    Export(export::Arguments),
    /// Says what is in the lake, and what is left to do
    Status(Target),
    /// Answers queries over the tables, with the models as functions
    Sql(sql::Arguments),
    /// Proves the lake: every file whole, no row twice, none missing
    Verify(verify::Arguments),
    /// Finds files that nobody needs, and deletes them with --apply
    Gc(gc::Arguments),
    /// Looks at models, wherever they are
    Models(models::Arguments),
    /// Shows what works here: runtime, providers, disk
    Doctor(doctor::Arguments),
}

/// A pipeline, and how it runs here.
#[derive(Debug, Clone, Args)]
struct Target {
    /// The pipeline's TOML file
    pipeline: PathBuf,
    /// Where the tables are: a directory or URL, in place of the file's `lake.root`
    #[arg(long, value_name = "URL")]
    lake: Option<String>,
    /// Edits the pipeline before it is read, as in `--set spectrum.seeds=[1,2]`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the models run: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: Device,
    /// The ONNX Runtime library; else ORT_DYLIB_PATH, else the cache, else it is fetched once
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Samples in a batch of the diffusion model
    #[arg(long, value_name = "N")]
    model_batch: Option<std::num::NonZeroUsize>,
    /// Cores that a model may use on the CPU; all of them
    #[arg(long, value_name = "N")]
    model_threads: Option<std::num::NonZeroUsize>,
    /// Partitions that a query is run in; as many as there are cores
    #[arg(long, value_name = "N")]
    target_partitions: Option<std::num::NonZeroUsize>,
    /// Rows of a batch of a query
    #[arg(long, value_name = "N")]
    batch_rows: Option<std::num::NonZeroUsize>,
    /// How results are written to stdout
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people
    #[default]
    Text,
    /// JSON for machines
    Json,
}

impl Target {
    fn options(&self) -> pipeline::Options {
        let defaults = session::Settings::default();
        pipeline::Options {
            set: self.set.clone(),
            lake: self.lake.clone(),
            models: ModelOptions {
                device: self.device.clone(),
                library: self.onnxruntime.clone(),
                batch_size: self.model_batch.map(Into::into),
                threads: self.model_threads.map(Into::into),
            },
            session: session::Settings {
                target_partitions: self.target_partitions.map_or(defaults.target_partitions, Into::into),
                batch_size: self.batch_rows.map_or(defaults.batch_size, Into::into),
                ..defaults
            },
            notes: FetchProgress::new(|line| output::note(line)),
        }
    }

    async fn open(&self) -> Result<Pipeline> {
        Pipeline::open(&self.pipeline, &self.options()).await
    }
}

/// Parses the arguments, runs the command, and says what went wrong.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are no errors
            let code = if error.use_stderr() { 2 } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    let format = cli.command.format();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let result = match runtime {
        Ok(runtime) => {
            let (stop, grace) = (Stop::default(), cli.command.grace());
            let result = runtime.block_on(interruptible(cli.command.execute(&stop), &stop, grace));
            // units that are still in flight are dropped: what they made was not committed
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Error::Data(format!("no threads could be started: {error}"))),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error, format);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ends `work` on Ctrl-C and SIGTERM: it may finish what it has begun for as long as `grace`; a second signal ends it at
/// once.
async fn interruptible(work: impl Future<Output = Result<ExitCode>>, stop: &Stop, grace: Duration) -> Result<ExitCode> {
    let unheard = |error: std::io::Error| Error::Data(format!("signals cannot be heard: {}", error::chain(&error)));
    let mut interrupts = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(unheard)?;
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        _ = interrupts.recv() => {}
        _ = terminations.recv() => {}
    }
    stop.ask();
    if grace > Duration::ZERO {
        output::note(format!("stopping: {} s for what is in flight; once more to stop now", grace.as_secs()));
    }
    tokio::select! {
        result = &mut work => result,
        () = tokio::time::sleep(grace) => Err(Error::Interrupted),
        _ = interrupts.recv() => Err(Error::Interrupted),
        _ = terminations.recv() => Err(Error::Interrupted),
    }
}

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Check(target) | Self::Plan(target) | Self::Experiment(target) | Self::Status(target) => target.format,
            Self::Verify(arguments) => arguments.target.format,
            Self::Gc(arguments) => arguments.target.format,
            Self::Run(arguments) => arguments.target.format,
            Self::Export(arguments) => arguments.target.format,
            Self::Confidences(arguments) => arguments.target.format,
            Self::Prompts(arguments) => arguments.target.format,
            Self::Sql(arguments) => arguments.target.format,
            Self::Feedback(arguments) => arguments.target.format,
            Self::Models(arguments) => arguments.format(),
            Self::Doctor(arguments) => arguments.format,
        }
    }

    /// How long what is in flight may take after a signal.
    fn grace(&self) -> Duration {
        match self {
            Self::Run(arguments) => arguments.grace(),
            Self::Export(_) => export::GRACE,
            _ => Duration::ZERO,
        }
    }

    async fn execute(self, stop: &Stop) -> Result<ExitCode> {
        match self {
            Self::Check(target) => check::execute(&target).await,
            Self::Plan(target) => plan::execute(&target).await,
            Self::Run(arguments) => run::execute(&arguments, stop).await,
            Self::Export(arguments) => export::execute(&arguments, stop).await,
            Self::Status(target) => status::execute(&target).await,
            Self::Sql(arguments) => sql::execute(&arguments).await,
            Self::Feedback(arguments) => feedback::execute(&arguments).await,
            Self::Confidences(arguments) => confidences::execute(&arguments).await,
            Self::Prompts(arguments) => prompts::execute(&arguments).await,
            Self::Experiment(target) => experiment::execute(&target).await,
            Self::Verify(arguments) => verify::execute(&arguments).await,
            Self::Gc(arguments) => gc::execute(&arguments).await,
            Self::Models(arguments) => models::execute(&arguments).await,
            Self::Doctor(arguments) => doctor::execute(&arguments),
        }
    }
}
