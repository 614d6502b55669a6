//! Errors of the learner.

/// Why something cannot be learned, measured or compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LearnerError {
    /// candle refuses, which is a bug here or a lack of memory.
    #[error("cannot {doing}")]
    Candle {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// Why.
        source: Box<candle_core::Error>,
    },
    /// A choice by a name that nobody knows.
    #[error("unknown {what} `{found}`; valid are {known}")]
    Unknown {
        /// What is chosen.
        what: &'static str,
        /// What was given.
        found: String,
        /// The known names, in backticks.
        known: String,
    },
    /// A value that is out of its range or does not fit the others.
    #[error("`{name}` is {found}; {allowed}")]
    Value {
        /// The setting or argument.
        name: &'static str,
        /// What was given.
        found: String,
        /// What is allowed, as the end of a sentence.
        allowed: String,
    },
    /// A loss that is no number any more.
    #[error("the loss is {loss} at iteration {iteration}\nhint: lower the learning rate")]
    Diverged {
        /// The iteration, counted from 0 over all epochs.
        iteration: usize,
        /// The loss.
        loss: f32,
    },
    /// A run that one of two compared methods has and the other has not.
    #[error("split seed {split_seed} with learner seed {learner_seed} is not a run of both methods")]
    Unpaired {
        /// The seed of the split.
        split_seed: u64,
        /// The seed of the learner.
        learner_seed: u64,
    },
}

impl LearnerError {
    /// A value that is not allowed.
    pub(super) fn value(name: &'static str, found: impl ToString, allowed: impl Into<String>) -> Self {
        Self::Value { name, found: found.to_string(), allowed: allowed.into() }
    }

    /// Puts what was being done to an error of candle.
    pub(super) fn candle(doing: &'static str) -> impl Fn(candle_core::Error) -> Self {
        move |source| Self::Candle { doing, source: Box::new(source) }
    }
}
