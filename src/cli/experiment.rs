//! `experiment`: compares strategies and baselines on the built-in learner.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    Target,
    output::{self, Format},
    progress::Bars,
};
use crate::{
    error::Result,
    experiment::{self, Findings, Summary},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// Write every result to this CSV file
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { target, rows } = arguments;
    let options = target.options();
    let note = |text: &str| output::note(text);
    let (findings, summary) =
        experiment::run(&target.file.pipeline, &options, rows.as_deref(), &Bars::new(), note).await?;
    match target.format {
        Format::Json => output::json(&json!({
            "summary": summary, "fixed_levels": findings.fixed_levels, "stages": findings.gains,
        })),
        Format::Text => print(&findings, &summary),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(findings: &Findings, summary: &Summary) {
    let metrics = summary.metrics();
    let header: Vec<&str> = ["network", "method", "runs"].into_iter().chain(metrics.iter().copied()).collect();
    output::line("Accuracy in percent, mean ± standard deviation over splits and learners:\n");
    output::table(&header, &means(summary, &metrics));
    if !summary.differences.is_empty() {
        output::line("\nPaired differences in percentage points, with 95 % intervals over splits:\n");
        let header: Vec<&str> = ["network", "difference"].into_iter().chain(metrics.iter().copied()).collect();
        output::table(&header, &differences(summary, &metrics));
    }
    for chosen in &findings.fixed_levels {
        let (split, level) = (chosen.split_seed, chosen.image_guidance);
        output::line(format!(
            "\n{}: on split {split}, `{}` uses level {level}, chosen on the validation images",
            chosen.architecture, chosen.method
        ));
    }
    if !findings.gains.is_empty() {
        output::line("\nAdaptive curricula: mean gain in true-class probability (times chosen):\n");
        let (header, rows) = stages(findings);
        output::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
    }
}

fn means(summary: &Summary, metrics: &[&str]) -> Vec<Vec<String>> {
    let mut rows: BTreeMap<(&str, &str, usize), Vec<String>> = BTreeMap::new();
    for line in &summary.lines {
        let cells = rows.entry((&line.architecture, &line.method, line.runs)).or_insert_with(|| blank(metrics));
        if let Some(cell) = place(metrics, &line.metric).and_then(|place| cells.get_mut(place)) {
            let spread = line.standard_deviation.map_or(String::new(), |deviation| format!(" ± {deviation:.1}"));
            *cell = format!("{:.1}{spread}", line.mean);
        }
    }
    let row = |((architecture, method, runs), cells): ((&str, &str, usize), Vec<String>)| {
        [architecture.to_owned(), method.to_owned(), runs.to_string()].into_iter().chain(cells).collect()
    };
    rows.into_iter().map(row).collect()
}

fn differences(summary: &Summary, metrics: &[&str]) -> Vec<Vec<String>> {
    let mut rows: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for found in &summary.differences {
        let name = format!("{} − {}", found.method, found.than);
        let cells = rows.entry((&found.architecture, name)).or_insert_with(|| blank(metrics));
        if let Some(cell) = place(metrics, &found.metric).and_then(|place| cells.get_mut(place)) {
            let interval = found.interval.map_or(String::new(), |(low, high)| format!(" [{low:+.1}, {high:+.1}]"));
            *cell = format!("{:+.1}{interval}", found.mean);
        }
    }
    let row = |((architecture, name), cells): ((&str, String), Vec<String>)| {
        [architecture.to_owned(), name].into_iter().chain(cells).collect()
    };
    rows.into_iter().map(row).collect()
}

/// Mean gains by epoch and level, over splits and learners.
fn stages(findings: &Findings) -> (Vec<String>, Vec<Vec<String>>) {
    let levels: Vec<i64> = {
        let all: BTreeSet<i64> = findings.gains.iter().map(|gain| gain.image_guidance).collect();
        all.into_iter().collect()
    };
    let mut cells: BTreeMap<(&str, &str, i64), BTreeMap<i64, Gains>> = BTreeMap::new();
    for stage in &findings.gains {
        let level = cells.entry((&stage.architecture, &stage.method, stage.epoch)).or_default();
        level.entry(stage.image_guidance).or_default().add(stage);
    }
    let header = ["network", "method", "epoch"].map(str::to_owned);
    let header = header.into_iter().chain(levels.iter().map(i64::to_string)).collect();
    let row = |((architecture, method, epoch), found): ((&str, &str, i64), BTreeMap<i64, Gains>)| {
        let cells = levels.iter().map(|level| found.get(level).map_or("-".to_owned(), Gains::text));
        [architecture.to_owned(), method.to_owned(), epoch.to_string()].into_iter().chain(cells).collect()
    };
    (header, cells.into_iter().map(row).collect())
}

/// Gains of one level in one epoch, over splits and learners.
#[derive(Debug, Default)]
struct Gains {
    gain: f64,
    error: f64,
    count: u32,
    chosen: u32,
}

impl Gains {
    fn add(&mut self, stage: &experiment::LevelGain) {
        self.gain += stage.gain;
        self.error += stage.standard_error.unwrap_or_default();
        self.count += 1;
        self.chosen += u32::from(stage.chosen);
    }

    fn text(&self) -> String {
        let count = f64::from(self.count.max(1));
        format!("{:+.4} ± {:.4} ({})", self.gain / count, self.error / count, self.chosen)
    }
}

fn blank(metrics: &[&str]) -> Vec<String> {
    vec!["-".to_owned(); metrics.len()]
}

fn place(metrics: &[&str], metric: &str) -> Option<usize> {
    metrics.iter().position(|name| *name == metric)
}
