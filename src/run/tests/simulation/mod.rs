//! Histories of a lake from seeds. The program's own steps run on a faulty store, with a function in place of the models:
//! workers that share the lake, crashes, resumes, losses of power, edits, garbage that is collected, rejects that are
//! cleared, and other programs that write the tables. After every commit the promises of `lake` and `run` are checked. A
//! history follows from its seed alone:
//!
//! ```sh
//! DISCL_SIMULATION_HISTORIES=10000 cargo test --lib simulation -- --nocapture  # many
//! DISCL_SIMULATION_SEED=7 cargo test --lib simulation -- --nocapture           # one, with its trace
//! ```
//!
//! With both, the seed is the first of many.

mod check;
mod counts;
mod disk;
mod engine;
mod fault;
mod gaps;
mod history;
mod model;
mod mutants;
mod pipeline;
mod store;
mod strangers;
mod world;

use std::time::Instant;

use self::{
    counts::Counts,
    history::{Theme, of_seed},
};

/// Histories of a plain `cargo test`.
const HISTORIES: u64 = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

/// Returns the requested seeds, and whether it is one whose trace is to be shown.
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
#[allow(clippy::print_stdout)] // With --nocapture it is the purpose.
fn no_history_violates_an_invariant() {
    let started = Instant::now();
    let (seeds, is_one) = seeds();
    let mut counts = Counts::default();
    for seed in seeds {
        let again = format!("again: DISCL_SIMULATION_SEED={seed} cargo test --lib simulation -- --nocapture");
        let outcome = std::panic::catch_unwind(|| of_seed(seed, Theme::default(), None))
            .unwrap_or_else(|_| panic!("seed {seed} panics\n{again}"));
        if is_one {
            println!("{}", outcome.trace);
        }
        let violations = &outcome.violations;
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}\nat last:\n{}{again}", outcome.last);
        counts += &outcome.counts;
    }
    println!("{counts}{:<36}{:>10.1}", "seconds", started.elapsed().as_secs_f64());
}

#[test]
fn a_seed_has_one_history() {
    for seed in 1000..1005 {
        let (one, other) = (of_seed(seed, Theme::default(), None), of_seed(seed, Theme::default(), None));
        let differs = one.trace.lines().zip(other.trace.lines()).find(|(a, b)| a != b);
        assert_eq!((differs, one.trace.len()), (None, other.trace.len()), "seed {seed}");
    }
}
