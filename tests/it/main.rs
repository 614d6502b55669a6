//! The program from outside, as one binary: each further one would link the engines again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adaptive; // the loop of trainer and schedule, through files alone
mod bad_input; // twenty kinds of it: what is said, and that nothing is lost
mod cookbook; // the recipes of docs/cookbook.md
mod datasets; // ImageNet-LT and iWildCam: small ones run, the whole ones are planned
mod edits; // what a change of the pipeline makes again, and what not
mod end_to_end; // the digits pipeline as it ships
mod experiment; // classifiers, the built-in learner, the experiment
mod export; // manifests out to trainers, and their readers
mod hub; // models of Hugging Face's hub
mod inspect; // `models inspect`: what a model is
mod maintenance;
mod prompts; // class descriptions from an endpoint; common names and excluded classes
mod quickstart; // docs/quickstart.md, as a new user would follow it
mod readers; // other engines read the tables
mod resume; // kills, orders, partitions: the same tables
mod s3; // a lake and a source in S3, through faults; workers and signals
mod sources; // lists, folders, tables and tars: the same data set
mod sql; // functions and golden queries
mod support;
mod tidy; // rules of the house // other writers, garbage, rejects that are tried again
