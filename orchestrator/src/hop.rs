//! The trace of one inbox record: from its headers, over the spans of its consumption and its fold, to what follows.

use event_stream::{Lane, Record};
use saga_core::ids::{SagaId, TraceContext};
use saga_core::record::InboxEvent;
use telemetry::context::{self, CommandWords, Message};
use tracing::Span;

use crate::emit::INBOX;

/// The spans live as long as this: while the record is folded and its effects are queued.
pub(crate) struct Hop {
    parent: TraceContext,
    fold: Span,
    _consumed: Span,
}

impl Hop {
    /// A record is about to be folded. The spans are disabled unless its trace is recorded.
    pub(crate) fn arrived(record: &Record, event: &InboxEvent, lane: Lane) -> Self {
        let parent = context::from_headers(&record.headers);
        let Some(saga) = saga_of(event).filter(|_| context::is_recorded(&parent)) else {
            return Self { parent, fold: Span::none(), _consumed: Span::none() };
        };
        let consumed = match event {
            InboxEvent::Reply(reply) => consume(record, lane, saga, &CommandWords(&reply.id), &parent),
            _ => consume(record, lane, saga, &word(event), &parent),
        };
        Self { fold: context::fold_span(word(event), saga, &consumed), parent, _consumed: consumed }
    }

    /// A record that is folded again after a takeover: it has had its spans.
    pub(crate) fn silent() -> Self {
        Self { parent: TraceContext::default(), fold: Span::none(), _consumed: Span::none() }
    }

    /// The context that effects of the record continue.
    pub(crate) fn cause(&self) -> TraceContext {
        context::of_span(&self.fold, &self.parent).into_owned()
    }

    /// The record changed nothing.
    pub(crate) fn ignored(&self, reason: &'static str) {
        context::ignored(&self.fold, reason);
    }
}

fn consume(record: &Record, lane: Lane, saga: SagaId, about: &dyn std::fmt::Display, parent: &TraceContext) -> Span {
    let message = Message { topic: INBOX, lane: lane.0, offset: Some(record.offset), saga, about };
    context::process_span(&message, parent)
}

fn word(event: &InboxEvent) -> &'static str {
    match event {
        InboxEvent::Start(_) => "start",
        InboxEvent::Reply(_) => "reply",
        InboxEvent::Timer(_) => "timer",
        InboxEvent::Operator { .. } => "operator",
        InboxEvent::Activate { .. } => "activate",
        InboxEvent::FoldVersion(_) => "fold-version",
    }
}

/// The saga that a record is about.
pub(crate) fn saga_of(event: &InboxEvent) -> Option<SagaId> {
    match event {
        InboxEvent::Start(start) => Some(start.saga),
        InboxEvent::Reply(reply) => Some(reply.id.saga),
        InboxEvent::Timer(timer) => Some(timer.saga),
        InboxEvent::Operator { saga, .. } => Some(*saga),
        InboxEvent::Activate { .. } | InboxEvent::FoldVersion(_) => None,
    }
}
