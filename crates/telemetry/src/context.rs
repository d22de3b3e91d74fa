//! Trace context across hops: from headers to spans and back.
//!
//! Spans are made only for contexts that are recorded *and* when spans are exported; otherwise nothing is allocated and
//! [`Span::none`] is handed out. Every span of ours has the target [`SPAN_TARGET`], and only those are exported.

mod http;
mod text;

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use opentelemetry::trace::TraceContextExt;
pub use saga_core::ids::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub(crate) use http::set_root_ratio;
pub use http::{client_span, http_span, inject, record_status};

/// Target of every exported span.
pub const SPAN_TARGET: &str = "saga.trace";

/// Most other contexts that the span of a batch links to: enough to find the batch, small enough to send.
const MAX_LINKS: usize = 16;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Set when an exporter runs.
static EXPORTING: AtomicBool = AtomicBool::new(false);

pub(crate) fn set_exporting(exporting: Exporting) {
    EXPORTING.store(exporting == Exporting::On, Ordering::Relaxed);
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exporting {
    On,
    Off,
}

fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// The trace context in record headers (`traceparent`, `tracestate`); empty when there is none.
pub fn from_headers(headers: &[(String, Bytes)]) -> TraceContext {
    let find = |wanted: &str| {
        let (_, value) = headers.iter().find(|(name, _)| name == wanted)?;
        std::str::from_utf8(value).ok()
    };
    from_text(find(TRACEPARENT), find(TRACESTATE))
}

/// The headers that carry a context; none for an empty one.
pub fn to_headers(context: &TraceContext) -> Vec<(&'static str, String)> {
    if context.traceparent.is_empty() {
        return Vec::new();
    }
    let mut headers = vec![(TRACEPARENT, context.traceparent.clone())];
    if !context.tracestate.is_empty() {
        headers.push((TRACESTATE, context.tracestate.clone()));
    }
    headers
}

/// Whether the context belongs to a trace that is recorded, and spans are exported: when false, no span is worth making.
pub fn is_recorded(context: &TraceContext) -> bool {
    is_exporting() && text::is_sampled(&context.traceparent)
}

/// A span that consumes a record (`process stock.commands`): child of the context; disabled when that is not recorded.
/// `saga` becomes `messaging.message.conversation_id`.
pub fn process_span(topic: &str, lane: u32, saga: &dyn Display, parent: &TraceContext) -> Span {
    if !is_recorded(parent) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: SPAN_TARGET, parent: None, "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.operation.name = "process",
        messaging.destination.name = topic,
        messaging.destination.partition.id = lane.to_string(),
        messaging.message.conversation_id = %saga,
    );
    with_parent(span, parent)
}

/// A span that produces a record (`send stock.commands`): child of `parent`. Its own context goes into the headers.
pub fn send_span(topic: &str, lane: u32, saga: &dyn Display, parent: &TraceContext) -> Span {
    if !is_recorded(parent) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: SPAN_TARGET, parent: None, "send",
        otel.name = format!("send {topic}"),
        otel.kind = "producer",
        messaging.system = "kafka",
        messaging.operation.type = "send",
        messaging.operation.name = "send",
        messaging.destination.name = topic,
        messaging.destination.partition.id = lane.to_string(),
        messaging.message.conversation_id = %saga,
    );
    with_parent(span, parent)
}

/// A span of one Redis transaction that carries the work of several traces: child of the first recorded context, linked
/// to the others (at most 16). Disabled when none is recorded. `operation` names it: `EXEC`.
pub fn redis_span<'a>(
    operation: &'static str,
    transactions: usize,
    contexts: impl IntoIterator<Item = &'a TraceContext>,
) -> Span {
    if !is_exporting() {
        return Span::none();
    }
    let mut recorded = contexts.into_iter().filter(|context| text::is_sampled(&context.traceparent));
    let Some(first) = recorded.next() else { return Span::none() };
    let span = tracing::info_span!(
        target: SPAN_TARGET, parent: None, "redis",
        otel.name = operation,
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = operation,
        db.operation.batch.size = transactions,
    );
    let span = with_parent(span, first);
    for other in recorded.take(MAX_LINKS) {
        if let Some(link) = text::to_span_context(other) {
            span.add_link(link);
        }
    }
    span
}

/// The context of the span, or `fallback` when the span is disabled.
pub fn of_span(span: &Span, fallback: &TraceContext) -> TraceContext {
    recorded_context(span).unwrap_or_else(|| fallback.clone())
}

/// The context of the current span; empty when there is none.
pub fn current() -> TraceContext {
    if is_exporting() { of_span(&Span::current(), &TraceContext::default()) } else { TraceContext::default() }
}

fn recorded_context(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() || !is_exporting() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| text::to_text(span_context))
}

fn with_parent(span: Span, parent: &TraceContext) -> Span {
    if let Some(parent) = text::to_span_context(parent) {
        // Fails only for a span that nobody exports; it stays without a parent then.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
    span
}

fn from_text(traceparent: Option<&str>, tracestate: Option<&str>) -> TraceContext {
    match traceparent.filter(|text| text::is_well_formed(text)) {
        Some(traceparent) => TraceContext {
            traceparent: traceparent.to_owned(),
            tracestate: tracestate.filter(|text| text::is_sendable(text)).unwrap_or_default().to_owned(),
        },
        None => TraceContext::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_exporter_no_span_is_made() {
        let context = TraceContext {
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: String::new(),
        };
        assert!(!is_recorded(&context));
        assert!(process_span("t", 0, &"s", &context).is_none() && redis_span("EXEC", 1, [&context]).is_none());
        assert_eq!(of_span(&Span::none(), &context), context, "the context travels on");
        let headers: Vec<_> =
            to_headers(&context).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        assert_eq!(from_headers(&headers), context);
        assert_eq!(from_headers(&[("traceparent".to_owned(), Bytes::from_static(b"\xff"))]), TraceContext::default());
    }
}
