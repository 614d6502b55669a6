//! `run`: makes what is missing, and closes with what came of it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;

use super::{Format, Target, output, progress::Bars};
use crate::{
    error::{Diagnostic, Diagnostics, Error, Result},
    feedback::{self, Awaited},
    models::diffusion::Stats,
    report, run,
    run::{Shard, Stop},
    storage,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// The last step to run
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Units that are worked on at once; their rows share the models' batches
    #[arg(long, value_name = "N")]
    units_in_flight: Option<std::num::NonZeroUsize>,
    /// Tries again what was rejected, after a fix of what was wrong with it
    #[arg(long)]
    retry_rejects: bool,
    /// Waits for the feedback of an adaptive curriculum, and goes on as it arrives, until the curriculum is through
    #[arg(long)]
    follow: bool,
    /// Makes only the units of worker I of N, from 0, and waits for the others'; taken from AWS Batch, Slurm and
    /// Kubernetes where they run the process as part of an array, unless it is given
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Seconds that a worker of several waits for the others' units before it ends with exit code 75
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
    /// Seconds that what is in flight may take after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    grace: u64,
    /// Takes units in an order drawn from N: nothing in the tables depends on it
    #[arg(long, value_name = "N", hide = true)]
    unit_order: Option<u64>,
}

impl Arguments {
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }

    /// The worker that this process is.
    fn shard(&self) -> Result<Option<Shard>> {
        if self.shard.is_some() {
            return Ok(self.shard);
        }
        let found = Shard::of_batch_system(|name| std::env::var(name).ok()).map_err(|message| {
            let (file, key) = ("environment".to_owned(), String::new());
            let help = Some("`--shard 0/1` makes everything here".to_owned());
            Error::from(Diagnostics::from(vec![Diagnostic { file, line: None, key, message, help }]))
        })?;
        Ok(found.map(|(shard, variable)| {
            output::note(format!("shard {shard}, by `{variable}`; `--shard 0/1` makes everything here"));
            shard
        }))
    }
}

/// The share of the UNet's rows that held a sample.
fn fill(stats: &Stats) -> f64 {
    stats.unet_evaluations as f64 / (stats.batch_rows_offered.max(1)) as f64
}

pub(super) async fn execute(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    let target = &arguments.target;
    let defaults = run::Options::default();
    let options = run::Options {
        until: arguments.until.clone(),
        units_in_flight: arguments.units_in_flight.map_or(defaults.units_in_flight, Into::into),
        unit_order: arguments.unit_order,
        shard: arguments.shard()?,
        wait: Duration::from_secs(arguments.wait),
        stop: stop.clone(),
    };
    if arguments.retry_rejects {
        let forgotten = run::forget_rejects(&target.open().await?).await?;
        output::note(format!("{forgotten} rejects are tried again"));
    }
    let (pipeline, outcomes, awaited) = loop {
        let pipeline = target.open().await?;
        let outcomes = run::run(&pipeline, &options, Arc::new(Bars::new())).await?;
        let awaited = feedback::awaited(&pipeline).await?;
        for Awaited { trial, epoch } in &awaited {
            output::note(format!("trial {trial}: epoch {epoch} waits for feedback, before and after its probe"));
        }
        if awaited.is_empty() || !arguments.follow {
            break (pipeline, outcomes, awaited);
        }
        tokio::select! {
            waited = feedback::wait(&pipeline) => waited?,
            () = stop.asked() => return Err(Error::Interrupted),
        }
    };
    let models = &pipeline.session.functions().models;
    if target.format == Format::Json {
        let levels = report::levels(&pipeline).await?;
        let engine = models.stats().map(|stats| {
            json!({
                "unet_evaluations": stats.unet_evaluations,
                "batch_fill": fill(&stats),
                "busy_seconds": stats.busy.as_secs_f64(),
            })
        });
        let clip = models.clip_stats().map(
            |stats| json!({ "images": stats.images, "texts": stats.texts, "busy_seconds": stats.busy.as_secs_f64() }),
        );
        let provider = models.provider();
        output::json(&json!({
            "steps": outcomes, "levels": levels, "engine": engine, "clip": clip, "provider": provider, "awaits": awaited,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(totals) = storage::throttling_totals() {
        output::note(format!("the object store throttled requests: {totals}"));
    }
    if let Some(stats) = models.stats() {
        output::note(format!(
            "engine: {} UNet evaluations, mean batch fill {:.1} %, a model running for {:.1} s, on {}",
            stats.unet_evaluations,
            100.0 * fill(&stats),
            stats.busy.as_secs_f64(),
            models.provider().unwrap_or_default()
        ));
    }
    output::line(report::tables(&pipeline).await?.trim_end());
    Ok(ExitCode::SUCCESS)
}
