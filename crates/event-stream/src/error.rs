//! What can go wrong, by who has to act: the stream, one lane, one delivery.

/// A delivery failed: whether the records are in the log is unknown. Send again with the same ids.
#[derive(Clone, Debug, thiserror::Error)]
#[error("delivery failed, the outcome is unknown: {0}")]
pub struct PublishError(pub String);

/// A failure of the stream as a whole.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Kafka client error, with the operation.
    #[error("{operation}: {cause}")]
    Kafka {
        /// What was being done.
        operation: &'static str,
        /// The client's words.
        cause: String,
    },
    /// The store is empty, and the group has a past.
    #[error(
        "the store is empty, but group {group} has worked on lane {lane} of {topic} up to offset {offset}: bring the \
         store's data back; to begin anew, delete the topics and the group as well"
    )]
    StoreLost {
        /// The group that has committed something.
        group: String,
        /// Its topic.
        topic: String,
        /// One of the lanes that it has worked on.
        lane: u32,
        /// How far.
        offset: i64,
    },
    /// The topics are not as they must be; one sentence each.
    #[error("topics are not as they must be: {}", .0.join("; "))]
    Topics(Vec<String>),
    /// Settings that contradict each other; one sentence that says what to change.
    #[error("{0}")]
    Settings(String),
}

impl StreamError {
    pub(crate) fn kafka(operation: &'static str, cause: impl std::fmt::Display) -> Self {
        Self::Kafka { operation, cause: cause.to_string() }
    }
}

/// Why a lane stands still until a person acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// No position in the store, but the log does not start at 0 or the group has committed an offset.
    #[error("no position in the store, but {0}")]
    MissingPosition(String),
    /// The position lies outside the log.
    #[error("position {position} is outside the log ({low}..{high})")]
    OutOfRange {
        /// The position of the store.
        position: i64,
        /// First offset of the log.
        low: i64,
        /// End of the log.
        high: i64,
    },
    /// The topic is not the one that the stored positions belong to, or has other partitions; the text says what.
    #[error("another topic: {0}")]
    TopicChanged(String),
    /// Something stored or read cannot be what it is; the text says what.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// A record or value of a format or version that this program does not know.
    #[error("unknown format: {0}")]
    UnknownFormat(String),
    /// A record makes this program panic, and an earlier owner of the lane may have acted on it.
    #[error("poison: the record at offset {offset} panics, and an earlier owner may have folded it: {why}")]
    Poison {
        /// The record.
        offset: i64,
        /// What the panic said.
        why: String,
    },
}

impl HaltReason {
    /// The alarm's name, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MissingPosition(_) => "missing-position",
            Self::OutOfRange { .. } => "out-of-range",
            Self::TopicChanged(_) => "topic-changed",
            Self::Corrupt(_) => "corrupt",
            Self::UnknownFormat(_) => "unknown-format",
            Self::Poison { .. } => "poison",
        }
    }
}

/// How one run of a lane loop ended, other than by revocation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LaneFault {
    /// The lane halts with a named alarm; the others go on.
    #[error("halted: {0}")]
    Halt(#[from] HaltReason),
    /// Run the loop again from its stored position, after a backoff (fenced: a backoff of nearly nothing).
    #[error("restart: {0}")]
    Restart(String),
}
