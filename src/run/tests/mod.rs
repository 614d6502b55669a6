//! Tests of runs as a whole.

mod simulation;
