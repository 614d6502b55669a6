//! `runtime`: which ONNX Runtime is in the cache.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{
    output::{self, Format},
    target,
};
use crate::{
    error::{Result, text::bytes},
    models::{
        failed,
        onnx::{Build, Runtime, Wheel},
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch ONNX Runtime into the cache, for CUDA with the libraries that this machine lacks
    #[command(after_help = examples!("  discl-pipe runtime fetch cuda"))]
    Fetch(Fetch),
}

#[derive(Debug, Args)]
struct Fetch {
    /// What it is for
    #[arg(value_enum, default_value_t)]
    build: Target,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = target::LAST)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Target {
    /// The CPU only
    #[default]
    Cpu,
    /// NVIDIA's GPUs, and the CPU
    Cuda,
}

impl Arguments {
    pub(super) fn format(&self) -> Format {
        let Command::Fetch(fetch) = &self.command;
        fetch.format
    }
}

pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Command::Fetch(Fetch { build, format }) = &arguments.command;
    let build = match build {
        Target::Cpu => Build::Cpu,
        Target::Cuda => Build::Cuda,
    };
    let fetch = Runtime::plan_fetch(build).map_err(failed)?;
    for library in &fetch.found {
        let found = library.found.as_ref().map(|found| format!("{} ({})", found.path.display(), found.place));
        output::note(format!("there is {}: {}", library.name, found.unwrap_or_default()));
    }
    let wheel = |wheel: &Wheel| format!("{} {}, {}", wheel.package, wheel.version, bytes(wheel.bytes));
    if fetch.wheels.is_empty() {
        output::note("nothing to fetch");
    } else {
        let wheels: Vec<String> = fetch.wheels.iter().map(wheel).collect();
        output::note(format!("to fetch, {} in all: {}", bytes(fetch.bytes()), wheels.join("; ")));
    }
    fetch.run(&|next| output::note(format!("fetching {}", wheel(next)))).map_err(failed)?;
    match format {
        Format::Json => output::json(&json!({
            "library": fetch.library(),
            "fetched": fetch.wheels.iter().map(|wheel| wheel.package).collect::<Vec<_>>(),
            "bytes": fetch.bytes(),
        })),
        Format::Text => output::line(fetch.library().display().to_string()),
    }
    Ok(ExitCode::SUCCESS)
}
