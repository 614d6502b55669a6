//! `models inspect`: what a model consists of, and whether it fits. Exits with 2 if it does not. `models bench`: how fast a
//! device is with it.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    output::{self, Format},
    target,
};
use crate::{
    error::{Result, text::bytes},
    models::{
        self, Description, FetchProgress, Graph, Kind, ModelOptions,
        diffusion::{Bench, Measured},
        onnx::{Device, default_threads},
    },
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
    /// Measure how fast a diffusion model is on a device, for some batches and sizes of images
    #[command(after_help = examples!(
        "  discl-pipe models bench models/digits\n  \
         discl-pipe models bench models/sd15 --rows 2,16,32 --size 512,768x512 --device cuda"
    ))]
    Bench(BenchArguments),
}

#[derive(Debug, Args)]
struct Inspect {
    /// A directory or URL: hf://ORG/REPO[@REVISION][/FOLDER], s3://, gs:// or az://
    location: String,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = target::LAST)]
    format: Format,
}

#[derive(Debug, Args)]
struct BenchArguments {
    /// A directory or URL, as for `models inspect`
    location: String,
    /// Rows of a call of the UNet; an image takes two with classifier-free guidance
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "2,16")]
    rows: Vec<NonZeroUsize>,
    /// Sides of images in pixels, as in `512` or `768x512` [default: those of the model's training]
    #[arg(long, value_name = "SIZE,SIZE", value_delimiter = ',')]
    size: Vec<Sides>,
    /// Measure `unet/model.cuda.onnx` if the device is a GPU
    #[arg(long)]
    fast: bool,
    /// Where models run: `auto`, `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: Device,
    /// The ONNX Runtime library [default: ORT_DYLIB_PATH, else the cache, else fetched once]
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Cores that a model may use on the CPU [default: all]
    #[arg(long, value_name = "N")]
    model_threads: Option<NonZeroUsize>,
    /// How long to measure each combination, at least
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    seconds: u64,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = target::LAST)]
    format: Format,
}

/// The sides of an image on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sides(u32, u32);

impl FromStr for Sides {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (width, height) = text.split_once('x').unwrap_or((text, text));
        let side = |side: &str| side.parse().ok().filter(|side| (8..=8192).contains(side));
        let sides = side(width).zip(side(height)).map(|(width, height)| Self(width, height));
        sides.ok_or_else(|| "expected a side from 8 to 8192 pixels, or two as in `768x512`".to_owned())
    }
}

impl Arguments {
    pub(super) fn format(&self) -> Format {
        match &self.command {
            Command::Inspect(inspect) => inspect.format,
            Command::Bench(bench) => bench.format,
        }
    }
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.command {
        Command::Inspect(arguments) => inspect(arguments).await,
        Command::Bench(arguments) => bench(arguments).await,
    }
}

async fn bench(arguments: &BenchArguments) -> Result<ExitCode> {
    let bench = Bench {
        rows: arguments.rows.iter().map(|rows| rows.get()).collect(),
        sizes: arguments.size.iter().map(|sides| (sides.0, sides.1)).collect(),
        time: Duration::from_secs(arguments.seconds),
        threads: arguments.model_threads.map_or_else(default_threads, NonZeroUsize::get),
    };
    let options = ModelOptions {
        device: arguments.device.clone(),
        library: arguments.onnxruntime.clone(),
        ..ModelOptions::default()
    };
    let progress = FetchProgress::new(|line: &str| output::note(line));
    let mut all = Vec::new();
    models::bench(&arguments.location, &options, bench, arguments.fast, &progress, |measured| {
        if arguments.format == Format::Text {
            output::line(measured_line(&measured));
        }
        all.push(measured);
    })
    .await?;
    if arguments.format == Format::Json {
        output::json(&all);
    }
    Ok(ExitCode::SUCCESS)
}

/// Describes a measurement.
fn measured_line(measured: &Measured) -> String {
    let Measured { model, variant, rows, width, height, error, .. } = measured;
    let what = match *model {
        "product" => format!("product of {width} x {height} values"),
        _ => format!("{model} ({variant}), {rows} rows of {width} x {height}"),
    };
    if let Some(error) = error {
        return format!("{what}: {error}");
    }
    let facts = [
        measured.ms_per_call.map(|ms| format!("{ms:.2} ms a call")),
        measured.first_call_ms.map(|ms| format!("the first {ms:.0} ms")),
        measured.host_gap_ms.map(|ms| format!("{ms:.2} ms between calls")),
        measured.tflops.map(|tflops| format!("{tflops:.3} TFLOP/s")),
        measured.share_of_peak.map(|share| format!("{:.0} % of the product's", 100.0 * share)),
        measured.peak_mib.map(|mib| format!("{mib} MiB at most")),
    ];
    format!("{what}: {}", facts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

async fn inspect(Inspect { location, format }: &Inspect) -> Result<ExitCode> {
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
