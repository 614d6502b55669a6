//! The command line: one file per command, and the only place that prints.
//!
//! stdout is data, stderr is progress. Flags only say how a command runs here: what a pipeline means is in its file, and
//! `--set` edits that file before it is read.

/// Examples at the end of a help page, under a heading in clap's style.
macro_rules! examples {
    ($text:literal) => {
        concat!("\u{1b}[1m\u{1b}[4mExamples:\u{1b}[0m\n", $text)
    };
}

mod census;
mod check;
mod confidences;
mod doctor;
mod experiment;
mod export;
mod feedback;
mod gc;
mod logs;
mod mistakes;
mod models;
mod output;
mod plan;
mod progress;
mod prompts;
mod run;
mod runtime;
mod sql;
mod status;
mod target;
mod verify;

use std::{io::ErrorKind, os::unix::process::CommandExt, path::Path, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    output::Format,
    target::{FileTarget, LakeTarget, Target},
};
use crate::{
    error::{Error, Result, catch_panic},
    models::onnx::Runtime,
    run::Stop,
};

/// Stack of a thread that runs queries; the plans of long queries are deep. Models have their own threads.
const STACK_BYTES: usize = 16 << 20;

#[derive(Debug, Parser)]
#[command(
    name = "discl-pipe",
    version,
    about = concat!(
        "Turn an image data set with rare or poor images into a diffusion curriculum\n",
        "\n",
        "discl-pipe finds the hard images of a data set, generates a spectrum of variants of each with a\n",
        "diffusion model, keeps those that CLIP accepts, and writes which images to train on in each epoch.\n",
        "One TOML file, the pipeline, describes all of it. All results are tables in a Delta lake, and every\n",
        "command continues where an earlier one stopped."
    ),
    after_help = concat!(
        "\u{1b}[1m\u{1b}[4mStart here:\u{1b}[0m\n",
        "  discl-pipe check pipelines/digits_lt.toml   # a pipeline with its own data and models\n",
        "  discl-pipe plan  pipelines/digits_lt.toml\n",
        "  discl-pipe run   pipelines/digits_lt.toml\n",
        "\n",
        "See docs/quickstart.md for a pipeline of your own images, and docs/reference.md for every key."
    ),
)]
struct Cli {
    /// How to write logs, which RUST_LOG turns on, as in `RUST_LOG=info`
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", display_order = target::LAST + 1)]
    log_format: logs::LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a pipeline and report all of its problems at once
    #[command(after_help = examples!("  discl-pipe check mine.toml"))]
    Check(LakeTarget),
    /// Show what a run would do: steps, reasons, rows, time and space
    #[command(after_help = examples!(
        "  discl-pipe plan mine.toml\n  discl-pipe plan mine.toml --set filter.min_text_similarity=0.3"
    ))]
    Plan(LakeTarget),
    /// Run the steps that are not up to date
    #[command(after_help = examples!(
        "  discl-pipe run mine.toml\n  discl-pipe run mine.toml --until spectrum --device cuda\n  \
         discl-pipe run mine.toml --lake s3://bucket/lake --shard 0/4"
    ))]
    Run(run::Arguments),
    /// Show the tables of the lake and what is left to do
    #[command(after_help = examples!("  discl-pipe status mine.toml"))]
    Status(LakeTarget),
    /// Verify the lake: every file intact, no row missing or duplicated
    #[command(after_help = examples!(
        "  discl-pipe verify mine.toml\n  discl-pipe verify mine.toml --deep\n  \
         discl-pipe verify mine.toml --repair --dry-run"
    ))]
    Verify(verify::Arguments),
    /// Query the tables, with the models as functions
    #[command(after_help = examples!(
        "  discl-pipe sql mine.toml \"SELECT class_name, count(*) FROM kept GROUP BY 1\"\n  \
         discl-pipe sql mine.toml --file query.sql --format csv > rows.csv\n  \
         discl-pipe sql mine.toml"
    ))]
    Sql(sql::Arguments),
    /// Export the manifest and its images for a trainer
    #[command(after_help = examples!(
        "  discl-pipe export mine.toml out --as webdataset\n  \
         discl-pipe export mine.toml s3://bucket/out --as parquet --epoch 0..9\n\n\
         webdataset writes NAME-epochNNNN-SSSSSS.tar, imagefolder epoch_NNNN/LABEL/POSITION.png, and\n\
         parquet epoch_NNNN/part-SSSSS.parquet."
    ))]
    Export(export::Arguments),
    /// Import a trainer's measurements for an adaptive curriculum
    #[command(after_help = examples!("  discl-pipe feedback mine.toml epoch_3.parquet"))]
    Feedback(feedback::Arguments),
    /// Compare strategies and baselines with the built-in learner
    #[command(after_help = examples!(
        "  discl-pipe experiment pipelines/digits_lt.toml\n  \
         discl-pipe experiment pipelines/digits_lt.toml --rows digits_lt.csv"
    ))]
    Experiment(experiment::Arguments),
    /// Write out-of-fold class probabilities of the training images, by the built-in learner
    #[command(after_help = examples!("  discl-pipe confidences mine.toml confidences.parquet"))]
    Confidences(confidences::Arguments),
    /// Ask a language model for descriptions of the classes
    #[command(after_help = examples!(
        "  discl-pipe prompts mine.toml descriptions.jsonl --model gpt-4o-mini\n  \
         OPENAI_BASE_URL=http://localhost:8000/v1 discl-pipe prompts mine.toml descriptions.jsonl --model llama3\n\n\
         The endpoint is OPENAI_BASE_URL [default: https://api.openai.com/v1], its key is OPENAI_API_KEY, which a\n\
         local server may not need."
    ))]
    Prompts(prompts::Arguments),
    /// Inspect models in a directory, a bucket or on the Hugging Face Hub
    Models(models::Arguments),
    /// Fetch ONNX Runtime, for the CPU or for CUDA
    Runtime(runtime::Arguments),
    /// Show what works on this machine: ONNX Runtime, devices, credentials
    #[command(after_help = examples!("  discl-pipe doctor"))]
    Doctor(doctor::Arguments),
    /// List files that no table needs, and delete them with --apply
    #[command(after_help = examples!("  discl-pipe gc mine.toml\n  discl-pipe gc mine.toml --apply"))]
    Gc(gc::Arguments),
}

/// Turns off telemetry in ONNX Runtime: later versions send it as soon as they are loaded.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// Starts this program again in place of itself, with [`NO_TELEMETRY`], if it may load a version that sends telemetry. A
/// process cannot set its own variables while it has threads.
fn start_without_telemetry() {
    let names_library = std::env::args_os().any(|argument| argument.to_string_lossy().starts_with("--onnxruntime"));
    if std::env::var_os(NO_TELEMETRY).is_some() || !(names_library || Runtime::may_send_telemetry()) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // Returns only if it fails.
        let error = command.args(arguments).env(NO_TELEMETRY, "1").exec();
        output::note(format!("warning: ONNX Runtime may send telemetry ({error})\nhint: set {NO_TELEMETRY}=1"));
    }
}

/// Parses the arguments, runs the command, and reports its error.
pub fn main() -> ExitCode {
    start_without_telemetry();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = mistakes::explain(error);
            // Help and version arrive as errors, too.
            let code = if error.use_stderr() { 2 } else { 0 };
            return match error.print() {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    fail(&CliError::Stdout(error.to_string()).into(), Format::Text)
                }
                _ => ExitCode::from(code),
            };
        }
    };
    let format = cli.command.format();
    if let Err(error) = logs::init(cli.log_format) {
        return fail(&error.into(), format);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let result = match runtime {
        Ok(runtime) => {
            let (stop, grace) = (Stop::default(), cli.command.grace());
            let result = runtime.block_on(interruptible(catch_panic(cli.command.execute(&stop)), &stop, grace));
            // Units that are still in flight are dropped: nothing of them was committed.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(CliError::Threads(error).into()),
    };
    match result.and_then(|code| Ok(output::check_stdout().map(|()| code)?)) {
        Ok(code) => code,
        Err(error) => fail(&error, format),
    }
}

fn fail(error: &Error, format: Format) -> ExitCode {
    output::error(error, format);
    ExitCode::from(error.exit_code())
}

/// Ends `work` on Ctrl-C and SIGTERM: it may finish what it has begun for as long as `grace`. A second signal ends it
/// immediately.
async fn interruptible(work: impl Future<Output = Result<ExitCode>>, stop: &Stop, grace: Duration) -> Result<ExitCode> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(CliError::Signals)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(CliError::Signals)?;
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        _ = interrupts.recv() => {}
        _ = terminations.recv() => {}
    }
    stop.request();
    if grace > Duration::ZERO {
        output::note(format!(
            "stopping: {} s for what is in flight; press Ctrl-C again to stop immediately",
            grace.as_secs()
        ));
    }
    tokio::select! {
        result = &mut work => result,
        () = tokio::time::sleep(grace) => Err(Error::Interrupted),
        _ = interrupts.recv() => Err(Error::Interrupted),
        _ = terminations.recv() => Err(Error::Interrupted),
    }
}

impl Command {
    /// The pipeline that the command names.
    fn pipeline(&self) -> Option<&Path> {
        let file = match self {
            Self::Check(target) | Self::Plan(target) | Self::Status(target) => &target.file,
            Self::Run(arguments) => &arguments.target.file,
            Self::Verify(arguments) => &arguments.target.file,
            Self::Sql(arguments) => &arguments.file,
            Self::Export(arguments) => &arguments.target.file,
            Self::Feedback(arguments) => &arguments.target.file,
            Self::Experiment(arguments) => &arguments.target.file,
            Self::Confidences(arguments) => &arguments.target.file,
            Self::Prompts(arguments) => &arguments.target.file,
            Self::Gc(arguments) => &arguments.target.file,
            Self::Models(_) | Self::Runtime(_) | Self::Doctor(_) => return None,
        };
        Some(&file.pipeline)
    }

    fn format(&self) -> Format {
        match self {
            Self::Check(target) | Self::Plan(target) | Self::Status(target) => target.format,
            Self::Run(arguments) => arguments.target.format,
            Self::Verify(arguments) => arguments.target.format,
            Self::Sql(arguments) => arguments.format(),
            Self::Export(arguments) => arguments.target.format,
            Self::Feedback(arguments) => arguments.target.format,
            Self::Experiment(arguments) => arguments.target.format,
            Self::Confidences(arguments) => arguments.target.format,
            Self::Prompts(arguments) => arguments.target.format,
            Self::Models(arguments) => arguments.format(),
            Self::Runtime(arguments) => arguments.format(),
            Self::Doctor(arguments) => arguments.format,
            Self::Gc(arguments) => arguments.target.format,
        }
    }

    /// How long work in flight may take after a signal.
    fn grace(&self) -> Duration {
        match self {
            Self::Run(arguments) => arguments.grace(),
            Self::Export(_) => export::GRACE,
            _ => Duration::ZERO,
        }
    }

    async fn execute(self, stop: &Stop) -> Result<ExitCode> {
        if let Some(pipeline) = self.pipeline() {
            mistakes::check_pipeline(pipeline)?;
        }
        match self {
            Self::Check(target) => check::execute(&target).await,
            Self::Plan(target) => plan::execute(&target).await,
            Self::Run(arguments) => run::execute(&arguments, stop).await,
            Self::Status(target) => status::execute(&target).await,
            Self::Verify(arguments) => verify::execute(&arguments).await,
            Self::Sql(arguments) => sql::execute(&arguments).await,
            Self::Export(arguments) => export::execute(&arguments, stop).await,
            Self::Feedback(arguments) => feedback::execute(&arguments).await,
            Self::Experiment(target) => experiment::execute(&target).await,
            Self::Confidences(arguments) => confidences::execute(&arguments).await,
            Self::Prompts(arguments) => prompts::execute(&arguments).await,
            Self::Models(arguments) => models::execute(&arguments).await,
            Self::Runtime(arguments) => runtime::execute(&arguments),
            Self::Doctor(arguments) => doctor::execute(&arguments),
            Self::Gc(arguments) => gc::execute(&arguments).await,
        }
    }
}

/// Why the command line failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot read `{path}`")]
    File { path: String, source: std::io::Error },
    #[error("cannot read stdin")]
    Stdin(#[source] std::io::Error),
    #[error("cannot write to stdout: {0}\nhint: the output is incomplete; write it to a place with space")]
    Stdout(String),
    #[error("`{variable}` is not a log filter\nhint: use a level such as `info`, or `discl_pipe=debug`")]
    LogFilter { variable: &'static str, source: tracing_subscriber::filter::ParseError },
    #[error("cannot turn on logs")]
    Logs(#[source] tracing::subscriber::SetGlobalDefaultError),
}

impl From<CliError> for Error {
    fn from(error: CliError) -> Self {
        match error {
            CliError::File { .. } | CliError::LogFilter { .. } => Self::input(error),
            CliError::Threads(_)
            | CliError::Signals(_)
            | CliError::Stdin(_)
            | CliError::Stdout(_)
            | CliError::Logs(_) => Self::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command has a summary, an example, and a description of each option that fits on a line.
    #[test]
    fn every_command_has_an_example_and_short_descriptions() {
        let mut cli = Cli::command();
        cli.build();
        for command in
            cli.get_subcommands().filter(|command| !matches!(command.get_name(), "models" | "runtime" | "help"))
        {
            let name = command.get_name();
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("discl-pipe {name} ")) || name == "doctor", "{name}: {examples}");
            for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
                let help = option.get_help().map(ToString::to_string).unwrap_or_default();
                assert!((1..=88).contains(&help.chars().count()), "{name}: {}: {help}", option.get_id());
                assert!(!help.ends_with('.'), "{name}: {help}");
            }
        }
    }
}
