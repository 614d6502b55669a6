//! `prompts`: asks a language model for descriptions of the classes, which `{description}` in prompts stands for.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::{Args, builder::NonEmptyStringValueParser, value_parser};

use super::{
    FileTarget,
    output::{self, Format},
    progress::LINE_EVERY,
};
use crate::{
    error::Result,
    prompts::{self, Access, Listener, Options, Outcome},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: FileTarget,
    /// The `.jsonl` file to append to, for `prompts.descriptions`: one line per class
    file: PathBuf,
    /// The endpoint's name of the model
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    model: String,
    /// Descriptions per class
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u16).range(1..=100))]
    texts: u16,
    /// Minimum number of words of a description
    #[arg(long, alias = "least-words", value_name = "N", default_value_t = 15, value_parser = value_parser!(u16).range(1..=200))]
    min_words: u16,
    /// Requests in flight at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=64))]
    in_flight: u16,
    /// How long a response may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = value_parser!(u16).range(1..))]
    timeout: u16,
}

/// Prints a line every 30 seconds.
#[derive(Debug)]
struct Lines(Mutex<Instant>);

impl Listener for Lines {
    fn advanced(&self, classes: usize, total: usize) {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.elapsed() >= LINE_EVERY {
            *printed = Instant::now();
            output::note(format!("{classes} of {total} classes"));
        }
    }

    fn note(&self, line: &str) {
        output::note(line);
    }
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { target, file, model, texts, min_words, in_flight, timeout } = arguments;
    let variable = |name: &str| std::env::var(name).ok();
    let access = Access::of(variable("OPENAI_BASE_URL").as_deref(), variable("OPENAI_API_KEY").as_deref());
    if let Ok(access) = &access {
        output::note(format!("`{model}` at {}", access.shown()));
    }
    let options = Options {
        model: model.clone(),
        count: (*texts).into(),
        min_words: (*min_words).into(),
        in_flight: (*in_flight).into(),
        timeout: Duration::from_secs((*timeout).into()),
    };
    let listener = Lines(Mutex::new(Instant::now()));
    let outcome = prompts::prompts(&target.file.pipeline, &target.file.set, file, access, &options, &listener).await?;
    match target.format {
        Format::Json => output::json(&outcome),
        Format::Text => show(&outcome, &file.display().to_string()),
    }
    Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(outcome: &Outcome, file: &str) {
    let Outcome { classes, present, added, failed, descriptions } = outcome;
    let row = [*classes, *present, *added, failed.len(), *descriptions].map(|count| count.to_string());
    output::table(&["classes", "already present", "added", "failed", "descriptions"], &[row.to_vec()]);
    for failed in failed {
        output::line(format!("failed: {}: {}", failed.class_name, failed.reason));
    }
    match failed.is_empty() {
        true => output::line(format!("use it as `prompts.descriptions = \"{file}\"`")),
        false => output::line("run the same command again to retry the classes that failed"),
    }
}
