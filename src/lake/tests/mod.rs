//! Tests of the lake as a whole.

mod gc;
mod simulation;
