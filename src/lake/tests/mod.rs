//! Tests of the lake as a whole.

mod contention;
mod gc;
