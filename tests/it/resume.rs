//! Killed runs, other orders and other partitions give the same tables.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::support::Workspace;

/// The kills are spread over the duration of a run.
const KILLS: u32 = 4;

#[test]
fn killed_runs_end_as_a_quiet_one() {
    let quiet = Workspace::small();
    let started = Instant::now();
    quiet.run();
    let whole = started.elapsed();
    let killed = Workspace::small();
    for kill in 1..=KILLS {
        let mut run = killed.command("run", &[]).spawn().unwrap();
        // The fraction of the golden ratio spreads any number of kills evenly.
        let moment = whole.mul_f64((f64::from(kill) * 0.618_034).fract());
        std::thread::sleep(moment.max(Duration::from_millis(200)));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    killed.run();
    killed.ok("verify", &[]);
    killed.assert_equals(&quiet);
    let evaluations = "SELECT sum(unet_evaluations) FROM ledger";
    // What units cost is written every ten seconds, and lost if the run is killed before. Nothing is counted twice.
    assert!(killed.number(evaluations) <= quiet.number(evaluations));
}

/// Four runs share a lake without any communication. Every five seconds two of them, drawn from a seed, are killed and
/// restarted. `DISCL_KILLS_SECONDS` sets how long this goes on.
#[test]
#[allow(clippy::print_stdout)] // with --nocapture this is what one asks for
fn four_runs_of_which_two_are_killed_again_and_again_make_one_clean_lake() {
    const RUNS: usize = 4;
    let seconds = std::env::var("DISCL_KILLS_SECONDS").map_or(30, |seconds| seconds.parse().unwrap());
    let job = |workspace: &mut Workspace| {
        // Enough work that there is something to kill until the end.
        let seeds: Vec<usize> = (0..seconds / 15).collect();
        workspace.edit("hard_samples.max_class_count=20");
        workspace.edit("spectrum.timesteps=12");
        workspace.edit(&format!("spectrum.seeds={seeds:?}"));
    };
    let (mut quiet, mut shared) = (Workspace::small(), Workspace::small());
    job(&mut quiet);
    job(&mut shared);
    quiet.run();
    let begin = |run: usize| {
        let mut command = shared.command("run", &["--unit-order", &run.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut runs: Vec<Child> = (0..RUNS).map(begin).collect();
    let (mut killed, mut failed) = (0, Vec::new());
    for round in 0..seconds / 5 {
        std::thread::sleep(Duration::from_secs(5));
        for drawn in [round * 7 % RUNS, (round * 7 + 1 + round % (RUNS - 1)) % RUNS] {
            match runs[drawn].try_wait().unwrap() {
                Some(status) => failed.extend((!status.success()).then_some(status)),
                None => {
                    runs[drawn].kill().unwrap();
                    runs[drawn].wait().unwrap();
                    killed += 1;
                }
            }
            runs[drawn] = begin(drawn);
        }
    }
    for mut run in runs {
        let status = run.wait().unwrap();
        failed.extend((!status.success()).then_some(status));
    }
    shared.run();
    shared.ok("verify", &["--deep"]);
    shared.assert_equals(&quiet);
    println!("{killed} kills among {RUNS} runs in {seconds} s");
    assert!(killed > 0, "the job ended before anything could be killed");
    assert!(failed.is_empty(), "a run that nobody killed failed: {failed:?}");
}

#[test]
fn partitions_batches_and_the_order_of_units_do_not_matter() {
    let a = Workspace::small();
    a.run();
    let b = Workspace::small();
    b.ok("run", &["--target-partitions", "3", "--batch-rows", "5", "--unit-order", "7", "--units-in-flight", "2"]);
    a.assert_equals(&b);
}

#[test]
fn two_runs_at_once_make_one_clean_lake() {
    let quiet = Workspace::small();
    quiet.run();
    let shared = Workspace::small();
    let mut first = shared.command("run", &[]).spawn().unwrap();
    let second = shared.command("run", &["--unit-order", "3"]).output().unwrap();
    assert!(first.wait().unwrap().success());
    assert!(second.status.success(), "{}", crate::support::stderr(&second));
    shared.ok("verify", &[]);
    shared.assert_equals(&quiet);
}

/// Two pipelines overlap. Their units differ, but no row may occur twice.
#[test]
fn overlapping_pipelines_at_once_share_their_rows() {
    let wide = ["spectrum.seeds=[10,11]", "filter.min_text_similarity=0.6"];
    let mut quiet = Workspace::small();
    wide.iter().for_each(|edit| quiet.edit(edit));
    quiet.run();
    let mut shared = Workspace::small();
    let mut narrow = shared.command("run", &[]).spawn().unwrap();
    wide.iter().for_each(|edit| shared.edit(edit));
    // One may give up because of the other. The tables stay sound, and the next run completes them.
    let _ = shared.command("run", &[]).output().unwrap();
    let _ = narrow.wait().unwrap();
    shared.run();
    shared.ok("verify", &[]);
    shared.assert_equals(&quiet);
}

/// An image that changes in the source is read again, and nothing derived from the old one is used.
#[test]
fn a_changed_source_is_read_again() {
    let mut workspace = Workspace::small();
    let data = workspace.path("data");
    std::fs::create_dir(&data).unwrap();
    for part in ["train", "validation", "test"] {
        std::fs::copy(format!("data/digits_lt/{part}.parquet"), data.join(format!("{part}.parquet"))).unwrap();
    }
    workspace.edit(&format!("source.root={:?}", data.to_str().unwrap()));
    workspace.run();
    let before = workspace.query("SELECT source_id, digest FROM images WHERE path = 'train.parquet#0'");
    // Other images at the same path.
    std::fs::copy("data/digits_lt/validation.parquet", data.join("train.parquet")).unwrap();
    std::fs::copy("data/digits_lt/train.parquet", data.join("validation.parquet")).unwrap();
    workspace.edit("hard_samples.max_class_count=3");
    workspace.edit("filter.min_text_similarity=0.3");
    let plan = workspace.json("plan", &[])["steps"].clone();
    assert_eq!(plan[0]["rows"]["due"], 43 + 337, "what has changed is read again, and no more");
    workspace.run();
    workspace.ok("verify", &[]);
    let after = workspace.query("SELECT source_id, digest FROM images WHERE path = 'train.parquet#0'");
    assert_eq!(before[0]["source_id"], after[0]["source_id"]);
    assert_ne!(before[0]["digest"], after[0]["digest"]);
    let mut fresh = Workspace::small();
    fresh.set.clone_from(&workspace.set);
    fresh.run();
    workspace.assert_equals(&fresh);
}

#[test]
fn an_interrupted_run_says_that_it_can_go_on() {
    let workspace = Workspace::small();
    let run = workspace.command("run", &[]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let signalled = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run the same command again to continue"));
}
