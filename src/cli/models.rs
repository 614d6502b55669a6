//! `models inspect`: what a model consists of, and whether it fits. Exits with 2 if it does not.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    output::{self, Format},
    target,
};
use crate::{
    error::{Result, text::bytes},
    models::{self, Description, FetchProgress, Graph, Kind},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Describe a model, its graphs with their inputs and outputs, and whether it fits
    #[command(after_help = examples!(
        "  discl-pipe models inspect models/digits\n  discl-pipe models inspect hf://ORG/REPO@main"
    ))]
    Inspect(Inspect),
}

#[derive(Debug, Args)]
struct Inspect {
    /// A directory or URL: hf://ORG/REPO[@REVISION][/FOLDER], s3://, gs:// or az://
    location: String,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = target::LAST)]
    format: Format,
}

impl Arguments {
    pub(super) fn format(&self) -> Format {
        let Command::Inspect(inspect) = &self.command;
        inspect.format
    }
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Command::Inspect(Inspect { location, format }) = &arguments.command;
    let progress = FetchProgress::new(|line: &str| output::note(line));
    let found = models::describe(location, &progress).await?;
    let fits = found.problems.is_empty();
    match format {
        Format::Json => {
            let mut value = json!(found);
            value["fits"] = fits.into();
            output::json(&value);
        }
        Format::Text => text(location, &found),
    }
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn text(location: &str, found: &Description) {
    let kind = match found.kind {
        Kind::Diffusion => "a diffusion pipeline, for `models.diffusion`",
        Kind::Clip => "a CLIP, for `models.clip`",
        Kind::Classifier => "a classifier, for `models.classifiers`",
    };
    output::line(format!("`{location}`: {kind}"));
    for (name, value) in found.facts.as_object().into_iter().flatten() {
        output::line(format!("  {:18}{}", name.replace('_', " "), shown(value)));
    }
    for tokenizer in &found.tokenizers {
        let folder = if tokenizer.folder.is_empty() { "tokenizer" } else { &tokenizer.folder };
        output::line(format!("  {:18}{} tokens per prompt", folder, tokenizer.length));
    }
    found.graphs.iter().for_each(graph);
    if found.problems.is_empty() {
        output::line("fits");
    }
    for problem in &found.problems {
        output::line(format!("does not fit: {problem}"));
    }
}

fn graph(graph: &Graph) {
    let weights = graph.precision.as_ref().map_or(String::new(), |precision| format!(", weights {precision}"));
    output::line(format!("{}: {}{weights}", graph.file, bytes(graph.bytes)));
    let width = graph.inputs.iter().chain(&graph.outputs).map(|port| port.name.chars().count()).max().unwrap_or(0);
    for (side, ports) in [("in ", &graph.inputs), ("out", &graph.outputs)] {
        for port in ports {
            output::line(format!("  {side}  {:width$}  {}", port.name, port.shape));
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not stated".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
