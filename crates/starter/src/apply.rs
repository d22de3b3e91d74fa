//! The transaction of a batch of results: subjects, pending entries, ended sequences and position, all in one EXEC.

use std::sync::Arc;

use event_stream::HaltReason;
use proto::Wire;
use redis_txn::{Transaction, Unread, View};
use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::{SagaResult, UndoNotice};
use saga_core::starter::{PendingStart, StarterLane};
use telemetry::context;
use tracing::Span;

use crate::business::{Application, Business, unreadable};
use crate::keys::{lane_key, pending_key};
use crate::lanes::Open;
use crate::start::read_lane;

/// What a record of the results topic says; shared by the transaction and those who are told after it.
#[derive(Clone, Debug)]
pub enum News {
    /// A saga has ended.
    Ended(Arc<SagaResult>),
    /// A saga is being undone.
    Undoing(Arc<UndoNotice>),
}

impl News {
    /// For spans.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ended(result) => context::outcome_word(&result.outcome),
            Self::Undoing(_) => "undoing",
        }
    }

    /// The saga it is about.
    pub fn saga(&self) -> SagaId {
        match self {
            Self::Ended(result) => result.saga,
            Self::Undoing(notice) => notice.saga,
        }
    }

    /// The saga's ordinal.
    pub fn ordinal(&self) -> &Ordinal {
        match self {
            Self::Ended(result) => &result.ordinal,
            Self::Undoing(notice) => &notice.ordinal,
        }
    }

    /// The saga's trace.
    pub fn trace(&self) -> &TraceContext {
        match self {
            Self::Ended(result) => &result.trace,
            Self::Undoing(notice) => &notice.trace,
        }
    }
}

/// One record of a batch.
pub struct Incoming {
    /// Where the record lies.
    pub offset: i64,
    /// What it says.
    pub news: News,
    /// What this process remembers of the saga; a pending entry never changes, so it need not be read again.
    pub known: Option<Open>,
    /// In which it is applied; disabled unless its trace is recorded.
    pub span: Span,
}

/// Applies the results between two positions of a lane.
pub struct ResultBatch<B: Business> {
    /// The rule.
    pub business: Arc<B>,
    /// Who counts the sequences.
    pub starter: Starter,
    /// The lane.
    pub lane: Lane,
    /// The position that must be stored, else this batch is fenced.
    pub expected: i64,
    /// The position afterwards.
    pub next: i64,
    /// The records, in order.
    pub results: Vec<Incoming>,
}

/// Why a result changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The subject does not wait for this saga.
    NotCurrent,
    /// The sequence has ended already: the result was sent twice.
    Duplicate,
    /// Another starter, or this one before its store was wiped or restored.
    OtherStarter,
    /// The ordinal names another lane than the one it travelled in.
    OtherLane,
    /// This store never gave the sequence out.
    NeverStarted,
    /// The sequence belongs to another saga.
    OtherSaga,
}

impl Ignored {
    /// For logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotCurrent => "not-current",
            Self::Duplicate => "duplicate",
            Self::OtherStarter => "other-starter",
            Self::OtherLane => "other-lane",
            Self::NeverStarted => "never-started",
            Self::OtherSaga => "other-saga",
        }
    }

    /// Whether this must not happen even after crashes.
    pub fn is_alarm(self) -> bool {
        match self {
            Self::NotCurrent | Self::Duplicate | Self::OtherStarter => false,
            Self::OtherLane | Self::NeverStarted | Self::OtherSaga => true,
        }
    }
}

/// What became of one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is written down.
    Applied,
    /// It changed nothing.
    Ignored(Ignored),
}

/// What the EXEC of a batch did.
#[derive(Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The lane stands at another position; nothing was written.
    Fenced {
        /// That position.
        found: i64,
    },
    /// One fate per result, in order. With `halt`, only those before it, and the lane stands there.
    Committed {
        /// What became of each.
        fates: Vec<Fate>,
        /// Why the rest could not be applied.
        halt: Option<HaltReason>,
    },
}

impl<B: Business> Transaction for ResultBatch<B> {
    type Outcome = BatchOutcome;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(lane_key(self.lane));
        for open in self.results.iter().filter_map(|incoming| incoming.known.as_ref()) {
            self.business.keys(&open.subject, keys);
        }
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        // Written together with the lane's value, and the subjects' keys are asked for when they have been read.
        let unknown = self.results.iter().filter(|incoming| incoming.known.is_none());
        keys.extend(unknown.map(|incoming| pending_key(self.lane, incoming.news.ordinal().sequence)));
    }

    fn traces(&self, visit: &mut dyn FnMut(&TraceContext)) {
        self.results.iter().for_each(|incoming| visit(&context::of_span(&incoming.span, incoming.news.trace())));
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Self::Outcome, Unread> {
        let mut lane = match read_lane(view, self.lane)? {
            Ok(lane) => lane.unwrap_or_default(),
            Err(reason) => return Ok(BatchOutcome::Committed { fates: Vec::new(), halt: Some(reason) }),
        };
        if lane.results_next != self.expected {
            return Ok(BatchOutcome::Fenced { found: lane.results_next });
        }
        lane.results_next = self.next;
        let mut fates = Vec::with_capacity(self.results.len());
        let mut halt = None;
        for incoming in &self.results {
            match self.apply_one(view, &mut lane, incoming)? {
                Ok(fate) => fates.push(fate),
                Err(reason) => {
                    // What came before stays applied; the lane stands at the record that cannot be applied.
                    lane.results_next = incoming.offset;
                    halt = Some(reason);
                    break;
                }
            }
        }
        view.set(lane_key(self.lane), lane.encode());
        Ok(BatchOutcome::Committed { fates, halt })
    }
}

impl<B: Business> ResultBatch<B> {
    fn apply_one(
        &self,
        view: &mut View<'_>,
        lane: &mut StarterLane,
        incoming: &Incoming,
    ) -> Result<Result<Fate, HaltReason>, Unread> {
        let ordinal = incoming.news.ordinal();
        let sequence = ordinal.sequence;
        if let Some(why) = self.ignore(lane, ordinal) {
            return Ok(Ok(Fate::Ignored(why)));
        }
        let (saga, subject) = match &incoming.known {
            Some(open) => (open.saga, open.subject.clone()),
            None => {
                let key = pending_key(self.lane, sequence);
                let Some(bytes) = view.get(&key)? else {
                    let why = format!("sequence {sequence} has not ended, but its pending entry is missing");
                    return Ok(Err(HaltReason::Corrupt(why)));
                };
                match PendingStart::decode(&bytes) {
                    Ok(pending) => (pending.start.saga, pending.subject.into()),
                    Err(error) => return Ok(Err(unreadable(&key, &error))),
                }
            }
        };
        if saga != incoming.news.saga() {
            return Ok(Ok(Fate::Ignored(Ignored::OtherSaga)));
        }
        let applied = match &incoming.news {
            News::Ended(result) => self.business.apply(view, &subject, result)?,
            News::Undoing(notice) => self.business.undoing(view, &subject, notice)?,
        };
        let fate = match applied {
            Application::Applied => Fate::Applied,
            Application::NotCurrent => Fate::Ignored(Ignored::NotCurrent),
            Application::Unreadable(reason) => return Ok(Err(reason)),
        };
        if let News::Ended(_) = incoming.news {
            lane.ended.insert(sequence);
            view.unlink(pending_key(self.lane, sequence));
        }
        Ok(Ok(fate))
    }

    fn ignore(&self, lane: &StarterLane, ordinal: &Ordinal) -> Option<Ignored> {
        if ordinal.starter != self.starter {
            Some(Ignored::OtherStarter)
        } else if ordinal.lane != self.lane {
            Some(Ignored::OtherLane)
        } else if ordinal.sequence >= lane.next_sequence {
            Some(Ignored::NeverStarted)
        } else if lane.ended.contains(ordinal.sequence) {
            Some(Ignored::Duplicate)
        } else {
            None
        }
    }
}
