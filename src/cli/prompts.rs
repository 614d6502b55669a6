//! `prompts`: asks a language model for descriptions of the classes, for `{description}` in prompts.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::{Args, builder::NonEmptyStringValueParser, value_parser};

use super::{Format, Target, output};
use crate::{
    error::Result,
    prompts::{self, Access, Listener, Options, Outcome},
};

const LINE_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(
    after_help = "The endpoint is OPENAI_BASE_URL, such as http://localhost:8000/v1 (the public one where it is not \
                        set), its key OPENAI_API_KEY, which a local server may do without."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// The JSON Lines to add to, for `prompts.descriptions`: a class a line; its name ends in `.jsonl`
    file: PathBuf,
    /// The model, by the endpoint's name for it
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    model: String,
    /// Texts for each class
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u16).range(1..=100))]
    texts: u16,
    /// Words that a text has at least
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = value_parser!(u16).range(1..=200))]
    least_words: u16,
    /// Classes that are asked for at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=64))]
    in_flight: u16,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = value_parser!(u16).range(1..))]
    timeout: u16,
}

/// Says every half minute how far it is.
struct Lines(Mutex<Instant>);

impl Listener for Lines {
    fn answered(&self, classes: usize, of: usize) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= LINE_EVERY {
            *said = Instant::now();
            output::note(format!("{classes} of {of} classes"));
        }
    }

    fn note(&self, said: &str) {
        output::note(said);
    }
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { target, file, model, texts, least_words, in_flight, timeout } = arguments;
    let variable = |name: &str| std::env::var(name).ok();
    let access = Access::of(variable("OPENAI_BASE_URL").as_deref(), variable("OPENAI_API_KEY").as_deref());
    if let Ok(access) = &access {
        output::note(format!("`{model}` at {}", access.shown()));
    }
    let options = Options {
        model: model.clone(),
        texts: (*texts).into(),
        least_words: (*least_words).into(),
        in_flight: (*in_flight).into(),
        timeout: Duration::from_secs((*timeout).into()),
    };
    let listener = Lines(Mutex::new(Instant::now()));
    let outcome = prompts::prompts(&target.pipeline, &target.set, file, access, &options, &listener).await?;
    match target.format {
        Format::Json => output::json(&outcome),
        Format::Text => show(&outcome, &file.display().to_string()),
    }
    Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(outcome: &Outcome, file: &str) {
    let Outcome { classes, there, answered, failed, texts } = outcome;
    let row = [*classes, *there, *answered, failed.len(), *texts].map(|count| count.to_string());
    output::table(&["classes", "there already", "added", "failed", "texts"], &[row.to_vec()]);
    for failed in failed {
        output::line(format!("failed: {}: {}", failed.class_name, failed.reason));
    }
    match failed.is_empty() {
        true => output::line(format!("`prompts.descriptions` takes `{file}`")),
        false => output::line("the same command asks again for those that failed"),
    }
}
