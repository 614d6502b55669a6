//! A small classifier, trained on the rows of a manifest, for comparing curricula.
//!
//! [`Learner`] trains a network with candle on the CPU; [`Metrics`] says how well it predicts, class group by class
//! group; [`Comparison`] says how sure a difference between two curricula is. All that is random is drawn from a
//! generator keyed on what it is drawn for, so that the same seed, data and rows give the same weights to the bit on
//! one machine.

mod data;
mod error;
mod loss;
mod metrics;
mod names;
mod network;
mod random;
mod sampling;
mod statistics;
mod train;

pub(crate) use data::{Data, Shape};
pub(crate) use error::LearnerError;
pub(crate) use loss::Loss;
pub(crate) use metrics::{Borders, Metrics};
pub(crate) use network::Architecture;
pub(crate) use sampling::Sampling;
pub(crate) use statistics::{Comparison, Score, mean, standard_deviation};
pub(crate) use train::{Learner, Schedule, Settings};
