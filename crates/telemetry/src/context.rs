//! Trace context across hops: from headers to spans and back.

use bytes::Bytes;
pub use saga_core::ids::TraceContext;
use tracing::Span;

/// The trace context in record headers (`traceparent`, `tracestate`); empty when there is none.
pub fn from_headers(headers: &[(String, Bytes)]) -> TraceContext {
    let _ = headers;
    TraceContext::default()
}

/// The headers that carry a context; none for an empty one.
pub fn to_headers(context: &TraceContext) -> Vec<(&'static str, String)> {
    let _ = context;
    Vec::new()
}

/// Whether the context belongs to a trace that is recorded, and spans are exported: when false, no span is worth making.
pub fn is_recorded(context: &TraceContext) -> bool {
    let _ = context;
    false
}

/// A span that consumes a record (`process stock.commands`): child of the context; disabled when that is not recorded.
/// `saga` becomes `messaging.message.conversation_id`.
pub fn process_span(topic: &str, lane: u32, saga: &dyn std::fmt::Display, parent: &TraceContext) -> Span {
    let _ = (topic, lane, saga, parent);
    Span::none()
}

/// A span that produces a record (`send stock.commands`): child of `parent`. Its own context goes into the headers.
pub fn send_span(topic: &str, lane: u32, saga: &dyn std::fmt::Display, parent: &TraceContext) -> Span {
    let _ = (topic, lane, saga, parent);
    Span::none()
}

/// The context of the span, or `fallback` when the span is disabled.
pub fn of_span(span: &Span, fallback: &TraceContext) -> TraceContext {
    let _ = span;
    fallback.clone()
}

/// The context of the current span; empty when there is none.
pub fn current() -> TraceContext {
    TraceContext::default()
}
