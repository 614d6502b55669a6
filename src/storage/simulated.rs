//! What the simulation (`src/run/tests/simulation`) changes in this program: bugs that it must find, and chance that it must
//! repeat. In the program itself there is neither.

use std::hash::{BuildHasher, Hash, RandomState};

/// A bug that a history can be played with, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A full-refresh table is replaced although it has changed since its rows were computed.
    SkipBaseCheck,
    /// Rows are appended although the table has their ids already.
    KeepDuplicates,
    /// A commit whose response was lost counts as done.
    BelieveLostResponses,
    /// A completion does not compare what it has looked at with what has changed since.
    CompleteBlindly,
    /// A step is completed although rows were added since its rows were compared.
    CompleteUnseen,
    /// A change by another program is accounted for, and later steps that were completed meanwhile stay complete.
    CompleteAlone,
    /// A worker does not wait for the units of others before it completes a step.
    CompleteEarly,
    /// A step that repeats is taken for settled after its first round.
    SettleEarly,
    /// A step runs although another run has changed its inputs.
    RunOnStaleInputs,
    /// Rows that another program changed are taken for those of the step.
    TrustOthers,
    /// Rows that another program added stay.
    KeepOthers,
    /// Rejects are cleared, and the steps that miss their rows stay complete.
    ForgetReset,
    /// A row that one run has rejected is added by another run after the step was completed without it.
    AddRejected,
    /// `gc` deletes files that a run is about to commit.
    CollectYoung,
    /// `gc` deletes files that were written since it listed them.
    CollectUnseen,
    /// The bytes of an object are not forced to the disk.
    SkipBytesSync,
    /// The name of an object is not forced to the disk.
    SkipNameSync,
}

/// Returns whether the program has this bug.
#[cfg(not(test))]
pub(crate) const fn has(_: Mutant) -> bool {
    false
}

/// Returns a number that nobody can predict.
#[cfg(not(test))]
pub(crate) fn chance(of: impl Hash) -> u64 {
    RandomState::new().hash_one(of)
}

#[cfg(test)]
pub(crate) use self::histories::{chance, has, play};

#[cfg(test)]
mod histories {
    use std::cell::Cell;

    use super::{BuildHasher, Hash, Mutant, RandomState};

    thread_local! {
        /// The history that this thread plays: with this bug.
        static PLAYED: Cell<Option<Option<Mutant>>> = const { Cell::new(None) };
    }

    pub(crate) fn has(mutant: Mutant) -> bool {
        PLAYED.get() == Some(Some(mutant))
    }

    /// Histories have no chance of their own.
    pub(crate) fn chance(of: impl Hash) -> u64 {
        if PLAYED.get().is_some() { u64::MAX / 2 } else { RandomState::new().hash_one(of) }
    }

    /// Plays a history on this thread, in which the program has the bug `mutant`.
    pub(crate) fn play<T>(mutant: Option<Mutant>, history: impl FnOnce() -> T) -> T {
        let before = PLAYED.replace(Some(mutant));
        let played = history();
        PLAYED.set(before);
        played
    }
}
