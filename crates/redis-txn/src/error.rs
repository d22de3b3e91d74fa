//! Why a transaction has no outcome, and why a Redis is not fit.

use service_kit::process::BadConfiguration;

/// Why a transaction has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Bounded attempts were used up by conflicts; nothing was written.
    #[error("gave up after {attempts} conflicting attempts")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// The store went away in the middle and stayed away: it may or may not have happened.
    #[error("the store went away, the outcome is unknown")]
    OutcomeUnknown,
    /// The store is away and this transaction was never sent: it has not happened.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// `apply` panicked; nothing of it was written.
    #[error("the transaction panicked: {0}")]
    Panicked(String),
    /// A key holds a hash, set or list: somebody else's data.
    #[error("key {0} is not a plain string")]
    WrongType(String),
    /// The queue is full: nothing was taken.
    #[error("the queue is full")]
    Full,
    /// The committer has been shut down.
    #[error("the committer has ended")]
    Closed,
}

impl CommitError {
    /// The word for it in spans.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Unavailable(_) => "unavailable",
            Self::Panicked(_) => "panicked",
            Self::WrongType(_) => "wrong-type",
            Self::Full => "full",
            Self::Closed => "closed",
        }
    }
}

/// Why there is no connection at the start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The store stayed away.
    #[error(transparent)]
    Away(#[from] CommitError),
    /// The password does not fit; one sentence that says what to set. The process ends as with any bad configuration.
    #[error("cannot log in")]
    Denied(#[source] BadConfiguration),
}

/// Settings of the Redis that are not safe, one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// What has to be changed.
    #[error("this Redis cannot be used: {}", .0.join("; "))]
    Unsafe(Vec<String>),
}
