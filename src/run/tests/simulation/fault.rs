//! The faults of a store.

/// A fault of a call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The process ends, and the call has no effect.
    CrashBefore,
    /// The process ends after the call had its effect.
    CrashAfter,
    /// An error without an effect.
    ErrorBefore,
    /// An error after the effect: the response is lost.
    ErrorAfter,
    /// An error, with the effect some calls later: the sender gave up a request that was in flight.
    ErrorLate,
    /// A create is rejected as if the object existed. S3 does so while another one is in flight.
    Refused,
    /// A create has its effect and is rejected: its response was lost, and a layer below retried it.
    Repeated,
}

/// What a call does. A read either succeeds or fails, so reads have fewer faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    List,
    Put,
    Create,
    Delete,
    /// A file of a disk gets another name. Its system does not answer late.
    Rename,
    /// A disk is told to write what it has.
    Sync,
}

impl Kind {
    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::List)
    }

    /// Returns the faults that a call of this kind can have.
    pub(super) fn faults(self, is_disk: bool) -> &'static [Fault] {
        use Fault::{CrashAfter, CrashBefore, ErrorAfter, ErrorBefore, ErrorLate, Refused, Repeated};
        match self {
            Self::Get | Self::List => &[CrashBefore, ErrorBefore],
            // A disk that cannot sync promises nothing more.
            Self::Sync => &[CrashBefore, CrashAfter],
            Self::Rename => &[CrashBefore, CrashAfter, ErrorBefore],
            Self::Put | Self::Create if is_disk => &[CrashBefore, CrashAfter, ErrorBefore],
            Self::Delete => &[CrashBefore, CrashAfter, ErrorBefore, ErrorAfter],
            Self::Put => &[CrashBefore, CrashAfter, ErrorBefore, ErrorAfter, ErrorLate],
            Self::Create => &[CrashBefore, CrashAfter, ErrorBefore, ErrorAfter, ErrorLate, Refused, Repeated],
        }
    }

    /// Whether its order among the calls of other workers matters. Objects never change once they exist, and what a disk
    /// does with a name that nobody knows yet is nobody's business.
    pub(super) fn is_ordered(self) -> bool {
        !matches!(self, Self::Get)
    }
}

impl Fault {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::CrashBefore => "crash before the effect",
            Self::CrashAfter => "crash after the effect",
            Self::ErrorBefore => "error, no effect",
            Self::ErrorAfter => "error, effect done",
            Self::ErrorLate => "error, effect done later",
            Self::Refused => "create rejected, no effect",
            Self::Repeated => "create rejected, effect done",
        }
    }
}
