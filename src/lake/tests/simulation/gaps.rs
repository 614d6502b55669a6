//! Known behaviour of stores, each as one fault at one object.

use super::{
    fault::Fault::{self, CrashAfter, CrashBefore, ErrorAfter, ErrorBefore, ErrorLate, Refused, Repeated},
    history::{Cast, Outcome, play},
    model::{self, Rows},
    world::{Rates, Turns, World},
};

/// The log entry that creates a table, and that of the first commit of rows.
const ENTRIES: [&str; 2] = ["00000000000000000000.json", "00000000000000000001.json"];
/// A table that is replaced, and one to which rows are added.
const TABLES: [&str; 2] = [model::ASKED, model::SPECTRUM];

/// Plays one worker, which restarts if it has to, with one fault at the first suitable call for `object`.
fn with(fault: Fault, object: &str) -> Outcome {
    let ledger = object.starts_with(model::LEDGER);
    let world = World::new(0, Rates::default(), Turns::Meeting(String::new()));
    world.order(object, fault);
    let outcome = play(&world, &Cast { shards: vec![None], runs: 2, edits: false, ledger });
    assert_eq!(outcome.violations, Vec::<String>::new(), "{fault:?} at {object}:\n{}", outcome.trace);
    assert_eq!(outcome.counts.of(fault), 1, "{fault:?} does not occur at {object}:\n{}", outcome.trace);
    outcome
}

/// Plays the fault at the entry of each table; returns whether the run continued in spite of it.
fn at_entry(fault: Fault, entry: &str) -> [bool; 2] {
    TABLES.map(|table| with(fault, &format!("{table}/_delta_log/{entry}")).counts.aborted == 0)
}

/// Returns a unit with rows that fail and rows that do not.
fn mixed_unit() -> String {
    let units = model::units(&model::asked(0, &Rows::new()));
    let mixed = units.into_values().find(|(_, ids)| {
        ids.iter().any(|id| model::generate(id).is_none()) && ids.iter().any(|id| model::generate(id).is_some())
    });
    mixed.expect("some rows fail").0
}

#[test]
fn a_create_whose_response_is_lost() {
    for entry in ENTRIES {
        assert_eq!(at_entry(Repeated, entry), [true; 2], "{entry}");
    }
}

#[test]
fn a_create_that_is_rejected_without_an_effect() {
    for entry in ENTRIES {
        assert_eq!(at_entry(Refused, entry), [true; 2], "{entry}");
    }
}

#[test]
fn a_commit_that_times_out_after_its_effect() {
    for entry in ENTRIES {
        assert_eq!(at_entry(ErrorAfter, entry), [true; 2], "{entry}");
    }
}

#[test]
fn a_commit_that_times_out_before_its_effect() {
    assert_eq!(at_entry(ErrorBefore, ENTRIES[1]), [true; 2]);
    assert_eq!(at_entry(ErrorBefore, ENTRIES[0]), [true; 2]);
}

#[test]
fn a_commit_that_is_given_up_and_arrives_later() {
    assert_eq!(at_entry(ErrorLate, ENTRIES[1]), [true; 2]);
    at_entry(ErrorLate, ENTRIES[0]);
}

#[test]
fn a_crash_between_a_data_file_and_its_commit() {
    assert_eq!(at_entry(CrashBefore, ENTRIES[1]), [false; 2]);
}

#[test]
fn a_crash_between_a_commit_and_its_response() {
    assert_eq!(at_entry(CrashAfter, ENTRIES[1]), [false; 2]);
}

#[test]
fn a_crash_between_rejects_and_rows() {
    with(CrashBefore, &format!("{}/{}", model::LEDGER, mixed_unit()));
    with(CrashBefore, &format!("{}/{}", model::SPECTRUM, mixed_unit()));
}

#[test]
fn a_put_of_a_data_file_whose_response_is_lost() {
    with(ErrorAfter, &format!("{}/{}", model::SPECTRUM, mixed_unit()));
    with(ErrorLate, &format!("{}/{}", model::SPECTRUM, mixed_unit()));
}

#[test]
fn a_checkpoint_that_is_interrupted() {
    for object in [".checkpoint.", "_last_checkpoint"] {
        for fault in [CrashBefore, CrashAfter, ErrorBefore, ErrorAfter] {
            with(fault, object);
        }
    }
}

#[test]
fn two_workers_create_one_table_at_once() {
    for table in TABLES {
        let place = format!("{table}/_delta_log/{}", ENTRIES[0]);
        let outcome = play(
            &World::new(0, Rates::default(), Turns::Meeting(place)),
            &Cast { shards: vec![None; 2], runs: 1, edits: false, ledger: false },
        );
        assert_eq!(outcome.violations, Vec::<String>::new(), "{table}:\n{}", outcome.trace);
        assert!(outcome.counts.conflicts > 0, "{table}: they do not meet:\n{}", outcome.trace);
        assert_eq!(outcome.counts.aborted, 0, "{table}:\n{}", outcome.trace);
    }
}
