//! A small image classifier that compares curricula by training on the rows of their manifests.
//!
//! [`Learner`] trains a network with candle on the CPU. [`Metrics`] measures its predictions for frequent and for rare
//! classes. [`Comparison`] gives the difference between two methods with a confidence interval. Every random draw comes
//! from a generator that is keyed on what it is drawn for. So on one machine the same seed, data and rows give
//! bit-identical weights.

mod data;
mod error;
mod loss;
mod metrics;
mod names;
mod network;
mod random;
mod sampling;
mod shape;
mod statistics;
mod train;

pub(crate) use data::Data;
pub(crate) use error::LearnerError;
pub(crate) use loss::Loss;
pub(crate) use metrics::{ClassBuckets, Metrics};
pub(crate) use network::Architecture;
pub(crate) use sampling::Sampling;
pub(crate) use shape::Shape;
pub(crate) use statistics::{Comparison, Score, mean, standard_deviation};
pub(crate) use train::{Learner, LearningRateSchedule, Settings};
