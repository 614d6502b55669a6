//! The results of an experiment as a CSV file: everything that a report of it needs.
//!
//! It has the columns of the table `experiments`, and `epoch` and `image_guidance` for what adaptive curricula measured.
//! Rows without a `learner_seed` are those of a whole split: the metric `level`, chosen for `fixed`; and for each epoch and
//! level of an adaptive strategy `gain` and `standard_error`, means over the learners, and `chosen`, how many learners
//! trained on the level.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::{self, OpenOptions},
    path::Path,
};

use super::{Findings, LevelGain, error::ExperimentError, learner::mean};
use crate::error::Result;

const HEADER: &str = "architecture,method,loss,sampling,split_seed,learner_seed,metric,epoch,image_guidance,value\n";

/// Checks that `file` can be written, and leaves what it holds.
///
/// # Errors
/// Returns an error if it cannot be opened for writing.
pub(super) fn check(file: &Path) -> Result<()> {
    let opened = OpenOptions::new().append(true).create(true).open(file);
    opened.map_err(|source| ExperimentError::Write { path: file.to_owned(), source })?;
    Ok(())
}

/// Writes the results to `file`.
///
/// # Errors
/// Returns an error if it cannot be written.
pub(super) fn write(file: &Path, findings: &Findings) -> Result<()> {
    fs::write(file, text(findings)).map_err(|source| ExperimentError::Write { path: file.to_owned(), source })?;
    Ok(())
}

/// No name needs quotes: methods are identifiers, joined by `+`. Numbers have all their digits.
fn text(findings: &Findings) -> String {
    let mut text = HEADER.to_owned();
    let mut line = |cells: [&str; 10]| {
        let _ = writeln!(text, "{}", cells.join(","));
    };
    for row in &findings.measurements {
        let [split, learner, value] = [row.split_seed.to_string(), row.learner_seed.to_string(), row.value.to_string()];
        let (method, loss, sampling) = (row.method.as_str(), row.loss.as_str(), row.sampling.as_str());
        line([&row.architecture, method, loss, sampling, &split, &learner, &row.metric, "", "", &value]);
    }
    for row in &findings.fixed_levels {
        let [split, level] = [row.split_seed, row.image_guidance].map(|value| value.to_string());
        line([&row.architecture, &row.method, "", "", &split, "", "level", "", "", &level]);
    }
    let mut gains: BTreeMap<_, Vec<&LevelGain>> = BTreeMap::new();
    for gain in &findings.gains {
        let key = (&gain.architecture, &gain.method, gain.split_seed, gain.epoch, gain.image_guidance);
        gains.entry(key).or_default().push(gain);
    }
    for ((architecture, method, split, epoch, level), gains) in gains {
        let of = |value: fn(&LevelGain) -> Option<f64>| {
            let values: Vec<f64> = gains.iter().filter_map(|gain| value(gain)).collect();
            mean(&values).map_or(String::new(), |mean| mean.to_string())
        };
        let chosen = gains.iter().filter(|gain| gain.chosen).count().to_string();
        let [split, epoch, level] = [split, epoch, level].map(|value| value.to_string());
        for (metric, value) in [
            ("gain", of(|gain| Some(gain.gain))),
            ("standard_error", of(|gain| gain.standard_error)),
            ("chosen", chosen),
        ] {
            line([architecture, method, "", "", &split, "", metric, &epoch, &level, &value]);
        }
    }
    text
}
