//! The digits pipeline as a whole process: how much of the spectrum step some model is running, how full its
//! batches are, and how much memory the run takes. Each figure is a share of a limit, or has one beside it.
//!
//! `make bench` runs it in the profile that everything else has. Figures of a busy machine say little: the
//! median of the runs is printed with the least and the greatest.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const RUNS: usize = 3;

struct Figures {
    busy_share: f64,
    batch_fill: f64,
    evaluations_per_second: f64,
    seconds: f64,
    peak_mib: f64,
}

fn main() {
    // `cargo test --benches` asks whether it builds; it must not take a minute
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let figures: Vec<Figures> = (0..RUNS).map(|_| measure()).collect();
    println!("{:44} {:>9} {:>9} {:>9}  aim", "digits_lt, a fresh lake", "least", "median", "greatest");
    let row = |name: &str, aim: &str, of: &dyn Fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        println!("{name:44} {:9.3} {:9.3} {:9.3}  {aim}", values[0], values[RUNS / 2], values[RUNS - 1]);
    };
    row("share of the spectrum step with a model running", "0.9 at least", &|f| f.busy_share);
    row("share of the UNet's rows that held a sample", "0.9 at least", &|f| f.batch_fill);
    row("UNet evaluations per second of the step", "", &|f| f.evaluations_per_second);
    row("wall time of the run, s", "120 at most", &|f| f.seconds);
    row("peak memory of the run, MiB", "1024 at most", &|f| f.peak_mib);
}

fn measure() -> Figures {
    let lake = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut run = Command::new(env!("CARGO_BIN_EXE_discl-pipe"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "pipelines/digits_lt.toml", "--format", "json", "--lake"])
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
    let said: Value = serde_json::from_slice(&run.wait_with_output().unwrap().stdout).unwrap();
    let spectrum = said["steps"].as_array().unwrap().iter().find(|step| step["step"] == "spectrum").unwrap();
    let step = spectrum["seconds"].as_f64().unwrap();
    let engine = &said["engine"];
    Figures {
        busy_share: engine["busy_seconds"].as_f64().unwrap() / step,
        batch_fill: engine["batch_fill"].as_f64().unwrap(),
        evaluations_per_second: engine["unet_evaluations"].as_f64().unwrap() / step,
        seconds,
        peak_mib,
    }
}

/// The most resident memory that a process has had, where the system says so (Linux).
fn high_water_mib(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
