//! `verify`: exits with 0 if the lake is clean and complete, otherwise with 1 and the findings. `--repair` does what can
//! be done about them.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Target,
    output::{self, Format},
};
use crate::{
    error::Result,
    lake::{Hidden, Lake, LogFault, Remedy},
    pipeline::{Options, Pipeline, Project},
    report::{
        repair::{self, Repair},
        verify::{self, Finding, FindingKind},
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Also compare with the source, decode all images, and reproduce some images and scores
    #[arg(long)]
    deep: bool,
    /// Take what is damaged out of the tables, so that `run` makes it again
    #[arg(long)]
    repair: bool,
    /// Only show what `--repair` would do
    #[arg(long, requires = "repair")]
    dry_run: bool,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let mut options = arguments.target.options();
    let (lake, faults) = verify::log_faults(&arguments.target.file.pipeline, &options).await?;
    if arguments.repair {
        return repair(arguments, options, &lake, faults).await;
    }
    options.hidden = Hidden::of(&faults);
    let project = open(arguments, &options).await?;
    let findings = verify::verify(&project, &faults, arguments.deep).await?;
    print(arguments, &findings);
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn open(arguments: &Arguments, options: &Options) -> Result<Project> {
    let path = &arguments.target.file.pipeline;
    match arguments.deep {
        true => Ok(Pipeline::open(path, options).await?.project),
        false => Project::open(path, options).await,
    }
}

fn print(arguments: &Arguments, findings: &[Finding]) {
    match arguments.target.format {
        Format::Json => output::json(&json!({ "findings": findings })),
        Format::Text if findings.is_empty() => {
            output::line("clean: every file is intact, no row is missing or duplicated")
        }
        Format::Text => {
            for finding in findings {
                output::line(format!("{}: {}", finding.table, finding.problem));
            }
            let can_repair = |finding: &Finding| !matches!(finding.kind, FindingKind::Stale | FindingKind::Other);
            if findings.iter().any(can_repair) {
                let file = arguments.target.file.pipeline.display();
                output::note(format!("hint: `discl-pipe verify {file} --repair --dry-run` shows what can be repaired"));
            }
        }
    }
}

/// Repairs the logs first, since the tables can only be read then. A dry run reads them as if this was done.
async fn repair(arguments: &Arguments, mut options: Options, lake: &Lake, faults: Vec<LogFault>) -> Result<ExitCode> {
    let mut repairs = Vec::new();
    announce(arguments, &mut repairs, repair::of_logs(lake, &faults).await?);
    let remain = |fault: &LogFault| arguments.dry_run || fault.remedy == Remedy::None;
    let remaining: Vec<LogFault> = faults.iter().filter(|fault| remain(fault)).cloned().collect();
    if !arguments.dry_run {
        repair::repair_logs(lake, &repairs).await?;
    }
    options.hidden = Hidden::of(&remaining);
    let project = open(arguments, &options).await?;
    // What a damaged file hides is found once it is removed.
    loop {
        let findings = verify::verify(&project, &remaining, arguments.deep).await?;
        let mut found = repair::of_tables(&project, &faults, &findings).await?;
        found.retain(|found| !repairs.contains(found));
        if found.is_empty() {
            break;
        }
        announce(arguments, &mut repairs, found.clone());
        if arguments.dry_run {
            break;
        }
        repair::repair_tables(&project, &found, arguments.deep).await?;
    }
    conclude(arguments, &repairs);
    let is_done = repairs.iter().all(|repair| !repair.left && !arguments.dry_run);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names what is about to be done, before it is done.
fn announce(arguments: &Arguments, repairs: &mut Vec<Repair>, found: Vec<Repair>) {
    if arguments.target.format == Format::Text {
        for Repair { table, problem, remedy, left, .. } in &found {
            output::line(format!("{table}: {problem}{} {remedy}", if *left { "; not repaired:" } else { ":" }));
        }
    }
    repairs.extend(found);
}

fn conclude(arguments: &Arguments, repairs: &[Repair]) {
    if arguments.target.format == Format::Json {
        output::json(&json!({ "repairs": repairs, "dry_run": arguments.dry_run }));
        return;
    }
    let left = repairs.iter().filter(|repair| repair.left).count();
    let run = format!("`discl-pipe run {}` makes again what is missing", arguments.target.file.pipeline.display());
    output::line(match (repairs.len() - left, arguments.dry_run) {
        (0, _) if left == 0 => "nothing to repair".to_owned(),
        (0, _) => "nothing was repaired".to_owned(),
        (_, true) => "a dry run: nothing was changed".to_owned(),
        (done, false) => format!("repaired {}; {run}", output::count(done, "problem")),
    });
}
