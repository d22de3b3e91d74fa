//! What a participant says about its own things: pure functions over values, nothing about lanes, records or Kafka.

use bytes::Bytes;
use redis_txn::Unread;
use saga_core::record::{Command, Refusal};

use crate::values::Values;

/// The rule of one service. It may be asked several times for one command (conflicts): it keeps no state of its own.
pub trait Business: Send + Sync + 'static {
    /// The keys that `action` or `undo` of this command will read. One too few costs a round trip, one too many a WATCH.
    fn keys(&self, command: &Command) -> Vec<String>;

    /// Decides an action that has not been decided before. Writes count only with [`Decision::Apply`].
    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault>;

    /// Reverses what an applied action did; `done` is the `undo` that it gave.
    fn undo(&self, command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault>;
}

/// What becomes of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is done: what was written counts.
    Apply {
        /// For later steps that `uses` this one; with more than `MAX_OUTPUT_BYTES` the command fails instead.
        output: Bytes,
        /// What the undo needs to know; opaque to everyone else.
        undo: Bytes,
    },
    /// A business "no": final and recorded, unless the command says that it may not be refused.
    Refuse(Refusal),
    /// Cannot be decided now: nothing is recorded, the same command will be asked again.
    Fail {
        /// A sentence for people.
        reason: String,
    },
}

/// What became of an undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndoOutcome {
    /// All is as if the action had never been.
    Reversed,
    /// Something that the action changed no longer exists. The step counts as undone, and an alarm is raised.
    ObjectGone {
        /// What is gone.
        object: String,
    },
    /// Cannot be done now: nothing is recorded, the same command will be asked again.
    Fail {
        /// A sentence for people.
        reason: String,
    },
}

/// Why a rule could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A key that was not named: it will be read, and the rule asked again.
    Unread(Unread),
    /// A stored value cannot be what it is: the command fails with an alarm, the lane goes on.
    Corrupt(String),
    /// A stored value was written by a later program: the lane halts on this process.
    UnknownFormat(String),
}

impl From<Unread> for Fault {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}
