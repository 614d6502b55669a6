//! Bugs that are put into the program, to see that the histories find each.

use std::panic::{RefUnwindSafe, catch_unwind};

use super::{
    history::{Cast, Outcome, Theme, of_seed, play},
    world::{Nature, Rates, Turns, World},
};
use crate::storage::simulated::Mutant;

/// Checks that a bug is found by one of the first `histories` with a theme.
fn is_found(mutant: Mutant, theme: Theme, histories: u64) {
    is_found_by(mutant, histories, |seed, mutant| of_seed(seed, theme, mutant));
}

/// Checks that a bug is found by one of the first `histories`, and that this history is sound without it.
#[allow(clippy::print_stdout)] // With --nocapture it is the purpose.
fn is_found_by(mutant: Mutant, histories: u64, history: impl Fn(u64, Option<Mutant>) -> Outcome + RefUnwindSafe) {
    let violation = |seed| match catch_unwind(|| history(seed, Some(mutant))) {
        Ok(outcome) => outcome.violations.into_iter().next(),
        Err(_) => Some("it panics".to_owned()),
    };
    match (0..histories).find_map(|seed| Some((seed, violation(seed)?))) {
        Some((seed, violation)) => {
            println!("{mutant:?}: history {seed}: {violation}");
            assert_eq!(history(seed, None).violations, Vec::<String>::new(), "without the bug");
        }
        None => panic!("{mutant:?} is not found by {histories} histories"),
    }
}

/// Nothing in common.
const DEFAULT: Theme =
    Theme { shards: None, is_disk: None, edits: None, foreign: None, flaws: None, clearings: None, collections: None };
/// Two or three workers that do the same.
const OVERLAPPING: Theme = Theme { shards: Some(false), ..DEFAULT };
/// Rows that fail in some runs, and are tried again while others run.
const RETRIED: Theme = Theme { flaws: Some(true), clearings: Some(true), foreign: Some(false), ..OVERLAPPING };
/// Other programs write the tables.
const FOREIGN: Theme = Theme { foreign: Some(true), flaws: Some(false), ..DEFAULT };
/// The store is a disk.
const DISK: Theme = Theme { is_disk: Some(true), ..DEFAULT };
/// Garbage is collected while the user changes the pipeline back and forth.
const COLLECTED: Theme = Theme { collections: Some(true), edits: Some(true), foreign: Some(false), ..OVERLAPPING };

/// Two workers that do the same once; rows fail for one and not for the other.
fn pair() -> Cast {
    Cast { shards: vec![None; 2], runs: 1, flaws: true, ..Cast::default() }
}

/// A cloud without faults in which workers take these turns.
fn at(seed: u64, turns: Turns) -> Nature {
    Nature { seed, rates: Rates::default(), turns, is_disk: false, power_lost: None }
}

#[test]
fn a_replacement_of_rows_that_are_out_of_date() {
    // One of two workers has computed the rows of `kept`, and continues when rejects were cleared and the other has ended.
    is_found_by(Mutant::SkipBaseCheck, 20, |seed, mutant| {
        let late = Turns::Late("ledger/_delta_log/00000000000000000004.json".to_owned());
        play(&World::new(at(seed, late)), &Cast { clearings: 1, ..pair() }, mutant)
    });
}

#[test]
fn rows_that_are_added_twice() {
    is_found(Mutant::KeepDuplicates, OVERLAPPING, 10);
}

#[test]
fn a_lost_response_that_counts_as_success() {
    is_found(Mutant::BelieveLostResponses, DEFAULT, 50);
}

#[test]
fn a_completion_that_does_not_look_at_what_has_changed() {
    // Rejects are cleared, and one of two workers commits its rows only when the other has ended.
    is_found_by(Mutant::CompleteBlindly, 20, |seed, mutant| {
        let cast = Cast { clearings: 1, ..pair() };
        let late = Turns::Late("spectrum/_delta_log/00000000000000000001.json".to_owned());
        play(&World::new(at(seed, late)), &cast, mutant)
    });
}

#[test]
fn rows_that_are_added_while_their_step_is_completed() {
    // One of two workers commits its rows just before the other, in which they fail, completes their step.
    is_found_by(Mutant::CompleteUnseen, 40, |seed, mutant| {
        let overtaken = Turns::Overtaken("spectrum/_delta_log/00000000000000000001.json".to_owned());
        play(&World::new(at(seed, overtaken)), &pair(), mutant)
    });
}

#[test]
fn later_steps_that_are_completed_while_another_program_changes_their_input() {
    // One history in 1,400 is like that, and one in about a hundred of this theme.
    let theme = Theme { shards: Some(false), flaws: Some(true), ..FOREIGN };
    is_found_by(Mutant::CompleteAlone, 5, |number, mutant| of_seed(115 + number, theme, mutant));
}

#[test]
fn a_worker_that_does_not_wait_for_others() {
    is_found(Mutant::CompleteEarly, Theme { shards: Some(true), ..DEFAULT }, 10);
}

#[test]
fn a_repetition_that_ends_after_its_first_round() {
    is_found(Mutant::SettleEarly, DEFAULT, 10);
}

#[test]
fn a_step_that_runs_on_inputs_of_another_run() {
    is_found(Mutant::RunOnStaleInputs, Theme { edits: Some(true), ..OVERLAPPING }, 20);
}

#[test]
fn changes_of_other_programs_that_nobody_notices() {
    is_found(Mutant::TrustOthers, FOREIGN, 10);
}

#[test]
fn rows_of_other_programs_that_stay() {
    is_found(Mutant::KeepOthers, FOREIGN, 30);
}

#[test]
fn rejects_that_are_cleared_under_complete_steps() {
    is_found(Mutant::ForgetReset, RETRIED, 10);
}

#[test]
fn a_row_that_is_added_after_it_was_rejected() {
    // Two workers do the same, and one of them commits its rows only when the other has ended.
    is_found_by(Mutant::AddRejected, 20, |seed, mutant| {
        let late = Turns::Late("spectrum/_delta_log/00000000000000000001.json".to_owned());
        play(&World::new(at(seed, late)), &pair(), mutant)
    });
}

#[test]
fn garbage_that_is_about_to_be_committed() {
    is_found(Mutant::CollectYoung, COLLECTED, 10);
}

#[test]
fn garbage_that_comes_back() {
    is_found(Mutant::CollectUnseen, COLLECTED, 30);
}

#[test]
fn bytes_that_are_not_synced() {
    is_found(Mutant::SkipBytesSync, DISK, 5);
}

#[test]
fn names_that_are_not_synced() {
    is_found(Mutant::SkipNameSync, DISK, 5);
}
