//! Spans and context of HTTP requests.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use tracing::field::Empty;

use super::{SPAN_TARGET, TRACEPARENT, TRACESTATE, TraceContext, from_text, is_exporting, is_recorded};
use super::{recorded_context, with_parent};

/// Share of requests without a context that begin a recorded trace, as the bits of an `f64`.
static ROOT_RATIO: AtomicU64 = AtomicU64::new(0);

pub(crate) fn set_root_ratio(ratio: f64) {
    ROOT_RATIO.store(ratio.to_bits(), Ordering::Relaxed);
}

/// The span of a request that came in (`GET /orders/find/{order_id}`): child of the context in its headers; without one
/// a new trace begins for the configured share of requests. Disabled when the request is not recorded.
pub fn http_span(method: &str, route: &'static str, headers: &HeaderMap) -> Span {
    if !is_exporting() {
        return Span::none();
    }
    let parent = from_http(headers);
    let recorded = if parent.traceparent.is_empty() { draw_root() } else { is_recorded(&parent) };
    if !recorded {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: SPAN_TARGET, parent: None, "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    with_parent(span, &parent)
}

/// The span of a request to another service: child of `parent`, disabled when that is.
pub fn client_span(method: &str, upstream: &'static str, parent: &Span) -> Span {
    if parent.is_disabled() || !is_exporting() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPAN_TARGET, parent: parent, "upstream",
        otel.name = format!("{method} {upstream}"),
        otel.kind = "client",
        http.request.method = method,
        server.address = upstream,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    )
}

/// Writes the answer's status into a span of [`http_span`] or [`client_span`].
pub fn record_status(span: &Span, status: u16) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Writes the span's context into the headers of a request that goes out. When the span is disabled the incoming
/// context is passed on; and where there is none, a context that says *not recorded*, so that the next service does
/// not begin a trace in the middle.
pub fn inject(span: &Span, incoming: &HeaderMap, outgoing: &mut HeaderMap) {
    let context = match recorded_context(span) {
        Some(context) => context,
        None => from_http(incoming),
    };
    let context = match context.traceparent.is_empty() {
        true if is_exporting() => not_recorded(),
        _ => context,
    };
    for (name, text) in [(TRACEPARENT, context.traceparent), (TRACESTATE, context.tracestate)] {
        let name = HeaderName::from_static(name);
        match HeaderValue::try_from(text) {
            Ok(value) if !value.is_empty() => outgoing.insert(name, value),
            _ => outgoing.remove(name),
        };
    }
}

fn from_http(headers: &HeaderMap) -> TraceContext {
    let find = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    from_text(find(TRACEPARENT), find(TRACESTATE))
}

fn draw_root() -> bool {
    let ratio = f64::from_bits(ROOT_RATIO.load(Ordering::Relaxed));
    ratio >= 1.0 || (ratio > 0.0 && rand::random::<f64>() < ratio)
}

fn not_recorded() -> TraceContext {
    let traceparent = format!("00-{:032x}-{:016x}-00", rand::random::<u128>().max(1), rand::random::<u64>().max(1));
    TraceContext { traceparent, tracestate: String::new() }
}
