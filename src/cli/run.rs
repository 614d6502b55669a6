//! `run`: runs what is not up to date, and closes with what came of it.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    Target,
    output::{self, Format},
    progress::Bars,
};
use crate::{
    error::{Diagnostic, Diagnostics, Error, Result, Warning},
    feedback::{self, Awaited},
    models::diffusion::Stats,
    pipeline::Pipeline,
    report::{self, Level},
    run::{self, Outcome, Shard, Stop},
    schema, storage,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Stop after this step
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Units to work on at once; their rows share the batches of models
    #[arg(long, value_name = "N", default_value = "6")]
    units_in_flight: std::num::NonZeroUsize,
    /// Retry the rows that were rejected
    #[arg(long)]
    retry_rejects: bool,
    /// Wait for feedback and continue with it, until an adaptive curriculum is complete
    #[arg(long)]
    follow: bool,
    /// Run the units of worker I of N, from 0 [default: from AWS Batch, Slurm or Kubernetes]
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// How long a worker waits for the units of others before it exits with code 75
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
    /// How long work in flight may take after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    grace: u64,
    /// Shuffle the order of units by this seed: no table may depend on it
    #[arg(long, value_name = "N", hide = true)]
    unit_order: Option<u64>,
}

impl Arguments {
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }

    fn options(&self, stop: &Stop) -> Result<run::Options> {
        Ok(run::Options {
            until: self.until.clone(),
            units_in_flight: self.units_in_flight.into(),
            unit_order: self.unit_order,
            shard: self.shard()?,
            wait: Duration::from_secs(self.wait),
            stop: stop.clone(),
        })
    }

    /// Returns the shard of this process: `--shard`, or else what the batch system says.
    fn shard(&self) -> Result<Option<Shard>> {
        if self.shard.is_some() {
            return Ok(self.shard);
        }
        let found = Shard::of_batch_system(|name| std::env::var(name).ok()).map_err(|message| {
            let (file, key) = ("environment".to_owned(), String::new());
            let help = Some("`--shard 0/1` runs everything here".to_owned());
            Error::from(Diagnostics::from(vec![Diagnostic { file, line: None, key, message, help }]))
        })?;
        Ok(found.map(|(shard, variable)| {
            output::note(format!("shard {shard}, from `{variable}`; `--shard 0/1` runs everything here"));
            shard
        }))
    }
}

/// The share of the UNet's batch rows that held a sample.
fn fill(stats: &Stats) -> f64 {
    stats.unet_evaluations as f64 / (stats.batch_rows_offered.max(1)) as f64
}

fn note_awaited(awaited: &[Awaited]) {
    for Awaited { trial, epoch } in awaited {
        output::note(format!(
            "trial {trial}: epoch {epoch} needs feedback from before and after its probe; import it with \
             `discl-pipe feedback`"
        ));
    }
}

pub(super) async fn execute(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    let target = &arguments.target;
    let options = arguments.options(stop)?;
    if arguments.retry_rejects {
        let cleared = run::clear_rejects(&target.open_project().await?).await?;
        output::note(format!("retrying {}", output::count(cleared, "reject")));
    }
    let mut pipeline = target.open().await?;
    pipeline.look_at_sizes().await?;
    let bars = Bars::new();
    let outcomes = match arguments.follow {
        true => run::follow(&mut pipeline, &options, &bars, note_awaited).await?,
        false => run::run(&pipeline, &options, &bars).await?,
    };
    let awaited = feedback::awaited(&pipeline.project).await?;
    note_awaited(&awaited);
    let levels = report::levels(&pipeline.project).await?;
    let mut warnings = pipeline.warnings.clone();
    if outcomes.iter().any(|outcome| outcome.step == schema::KEPT) {
        warnings.extend(warnings_of(&levels));
    }
    match target.format {
        Format::Json => print_json(&pipeline, &outcomes, &levels, &awaited, &warnings),
        Format::Text => {
            print_text(&pipeline, &levels).await?;
            output::warnings(&warnings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(pipeline: &Pipeline, outcomes: &[Outcome], levels: &[Level], awaited: &[Awaited], warnings: &[Warning]) {
    let models = &pipeline.models;
    let engine = models.stats().map(|stats| {
        json!({
            "unet_evaluations": stats.unet_evaluations,
            "batch_fill": fill(&stats),
            "busy_seconds": stats.busy.as_secs_f64(),
        })
    });
    let clip = models
        .clip_stats()
        .map(|stats| json!({ "images": stats.images, "texts": stats.texts, "busy_seconds": stats.busy.as_secs_f64() }));
    let provider = models.provider();
    output::json(&json!({
        "steps": outcomes, "levels": levels, "engine": engine, "clip": clip, "provider": provider, "awaits": awaited,
        "warnings": warnings,
    }));
}

async fn print_text(pipeline: &Pipeline, levels: &[Level]) -> Result<()> {
    let models = &pipeline.models;
    if let Some(totals) = storage::throttling_totals() {
        output::note(format!("the object store throttled requests: {totals}"));
    }
    if let Some(stats) = models.stats() {
        let busy = stats.busy.as_secs_f64();
        output::note(format!(
            "diffusion: {} UNet evaluations in {busy:.1} s, {:.0} per second, {:.1} % of the batch rows used, on {}",
            stats.unet_evaluations,
            stats.unet_evaluations as f64 / busy.max(1e-3),
            100.0 * fill(&stats),
            models.provider().unwrap_or_default()
        ));
    }
    if !levels.is_empty() {
        output::tables(&report::tables(&pipeline.project).await?);
        output::note(format!("tables and `contact_sheet.png` are in {}", place(pipeline)));
    }
    Ok(())
}

/// Returns warnings about levels and runs without a synthetic image: the curriculum would miss them.
fn warnings_of(levels: &[Level]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if levels.is_empty() {
        warnings.push(Warning::new(
            "no image is hard, so none was generated",
            "`[hard_samples]` says which images are hard",
        ));
    }
    let empty: Vec<_> = levels.iter().filter(|level| level.candidates > 0 && level.kept == 0).collect();
    if !empty.is_empty() {
        let names: Vec<_> = empty.iter().map(|level| level.image_guidance.to_string()).collect();
        let candidates: u64 = empty.iter().map(|level| level.candidates).sum();
        warnings.push(Warning::new(
            format!("none of the {candidates} candidates with image guidance {} was kept", names.join(", ")),
            "look at their `text_similarity` in `scores`, and lower `filter.min_text_similarity`",
        ));
    }
    warnings
}

/// Where the tables are: a path that can be pasted, or a URL.
fn place(pipeline: &Pipeline) -> String {
    let url = &pipeline.project.session.lake().location().url;
    url.to_file_path().map_or_else(|()| url.to_string(), |path| path.display().to_string())
}
