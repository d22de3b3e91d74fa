//! The transaction of a window: its members' subjects, their sequences and pending entries, all in one EXEC.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use event_stream::HaltReason;
use proto::Wire;
use redis_txn::{STORE_ID_KEY, Transaction, Unread, View};
use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::{MAX_INPUTS_BYTES, Start};
use saga_core::starter::{PendingStart, StarterLane};
use uuid::Uuid;

use crate::business::{Business, Decision, unreadable};
use crate::keys::{lane_key, pending_key};

/// One request of a window.
pub struct Member<R> {
    /// Chosen before the first attempt, so that the transaction may run again.
    pub saga: SagaId,
    /// What is asked for.
    pub request: R,
    /// The trace of the request.
    pub trace: TraceContext,
    /// Whether anybody waits for the answer.
    pub interest: Interest,
}

/// Whether anybody waits for what becomes of a request.
///
/// A request whose client has gone starts nothing: the client, or the gateway for it, may have asked another process by now
/// and been told that the order is refused.
#[derive(Clone, Debug, Default)]
pub struct Interest(Option<Weak<()>>);

impl Interest {
    /// As long as somebody holds this.
    pub fn of(holder: &Arc<()>) -> Self {
        Self(Some(Arc::downgrade(holder)))
    }

    fn is_gone(&self) -> bool {
        self.0.as_ref().is_some_and(|holder| holder.strong_count() == 0)
    }
}

/// Starts the sagas of one window.
pub struct WindowTransaction<B: Business> {
    /// The rule.
    pub business: Arc<B>,
    /// Who counts the sequences.
    pub starter: Starter,
    /// Where the results are to go.
    pub results_topic: Arc<str>,
    /// The lane of the window.
    pub lane: Lane,
    /// The requests, in order; shared with whoever runs them again if one of them makes the code panic.
    pub members: Vec<Arc<Member<B::Request>>>,
}

/// What one member is told.
#[derive(Debug)]
pub enum Decided<A> {
    /// Its saga is pending now.
    Started,
    /// It waits for this saga, which runs already.
    Joins(SagaId),
    /// It is answered at once.
    Answered(A),
    /// Nobody waits for it any more: nothing was begun.
    Abandoned,
}

/// What the EXEC of a window did.
#[derive(Debug)]
pub enum WindowOutcome<A> {
    /// One entry per member, in order, and what is pending now.
    Committed {
        /// What each member is told.
        decided: Vec<Decided<A>>,
        /// To be sent now that the EXEC is known to have happened.
        pending: Vec<PendingStart>,
    },
    /// The lane's value cannot be read; nothing was written.
    Corrupt(String),
}

impl<B: Business> Transaction for WindowTransaction<B> {
    type Outcome = WindowOutcome<B::Answer>;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(lane_key(self.lane));
        for member in &self.members {
            self.business.keys(self.business.subject(&member.request), keys);
            self.business.request_keys(&member.request, keys);
        }
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        // A store that is replaced loses the lane's key too, which is watched.
        keys.push(STORE_ID_KEY.to_owned());
    }

    fn traces(&self, visit: &mut dyn FnMut(&TraceContext)) {
        self.members.iter().for_each(|member| visit(&member.trace));
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Self::Outcome, Unread> {
        if let Some(corrupt) = self.other_store(view)? {
            return Ok(WindowOutcome::Corrupt(corrupt));
        }
        let mut lane = match read_lane(view, self.lane)? {
            Ok(lane) => lane.unwrap_or_default(),
            Err(reason) => return Ok(WindowOutcome::Corrupt(reason.to_string())),
        };
        let mut decided = Vec::with_capacity(self.members.len());
        let mut pending = Vec::with_capacity(self.members.len());
        for member in &self.members {
            if member.interest.is_gone() {
                decided.push(Decided::Abandoned);
                continue;
            }
            let ordinal = Ordinal { starter: self.starter.clone(), lane: self.lane, sequence: lane.next_sequence };
            let plan = match self.business.decide(view, &member.request, member.saga, &ordinal)? {
                Decision::Start(plan) => plan,
                Decision::Join(saga) => {
                    decided.push(Decided::Joins(saga));
                    continue;
                }
                Decision::Answer(answer) => {
                    decided.push(Decided::Answered(answer));
                    continue;
                }
            };
            let bytes: usize = plan.inputs.values().map(Bytes::len).sum();
            // What the rule has written cannot be taken back from here, and a start that fits in no record never goes out.
            assert!(bytes <= MAX_INPUTS_BYTES, "a plan with {bytes} bytes of inputs; it may have {MAX_INPUTS_BYTES}");
            let sequence = lane.allocate();
            let entry = PendingStart {
                start: Start {
                    saga: member.saga,
                    ordinal,
                    definition: plan.definition,
                    inputs: plan.inputs,
                    results_topic: self.results_topic.to_string(),
                    trace: member.trace.clone(),
                },
                subject: self.business.subject(&member.request).to_owned(),
            };
            view.set(pending_key(self.lane, sequence), entry.encode());
            pending.push(entry);
            decided.push(Decided::Started);
        }
        if !pending.is_empty() {
            view.set(lane_key(self.lane), lane.encode());
        }
        Ok(WindowOutcome::Committed { decided, pending })
    }
}

impl<B: Business> WindowTransaction<B> {
    /// The ordinal names the store that counts: sequences of another one must never be given out under its name.
    fn other_store(&self, view: &mut View<'_>) -> Result<Option<String>, Unread> {
        let found = view.get(STORE_ID_KEY)?;
        let is_ours = |id: &Bytes| Uuid::try_parse_ascii(id).is_ok_and(|id| id == self.starter.store);
        Ok((!found.as_ref().is_some_and(is_ours))
            .then(|| "the store is not the one of this process's start; restart the service".to_owned()))
    }
}

/// The lane's value; the inner error says why it cannot be read.
pub(crate) fn read_lane(view: &mut View<'_>, lane: Lane) -> Result<Result<Option<StarterLane>, HaltReason>, Unread> {
    let key = lane_key(lane);
    let Some(bytes) = view.get(&key)? else { return Ok(Ok(None)) };
    Ok(StarterLane::decode(&bytes).map(Some).map_err(|error| unreadable(&key, &error)))
}
