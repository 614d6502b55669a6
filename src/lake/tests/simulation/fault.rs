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
