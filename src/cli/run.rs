//! `run`: runs what is not up to date, and closes with what came of it.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    Target, census,
    output::{self, Format},
    progress::Bars,
    target::PipelineFile,
};
use crate::{
    config::Config,
    error::{Diagnostic, Diagnostics, Error, Result, Warning},
    feedback::{self, Awaited},
    models::{Rates, diffusion::Stats},
    pipeline::{Pipeline, staleness},
    report::{self, Level},
    run::{self, Outcome, Shard, Stop},
    schema,
    source::Census,
    storage,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Stop after this step
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Units to work on at once [default: as many as keep the models busy]
    #[arg(long, value_name = "N")]
    units_in_flight: Option<std::num::NonZeroUsize>,
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
            units_in_flight: self.units_in_flight.map(Into::into),
            unit_order: self.unit_order,
            shard: self.shard()?,
            wait: Duration::from_secs(self.wait),
            stop: stop.clone(),
        })
    }

    /// Warns about edits that change what the file says: a run without them changes the tables back.
    fn edits(&self, pipeline: &Pipeline) -> Option<Warning> {
        let PipelineFile { pipeline: path, set } = &self.target.file;
        if Config::load(path, &[]).is_ok_and(|config| config == pipeline.project.config) {
            return None;
        }
        let edits: Vec<String> = set.iter().map(|edit| format!("`--set {edit}`")).collect();
        Some(Warning::new(
            format!("the tables were made with {}, which `{}` does not have", edits.join(" "), path.display()),
            "write the values into the file if they are to stay; a run without them changes the tables back",
        ))
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
    for Awaited { trial, epoch, before, after, stale } in awaited {
        let when = match (before, after) {
            (true, false) => "before",
            (false, true) => "after",
            _ => "before and after",
        };
        output::note(if *stale {
            format!(
                "trial {trial}: it was measured on another spectrum validation set, so it cannot go on; add a new name to \
                 `curriculum.trials` to train anew"
            )
        } else {
            format!(
                "trial {trial}: epoch {epoch} needs feedback from {when} its probe; import it with `discl-pipe feedback`"
            )
        });
    }
}

pub(super) async fn execute(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    let target = &arguments.target;
    let options = arguments.options(stop)?;
    if let Some(until) = &options.until
        && let Ok(project) = target.open_project().await
    {
        run::find_step(&project.plan, until)?;
    }
    if arguments.retry_rejects {
        let cleared = run::clear_rejects(&target.open_project().await?).await?;
        output::note(format!("retrying {}", output::count(cleared, "reject")));
    }
    let mut pipeline = target.open().await?;
    output::note(census::text(pipeline.source.census()));
    pipeline.look_at_sizes().await?;
    let bars = Bars::new();
    let ended = match arguments.follow {
        true => run::follow(&mut pipeline, &options, &bars, note_awaited).await,
        false => run::run(&pipeline, &options, &bars).await,
    };
    let outcomes = match ended {
        Ok(outcomes) => outcomes,
        Err(error @ Error::Expectation { .. }) => {
            explain(&pipeline, target.format).await?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let awaited = feedback::awaited(&pipeline.project).await?;
    note_awaited(&awaited);
    let levels = report::levels(&pipeline.project).await?;
    let census = report::census(&pipeline).await?;
    let mut warnings = pipeline.all_warnings();
    warnings.extend(report::unread(&census));
    let ran = |step: &str| outcomes.iter().any(|outcome| outcome.step == step);
    if ran(schema::HARD_SAMPLES) {
        warnings.extend(report::nothing_hard(&pipeline, None).await?);
    }
    if ran(schema::KEPT) {
        warnings.extend(report::warnings(&pipeline).await?);
    }
    warnings.extend(pipeline.models.warnings());
    warnings.extend(arguments.edits(&pipeline));
    match target.format {
        Format::Json => print_json(&pipeline, &Made { outcomes, levels, awaited, census, warnings }),
        Format::Text => {
            print_text(&pipeline, &levels).await?;
            output::warnings(&warnings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what may explain why an expectation failed: the outcome of each level, and what was kept of it.
async fn explain(pipeline: &Pipeline, format: Format) -> Result<()> {
    let project = &pipeline.project;
    let Some(kept) = project.plan.step(schema::KEPT) else { return Ok(()) };
    if format == Format::Text && staleness::reason(&project.session, kept).await?.is_none() {
        print_text(pipeline, &report::levels(project).await?).await?;
        output::warnings(&report::warnings(pipeline).await?);
    }
    Ok(())
}

/// What a run has made.
struct Made {
    outcomes: Vec<Outcome>,
    levels: Vec<Level>,
    awaited: Vec<Awaited>,
    census: Census,
    warnings: Vec<Warning>,
}

fn print_json(pipeline: &Pipeline, made: &Made) {
    let models = &pipeline.models;
    let engine = models.stats().map(|stats| {
        json!({
            "unet_evaluations": stats.unet_evaluations,
            "batch_fill": fill(&stats),
            "busy_seconds": stats.busy.as_secs_f64(),
            "size_changes": stats.size_changes,
            "batches": models.batches(),
            "rates": models.rates(&Stats::default()),
        })
    });
    let clip = models
        .clip_stats()
        .map(|stats| json!({ "images": stats.images, "texts": stats.texts, "busy_seconds": stats.busy.as_secs_f64() }));
    let provider = models.provider();
    output::json(&json!({
        "census": made.census, "steps": made.outcomes, "levels": made.levels, "engine": engine, "clip": clip,
        "provider": provider, "sync_seconds": storage::time_syncing().as_secs_f64(), "awaits": made.awaited,
        "warnings": made.warnings,
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
        if let Some(rates) = models.rates(&Stats::default()) {
            output::note(format!("diffusion: {}", describe(&rates)));
        }
    }
    if !levels.is_empty() {
        output::tables(&report::tables(&pipeline.project).await?);
        output::note(format!("tables and `contact_sheet.png` are in {}", place(pipeline)));
    }
    Ok(())
}

/// Describes how fast the diffusion model was.
fn describe(rates: &Rates) -> String {
    let Rates { tflops, peak_share, gap_ms, gap_share, memory_mib } = rates;
    let facts = [
        tflops.map(|tflops| format!("{tflops:.2} TFLOP/s")),
        peak_share.map(|share| format!("{:.0} % of the device's peak", 100.0 * share)),
        gap_ms.zip(*gap_share).map(|(ms, share)| format!("{ms:.1} ms between calls, {:.1} % of a call", 100.0 * share)),
        memory_mib.map(|mib| format!("{mib} MiB of memory")),
    ];
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Where the tables are: a path that can be pasted, or a URL.
fn place(pipeline: &Pipeline) -> String {
    let url = &pipeline.project.session.lake().location().url;
    url.to_file_path().map_or_else(|()| url.to_string(), |path| path.display().to_string())
}
