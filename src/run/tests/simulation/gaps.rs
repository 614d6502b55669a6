//! Known behaviour of stores, each as one fault at one object.

use std::{collections::HashSet, sync::Arc};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};

use super::{
    fault::Fault::{self, CrashAfter, CrashBefore, ErrorAfter, ErrorBefore, ErrorLate, Refused, Repeated},
    history::{Cast, Outcome, play},
    model::{self, Rows},
    world::{Nature, Rates, Turns, World},
};
use crate::run::units;

/// The log entry that creates a table, and that of the first commit of rows.
const ENTRIES: [&str; 2] = ["00000000000000000000.json", "00000000000000000001.json"];
/// A table that is replaced, and one to which rows are added.
const TABLES: [&str; 2] = [model::ASKED, model::SPECTRUM];

/// A cloud without faults of its own.
fn nature(turns: Turns) -> Nature {
    Nature { seed: 0, rates: Rates::default(), turns, is_disk: false, power_lost: None }
}

/// Plays one worker, which restarts if it has to, with one fault at the first suitable call for `object`.
fn with(fault: Fault, object: &str) -> Outcome {
    let world = World::new(nature(Turns::Meeting(String::new())));
    world.order(object, fault);
    let outcome = play(&world, &Cast { shards: vec![None], runs: 2, ..Cast::default() }, None);
    assert_eq!(outcome.violations, Vec::<String>::new(), "{fault:?} at {object}:\n{}", outcome.trace);
    assert_eq!(outcome.counts.of(fault), 1, "{fault:?} does not occur at {object}:\n{}", outcome.trace);
    outcome
}

/// Returns the name of a unit with rows that do not fail.
fn unit() -> String {
    let asked = model::asked(0, &Rows::new());
    let columns: [ArrayRef; 2] = [
        Arc::new(asked.keys().map(Some).collect::<StringArray>()),
        Arc::new(asked.keys().map(|id| id.split('.').next()).collect::<StringArray>()),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(
        ["id", "source_id"].into_iter().zip(columns).map(|(n, c)| (n, c, true)),
    );
    let units = units::cut(model::SPECTRUM, &[rows.unwrap()], "id", model::SOURCES_PER_UNIT, &HashSet::new(), None);
    let has_rows = |ids: &ArrayRef| ids.as_string::<i32>().iter().flatten().any(|id| model::generate(id).is_some());
    units.unwrap().into_iter().find(|unit| has_rows(unit.missing.column(0))).unwrap().id
}

/// Plays the fault at the entry of each table; returns whether the run continued in spite of it.
fn at_entry(fault: Fault, entry: &str) -> [bool; 2] {
    TABLES.map(|table| with(fault, &format!("{table}/_delta_log/{entry}")).counts.aborted == 0)
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
    // The first entry with rows of `spectrum` follows that of `rejects`.
    with(CrashAfter, &format!("{}/_delta_log/{}", model::REJECTS, ENTRIES[1]));
    with(CrashBefore, &format!("{}/_delta_log/{}", model::SPECTRUM, ENTRIES[1]));
}

#[test]
fn a_put_of_a_data_file_whose_response_is_lost() {
    for fault in [ErrorAfter, ErrorLate] {
        with(fault, &format!("{}/{}", model::SPECTRUM, unit()));
    }
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
            &World::new(nature(Turns::Meeting(place))),
            &Cast { shards: vec![None; 2], runs: 1, ..Cast::default() },
            None,
        );
        assert_eq!(outcome.violations, Vec::<String>::new(), "{table}:\n{}", outcome.trace);
        assert!(outcome.counts.conflicts > 0, "{table}: they do not meet:\n{}", outcome.trace);
        assert_eq!(outcome.counts.aborted, 0, "{table}:\n{}", outcome.trace);
    }
}
