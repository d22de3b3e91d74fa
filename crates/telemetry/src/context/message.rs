//! Spans of records on their way through Kafka.

use std::fmt::{self, Display};

use saga_core::ids::{CommandId, Direction, SagaId};
use tracing::Span;
use tracing::field::Empty;

use super::{PROCESS, SPAN_TARGET, TraceContext, is_recorded, with_parent};

/// One record, as spans tell of it.
pub struct Message<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub lane: u32,
    /// Where it lies; known to whoever reads it.
    pub offset: Option<i64>,
    /// The saga it belongs to.
    pub saga: SagaId,
    /// What it says, in few words from a small set: `start`, `reserve`, `undo reserve`, `timer` …
    pub about: &'a dyn Display,
}

/// A span that consumes a record (`process stock.commands`): child of the context in its headers; disabled when that is
/// not recorded.
pub fn process_span(message: &Message<'_>, parent: &TraceContext) -> Span {
    span(message, &CONSUMER, parent)
}

/// A span that produces a record (`send stock.commands`): child of `parent`. Its own context goes into the headers.
pub fn send_span(message: &Message<'_>, parent: &TraceContext) -> Span {
    span(message, &PRODUCER, parent)
}

/// A command in few words: `reserve`, `undo reserve`.
pub struct CommandWords<'a>(pub &'a CommandId);

impl Display for CommandWords<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.direction {
            Direction::Action => out.write_str(&self.0.step),
            Direction::Undo => write!(out, "undo {}", self.0.step),
        }
    }
}

/// Words of one end of the way.
struct End {
    operation: &'static str,
    kind: &'static str,
}

const CONSUMER: End = End { operation: "process", kind: "consumer" };
const PRODUCER: End = End { operation: "send", kind: "producer" };

fn span(message: &Message<'_>, end: &End, parent: &TraceContext) -> Span {
    if !is_recorded(parent) {
        return Span::none();
    }
    let Message { topic, lane, offset, saga, about } = message;
    let span = tracing::info_span!(
        target: SPAN_TARGET, parent: None, "message",
        otel.name = format!("{} {topic}", end.operation),
        otel.kind = end.kind,
        messaging.system = "kafka",
        messaging.operation.type = end.operation,
        messaging.operation.name = end.operation,
        messaging.destination.name = topic,
        messaging.destination.partition.id = lane.to_string(),
        messaging.kafka.offset = Empty,
        messaging.consumer.group.name = Empty,
        messaging.message.conversation_id = %saga,
        saga.id = %saga,
        saga.message = %about,
    );
    if let Some(offset) = offset {
        span.record("messaging.kafka.offset", offset);
        // Our consumer groups are called like their services.
        if let Some(process) = PROCESS.get() {
            span.record("messaging.consumer.group.name", process.service);
        }
    }
    with_parent(span, parent)
}
