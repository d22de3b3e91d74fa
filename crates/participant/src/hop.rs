//! The trace of one record: from its headers, over the span of its processing, to the headers of its answer.

use bytes::Bytes;
use event_stream::{Lane, Outgoing};
use proto::Wire;
use saga_core::record::{InboxEvent, Reply};
use std::sync::Arc;
use telemetry::context::{self, TraceContext};
use tracing::Span;

use crate::plan::{Entry, Work};

/// What is carried from a command to its answer. The span lives as long as this.
pub(crate) struct Hop {
    trace: TraceContext,
    span: Span,
}

impl Hop {
    /// A record has arrived. The span is disabled unless the trace is recorded.
    pub(crate) fn arrived(topic: &str, lane: Lane, entry: &Entry, headers: &[(String, Bytes)]) -> Self {
        let Work::Command { command, .. } = &entry.work else {
            return Self { trace: TraceContext::default(), span: Span::none() };
        };
        let mut trace = context::from_headers(headers);
        if trace.traceparent.is_empty() {
            trace = command.trace.clone();
        }
        let span = if context::is_recorded(&trace) {
            context::process_span(topic, lane.0, &command.id.saga, &trace)
        } else {
            Span::none()
        };
        Self { trace, span }
    }

    /// The record that answers the entry, in a span of its own.
    pub(crate) fn answer(&self, inbox: &Arc<str>, lane: Lane, entry: &Entry, reply: Reply) -> Outgoing {
        let headers = match &entry.work {
            Work::Command { command, .. } if context::is_recorded(&self.trace) => {
                let parent = context::of_span(&self.span, &self.trace);
                let span = context::send_span(inbox, lane.0, &command.id.saga, &parent);
                context::to_headers(&context::of_span(&span, &parent))
            }
            _ => context::to_headers(&self.trace),
        };
        Outgoing { topic: Arc::clone(inbox), lane, payload: InboxEvent::Reply(reply).encode(), headers }
    }
}
