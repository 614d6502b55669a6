//! The program from outside, as one binary: each further one would link the engines again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adaptive; // the loop of trainer and schedule, through files alone
mod bad_input; // twenty kinds of it: what is said, and that nothing is lost
mod cookbook; // the recipes of docs/cookbook.md
mod edits; // what a change of the pipeline makes again, and what not
mod learning; // classifiers, the built-in learner, the experiment
mod main_job; // the digits pipeline as it ships
mod quickstart; // docs/quickstart.md, as a new user would follow it
mod readers; // other engines read the tables
mod resume; // kills, orders, partitions: the same tables
mod s3; // a lake and a source in S3, through faults; workers and signals
mod sql; // functions and golden queries
mod support;
mod tidy;
mod upkeep; // other writers, garbage, rejects that are tried again // rules of the house
