//! What a service says about its own things: pure functions over a view of the store, nothing about lanes, windows or Kafka.

use std::collections::BTreeMap;

use bytes::Bytes;
use event_stream::HaltReason;
use proto::DecodeError;
use redis_txn::{Unread, View};
use saga_core::ids::{Ordinal, SagaId};
use saga_core::record::{SagaResult, UndoNotice};

/// What a saga is to run: the definition's name and one opaque input per step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the definition.
    pub definition: String,
    /// By step name; at most `MAX_INPUTS_BYTES` together. A rule that gives more is broken: its request fails as one whose
    /// rule panics, and nothing is written.
    pub inputs: BTreeMap<String, Bytes>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<A> {
    /// It starts the saga that it was offered; the business has written that down.
    Start(Plan),
    /// It waits for a saga that runs already.
    Join(SagaId),
    /// It is answered at once, without a saga.
    Answer(A),
}

/// What became of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Application {
    /// The business has written it down.
    Applied,
    /// The subject does not wait for this saga (any more): nothing was written.
    NotCurrent,
    /// What is stored cannot be read; nothing was written, and the lane halts for this reason ([`unreadable`]).
    Unreadable(HaltReason),
}

/// Why a lane halts at a stored value that cannot be read: it is damaged, or a later program has written it.
pub fn unreadable(key: &str, error: &DecodeError) -> HaltReason {
    let why = format!("{key}: {error}");
    match error {
        DecodeError::Malformed { .. } => HaltReason::Corrupt(why),
        DecodeError::UnknownFormat { .. } => HaltReason::UnknownFormat(why),
    }
}

/// The business half of a starter. All functions are pure and total: they may run several times for one request, and
/// only the last run counts.
pub trait Business: Send + Sync + 'static {
    /// What a request brings.
    type Request: Send + Sync + 'static;
    /// What a request is told that needs no saga.
    type Answer: Send + 'static;

    /// The name of the thing that the request is about (an order id). It is stored with the pending saga and given
    /// back with its result.
    fn subject<'a>(&self, request: &'a Self::Request) -> &'a str;

    /// The keys that `decide` and `apply` read for a subject.
    fn keys(&self, subject: &str, keys: &mut Vec<String>);

    /// What else `decide` reads for this request. What is not named is read too, but each such key costs the whole
    /// window another round.
    fn request_keys(&self, _request: &Self::Request, _keys: &mut Vec<String>) {}

    /// Decides a request. `saga` and `ordinal` are what the saga will have if this starts it.
    fn decide(
        &self,
        view: &mut View<'_>,
        request: &Self::Request,
        saga: SagaId,
        ordinal: &Ordinal,
    ) -> Result<Decision<Self::Answer>, Unread>;

    /// Applies the end of a saga to its subject.
    fn apply(&self, view: &mut View<'_>, subject: &str, result: &SagaResult) -> Result<Application, Unread>;

    /// Notes on the subject that its saga is being undone; it may be told more than once. Not every business shows it.
    fn undoing(&self, _view: &mut View<'_>, _subject: &str, _notice: &UndoNotice) -> Result<Application, Unread> {
        Ok(Application::Applied)
    }
}
