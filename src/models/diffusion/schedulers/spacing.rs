//! How timesteps are spaced over the training timesteps: Lin et al. 2023 (arXiv 2305.08891), table 2, and
//! `set_timesteps` of diffusers' schedulers.

use serde::Deserialize;

/// The spacing rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// From 0 to the last, both included.
    Linspace,
    /// From 0 in integer strides.
    Leading,
    /// From the last in strides that need not be integers.
    Trailing,
}

impl Rule {
    /// Returns diffusers' name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Linspace => "linspace",
            Self::Leading => "leading",
            Self::Trailing => "trailing",
        }
    }
}

/// The keys of the spacing.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Spacing {
    #[serde(rename = "timestep_spacing")]
    pub(super) rule: Rule,
    /// The offset that `leading` adds to every timestep.
    pub(super) steps_offset: u32,
}

impl Spacing {
    /// Returns the timesteps, in the order in which they run. They are integers except for `linspace`.
    pub(super) fn timesteps(self, train: u32, count: u32) -> Vec<f64> {
        match self.rule {
            Rule::Linspace => {
                let mut timesteps = linspace(f64::from(train - 1), count);
                timesteps.reverse();
                timesteps
            }
            Rule::Leading => {
                let stride = train / count;
                (0..count).rev().map(|index| f64::from(index * stride + self.steps_offset)).collect()
            }
            Rule::Trailing => {
                let train = f64::from(train);
                // numpy's `arange` takes its stride from the first two values, whose error decides how halves are
                // rounded. For a few counts (61 of 1000 is the first) it also gives diffusers an extra timestep, -1.
                let stride = (train - train / f64::from(count)) - train;
                (0..count).map(|index| (train + f64::from(index) * stride).round_ties_even() - 1.0).collect()
            }
        }
    }

    /// Returns the timesteps of a scheduler that supports only integers.
    #[expect(clippy::cast_possible_truncation, reason = "a few thousand timesteps")]
    pub(super) fn whole_timesteps(self, train: u32, count: u32) -> Vec<i64> {
        self.timesteps(train, count).into_iter().map(|timestep| timestep.round_ties_even() as i64).collect()
    }
}

/// Returns numpy's `linspace` from 0.
pub(super) fn linspace(end: f64, count: u32) -> Vec<f64> {
    let step = end / f64::from(count.max(2) - 1);
    (0..count).map(|index| if index > 0 && index + 1 == count { end } else { f64::from(index) * step }).collect()
}

/// Converts an integer timestep to the UNet's input.
#[expect(clippy::cast_precision_loss, reason = "a few thousand timesteps")]
pub(super) fn float(timestep: i64) -> f32 {
    timestep as f32
}
