//! Kills, orders, partitions: the same tables.

use std::time::{Duration, Instant};

use crate::support::Workspace;

/// Each kill is at a moment of its own, spread over the time that a run takes.
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
        // the fraction of the golden ratio spreads moments evenly, however many there are
        let moment = whole.mul_f64((f64::from(kill) * 0.618_034).fract());
        std::thread::sleep(moment.max(Duration::from_millis(200)));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    killed.run();
    killed.ok("verify", &[]);
    killed.assert_equals(&quiet);
    let evaluations = "SELECT sum(unet_evaluations) FROM ledger";
    assert_eq!(killed.number(evaluations), quiet.number(evaluations));
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

#[test]
fn an_interrupted_run_says_that_it_can_go_on() {
    let workspace = Workspace::small();
    let run = workspace.command("run", &[]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let signalled = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the same command goes on from here"));
}
