//! Measures whole runs and prints them next to their targets.
//!
//! - The digits pipeline: how much of the spectrum step a model is running, how full its batches are, and how much
//!   memory the run takes. It runs several times, because the figures of a busy machine vary.
//! - `benches/million`: how long the schedule and the manifest of a million kept images take. No model runs.
//!
//! `make bench` runs them in the same profile as everything else.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const RUNS: usize = 3;

fn main() {
    // `cargo test --benches` only checks that this compiles, and must not take a minute.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    digits();
    million();
}

fn digits() {
    let runs: Vec<Run> = (0..RUNS).map(|_| Run::of("pipelines/digits_lt.toml")).collect();
    println!("{:52} {:>11} {:>11} {:>11}  target", "digits_lt, a fresh lake", "minimum", "median", "maximum");
    let row = |name: &str, target: &str, of: &dyn Fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        println!("{name:52} {:11.3} {:11.3} {:11.3}  {target}", values[0], values[RUNS / 2], values[RUNS - 1]);
    };
    let step = |run: &Run| run.step("spectrum", "seconds");
    row("share of the spectrum step with a model running", "at least 0.9", &|run| {
        run.engine("busy_seconds") / step(run)
    });
    row("share of the UNet's rows that held a sample", "at least 0.9", &|run| run.engine("batch_fill"));
    row("UNet evaluations per second of the step", "", &|run| run.engine("unet_evaluations") / step(run));
    row("wall time of the run, s", "at most 120", &|run| run.seconds);
    row("share of it that writes waited for the disk", "at most 0.05", &|run| run.figure("sync_seconds") / run.seconds);
    row("peak memory of the run, MiB", "at most 1024", &|run| run.peak_mib);
}

fn million() {
    let run = Run::of("benches/million/pipeline.toml");
    println!("\n{:52} {:>11}  target", "benches/million, a fresh lake", "one run");
    let row = |name: &str, target: &str, value: f64| println!("{name:52} {value:11.0}  {target}");
    row("rows of kept", "998944", run.step("kept", "rows"));
    row("rows of manifest", "2577380", run.step("manifest", "rows"));
    let seconds = run.step("schedule", "seconds") + run.step("manifest", "seconds");
    row("seconds of the schedule and the manifest", "at most 600", seconds);
    row("peak memory of the run, MiB", "at most 2048", run.peak_mib);
}

/// One run of a pipeline into a fresh lake.
struct Run {
    summary: Value,
    seconds: f64,
    peak_mib: f64,
}

impl Run {
    fn of(pipeline: &str) -> Self {
        let lake = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let mut run = Command::new(env!("CARGO_BIN_EXE_discl-pipe"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["run", pipeline, "--format", "json", "--lake"])
            .arg(lake.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut peak_mib = 0.0_f64;
        while run.try_wait().unwrap().is_none() {
            peak_mib = peak_mib.max(high_water_mib(run.id()).unwrap_or(0.0));
            std::thread::sleep(Duration::from_millis(20));
        }
        let seconds = started.elapsed().as_secs_f64();
        let summary = serde_json::from_slice(&run.wait_with_output().unwrap().stdout).unwrap();
        Self { summary, seconds, peak_mib }
    }

    fn step(&self, name: &str, figure: &str) -> f64 {
        let step = self.summary["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap();
        step[figure].as_f64().unwrap()
    }

    fn figure(&self, name: &str) -> f64 {
        self.summary[name].as_f64().unwrap()
    }

    fn engine(&self, figure: &str) -> f64 {
        self.summary["engine"][figure].as_f64().unwrap()
    }
}

/// Returns the peak resident memory of a process so far. `None` if the system is not Linux.
fn high_water_mib(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
