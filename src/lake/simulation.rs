//! Histories of a lake from seeds: workers that share it, faults of its store, crashes, resumes and edits. After every
//! commit it is looked at whether all is still as `lake` promises. A history follows from its seed alone:
//!
//! ```sh
//! DISCL_SIMULATION_HISTORIES=10000 cargo test --lib simulation -- --nocapture  # many
//! DISCL_SIMULATION_SEED=7 cargo test --lib simulation -- --nocapture           # one, with its trace
//! ```
//!
//! With both, the seed is the first of many.

mod check;
mod counts;
mod gaps;
mod history;
mod model;
mod pipeline;
mod store;
mod world;

use std::time::Instant;

use self::{counts::Counts, history::of_seed};

/// Histories of a plain `cargo test`.
const HISTORIES: u64 = 60;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// The seeds that are asked for, and whether it is one to be looked at.
fn seeds() -> (std::ops::Range<u64>, bool) {
    match (setting("DISCL_SIMULATION_SEED"), setting("DISCL_SIMULATION_HISTORIES")) {
        (Some(seed), None) => (seed..seed + 1, true),
        (first, histories) => {
            let first = first.unwrap_or(0);
            (first..first + histories.unwrap_or(HISTORIES), false)
        }
    }
}

#[test]
#[allow(clippy::print_stdout)] // with --nocapture this is what one asks for
fn no_history_violates_an_invariant() {
    let started = Instant::now();
    let (seeds, is_one) = seeds();
    let mut counts = Counts::default();
    for seed in seeds {
        let again = format!("again: DISCL_SIMULATION_SEED={seed} cargo test --lib simulation -- --nocapture");
        let told = std::panic::catch_unwind(|| of_seed(seed)).unwrap_or_else(|_| panic!("seed {seed} panics\n{again}"));
        if is_one {
            println!("{}", told.trace);
        }
        let violations = &told.violations;
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}\nat last:\n{}{again}", told.last);
        counts += &told.counts;
    }
    println!("{counts}{:<36}{:>10.1}", "seconds", started.elapsed().as_secs_f64());
}

#[test]
fn a_seed_has_one_history() {
    for seed in 1000..1005 {
        let (one, other) = (of_seed(seed), of_seed(seed));
        let differs = one.trace.lines().zip(other.trace.lines()).find(|(a, b)| a != b);
        assert_eq!((differs, one.trace.len()), (None, other.trace.len()), "seed {seed}");
    }
}
