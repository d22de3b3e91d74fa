//! The trace of one record: from its headers, over the span of its processing, to the headers of its answer.

use event_stream::{Lane, Outgoing, Record};
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use saga_core::record::{InboxEvent, Reply};
use std::sync::Arc;
use telemetry::context::{self, CommandWords, Message, TraceContext};
use telemetry::metrics::QUARANTINED;
use tracing::Span;

use crate::events::outcome_name;
use crate::plan::{Entry, Work};

/// What is carried from a command to its answer. The span lives as long as this.
pub(crate) struct Hop {
    trace: TraceContext,
    span: Span,
    /// The envelope of a record that is of no use.
    set_aside: Option<Box<Quarantined>>,
}

impl Hop {
    /// A record has arrived. The span is disabled unless the trace is recorded.
    pub(crate) fn arrived(topic: &str, lane: Lane, entry: &Entry, record: &Record) -> Self {
        let command = match &entry.work {
            Work::Command { command, .. } => command,
            Work::Floor(_) => return Self::without_trace(None),
            Work::Unusable { why } => {
                let set_aside =
                    Quarantined::new(topic, lane.0, entry.offset, why.clone(), &record.payload, &record.headers);
                return Self::without_trace(Some(Box::new(set_aside)));
            }
        };
        let mut trace = context::from_headers(&record.headers);
        if trace.traceparent.is_empty() {
            trace = command.trace.clone();
        }
        let (offset, about) = (Some(entry.offset), CommandWords(&command.id));
        let message = Message { topic, lane: lane.0, offset, saga: command.id.saga, about: &about };
        let span = context::process_span(&message, &trace);
        Self { trace, span, set_aside: None }
    }

    fn without_trace(set_aside: Option<Box<Quarantined>>) -> Self {
        Self { trace: TraceContext::default(), span: Span::none(), set_aside }
    }

    /// The record for the quarantine, if this one belongs there.
    pub(crate) fn quarantined(&self) -> Option<Outgoing> {
        let set_aside = self.set_aside.as_ref()?;
        let lane = Lane(set_aside.partition);
        QUARANTINED.add(1, &[("topic", &set_aside.topic)]);
        Some(Outgoing { topic: QUARANTINE.into(), lane, payload: set_aside.encode(), headers: Vec::new() })
    }

    /// The context of what is done for the record.
    pub(crate) fn context(&self) -> TraceContext {
        context::of_span(&self.span, &self.trace)
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
