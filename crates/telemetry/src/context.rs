//! Trace context across hops: from headers to spans and back.
//!
//! Spans are made only for contexts that are recorded *and* when spans are exported; otherwise nothing is allocated and
//! [`Span::none`] is handed out. Every span of ours has the target [`SPAN_TARGET`], and only those are exported. Names
//! and attributes are those of OpenTelemetry's semantic conventions; what is ours begins with `saga.`.

mod http;
mod message;
mod redis;
mod saga;
mod text;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, ContextGuard};
use opentelemetry_sdk::trace::SdkTracer;
pub use saga_core::ids::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::sampling::{Sampler, Sampling};

pub use http::{RequestTrace, UpstreamSpan, inject, note_saga};
pub use message::{CommandWords, Message, process_span, send_span};
pub use redis::{ExecSpan, RedisServer, TransactionSpan};
pub use saga::{Summary, fold_span, ignored, outcome_word, summarise};

/// Target of every exported span.
pub const SPAN_TARGET: &str = "saga.trace";

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Set when spans are exported.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Draws for traces that begin here.
static SAMPLER: Sampler = Sampler::new();

/// What the spans of this process have in common.
static PROCESS: OnceLock<Process> = OnceLock::new();

struct Process {
    service: &'static str,
    /// For spans whose times are not those of the moment.
    tracer: SdkTracer,
}

/// Spans are exported from now on.
pub(crate) fn begin(service: &'static str, tracer: SdkTracer, sampling: Sampling) {
    let _ = PROCESS.set(Process { service, tracer });
    SAMPLER.set(sampling);
    set_exporting(Exporting::On);
}

pub(crate) fn set_exporting(exporting: Exporting) {
    EXPORTING.store(exporting == Exporting::On, Ordering::Relaxed);
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exporting {
    On,
    Off,
}

/// Whether spans are exported at all: when false, nothing need be prepared for them.
pub fn is_exporting() -> bool {
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

/// The headers that carry a context; none when its trace is not recorded. They name the span that sent the record, and
/// then there is none: the trace that a saga belongs to, recorded or not, is part of its records.
pub fn to_headers(context: &TraceContext) -> Vec<(&'static str, String)> {
    if !text::is_sampled(&context.traceparent) {
        return Vec::new();
    }
    let mut headers = vec![(TRACEPARENT, context.traceparent.clone())];
    if !context.tracestate.is_empty() {
        headers.push((TRACESTATE, context.tracestate.clone()));
    }
    headers
}

/// Whether the context belongs to a trace that is recorded, and spans are exported: when false, no span is worth
/// making.
pub fn is_recorded(context: &TraceContext) -> bool {
    is_exporting() && text::is_sampled(&context.traceparent)
}

/// The context of the span, or `fallback` when the span is disabled.
pub fn of_span<'a>(span: &Span, fallback: &'a TraceContext) -> Cow<'a, TraceContext> {
    recorded_context(span).map_or(Cow::Borrowed(fallback), Cow::Owned)
}

/// The context that is current on this thread, recorded or not; empty when there is none.
pub fn current() -> TraceContext {
    Context::map_current(|context| {
        let span = context.span();
        if span.span_context().is_valid() { text::to_text(span.span_context()) } else { TraceContext::default() }
    })
}

/// Makes the context current on this thread as long as the guard lives, recorded or not: log lines written meanwhile
/// carry its ids. Not to be held across an await.
pub fn scope(context: &TraceContext) -> Option<ContextGuard> {
    text::to_span_context(context).map(|context| Context::new().with_remote_span_context(context).attach())
}

fn recorded_context(span: &Span) -> Option<TraceContext> {
    recorded_span_context(span).map(|context| text::to_text(&context))
}

fn recorded_span_context(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() || !is_exporting() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| span_context.clone())
}

fn with_parent(span: Span, parent: &TraceContext) -> Span {
    if let Some(parent) = text::to_span_context(parent) {
        // Fails only for a span that nobody exports; it stays without a parent then.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    span
}

/// Marks a span as failed; `kind` is a word from a small set.
fn fail(span: &Span, kind: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
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
    use saga_core::ids::SagaId;

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn without_an_exporter_no_span_is_made() {
        let context = TraceContext { traceparent: TRACEPARENT.to_owned(), tracestate: String::new() };
        assert!(!is_recorded(&context));
        let saga = SagaId(Default::default());
        let message = Message { topic: "t", lane: 0, offset: None, saga, about: &"start" };
        assert!(process_span(&message, &context).is_none() && send_span(&message, &context).is_none());
        assert_eq!(*of_span(&Span::none(), &context), context, "the context travels on");
        let headers: Vec<_> =
            to_headers(&context).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        assert_eq!(from_headers(&headers), context);
        let not_recorded = TraceContext { traceparent: TRACEPARENT.replace("-01", "-00"), ..context };
        assert_eq!(to_headers(&not_recorded), [], "nobody sent a span of it");
        assert_eq!(from_headers(&[("traceparent".to_owned(), Bytes::from_static(b"\xff"))]), TraceContext::default());
    }

    #[test]
    fn a_scope_is_current_while_it_lives_recorded_or_not() {
        assert_eq!(current(), TraceContext::default());
        let not_recorded = TraceContext { traceparent: TRACEPARENT.replace("-01", "-00"), tracestate: String::new() };
        {
            let _scope = scope(&not_recorded);
            assert_eq!(current(), not_recorded);
        }
        assert_eq!(current(), TraceContext::default());
        assert!(scope(&TraceContext::default()).is_none());
    }
}
