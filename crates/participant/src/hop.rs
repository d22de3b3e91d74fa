//! The trace of one record: from its headers, over the span of its processing, to the headers of its answer.

use std::borrow::Cow;
use std::sync::Arc;

use event_stream::{Lane, Outgoing, Record};
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use saga_core::record::{InboxEvent, Reply};
use service_kit::panics::MAX_TRIES;
use telemetry::context::{self, CommandWords, Message, TraceContext};
use telemetry::metrics::QUARANTINED;
use tracing::Span;

use crate::events::outcome_name;
use crate::plan::{Entry, Work};

/// What is carried from a command to its answer. The span lives as long as this.
pub(crate) struct Hop {
    trace: TraceContext,
    span: Span,
    /// As it was read, for the quarantine.
    record: Record,
    /// Why it is of no use, if so.
    unusable: Option<String>,
}

impl Hop {
    /// A record has arrived. The span is disabled unless the trace is recorded.
    pub(crate) fn arrived(topic: &str, lane: Lane, entry: &Entry, record: Record) -> Self {
        let command = match &entry.work {
            Work::Command { command, .. } => command,
            Work::Floor(_) => return Self::without_trace(record, None),
            Work::Unusable { why } | Work::Poison { why } => return Self::without_trace(record, Some(why.clone())),
        };
        let mut trace = context::from_headers(&record.headers);
        if trace.traceparent.is_empty() {
            trace = command.trace.clone();
        }
        let (offset, about) = (Some(entry.offset), CommandWords(&command.id));
        let message = Message { topic, lane: lane.0, offset, saga: command.id.saga, about: &about };
        let span = context::process_span(&message, &trace);
        Self { trace, span, record, unusable: None }
    }

    fn without_trace(record: Record, unusable: Option<String>) -> Self {
        Self { trace: TraceContext::default(), span: Span::none(), record, unusable }
    }

    /// The record for the quarantine, if this one is of no use.
    pub(crate) fn quarantined(&self, topic: &str, lane: Lane) -> Option<Outgoing> {
        Some(self.set_aside(topic, lane, self.unusable.clone()?))
    }

    /// The record for the quarantine if this one makes the business panic.
    pub(crate) fn poison(&self, topic: &str, lane: Lane, why: &str) -> Outgoing {
        self.set_aside(topic, lane, format!("made the program panic {MAX_TRIES} times: {why}"))
    }

    fn set_aside(&self, topic: &str, lane: Lane, reason: String) -> Outgoing {
        let Record { offset, payload, headers, .. } = &self.record;
        let set_aside = Quarantined::new(topic, lane.0, *offset, reason, payload, headers);
        QUARANTINED.add(1, &[("topic", topic)]);
        Outgoing { topic: QUARANTINE.into(), lane, payload: set_aside.encode(), headers: Vec::new() }
    }

    /// The context of what is done for the record.
    pub(crate) fn context(&self) -> Cow<'_, TraceContext> {
        context::of_span(&self.span, &self.trace)
    }

    /// The same if its trace is recorded.
    pub(crate) fn recorded(&self) -> Option<TraceContext> {
        context::is_recorded(&self.trace).then(|| self.context().into_owned())
    }

    /// The record that answers the entry, in a span of its own.
    pub(crate) fn answer(&self, inbox: &Arc<str>, lane: Lane, entry: &Entry, reply: Reply) -> Outgoing {
        let headers = match &entry.work {
            Work::Command { command, .. } if context::is_recorded(&self.trace) => {
                let parent = self.context();
                let about = format_args!("{}: {}", CommandWords(&command.id), outcome_name(&reply.outcome));
                let message =
                    Message { topic: inbox, lane: lane.0, offset: None, saga: command.id.saga, about: &about };
                let span = context::send_span(&message, &parent);
                context::to_headers(&context::of_span(&span, &parent))
            }
            _ => context::to_headers(&self.trace),
        };
        Outgoing { topic: Arc::clone(inbox), lane, payload: InboxEvent::Reply(reply).encode(), headers }
    }
}
