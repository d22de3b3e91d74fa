//! Spans and context of HTTP requests.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, TraceContextExt};
use saga_core::ids::SagaId;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::{SAMPLER, SPAN_TARGET, TRACEPARENT, TRACESTATE, TraceContext, from_text, is_exporting, is_recorded};
use super::{fail, of_span, recorded_context, text, with_parent};

/// The trace that a request which came in belongs to: of its headers, or one that begins here.
pub struct RequestTrace {
    span: Span,
    context: TraceContext,
}

impl RequestTrace {
    /// Takes the context out of the headers. Without one a new trace begins, and it is drawn whether it is recorded.
    /// When it is, the request gets a server span (`GET /orders/find/{order_id}`).
    ///
    /// Only the path is shown, never the query, a header or the body: those may hold what nobody else may know.
    pub fn begin(method: &str, route: &'static str, path: &str, headers: &HeaderMap) -> Self {
        let incoming = from_http(headers);
        if !is_exporting() {
            return Self { span: Span::none(), context: incoming };
        }
        let begins = incoming.traceparent.is_empty();
        let recorded = if begins { SAMPLER.draw() } else { is_recorded(&incoming) };
        if !recorded {
            let context = if begins { not_recorded() } else { incoming };
            return Self { span: Span::none(), context };
        }
        let span = tracing::info_span!(
            target: SPAN_TARGET, parent: None, "request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            url.scheme = "http",
            url.path = path,
            saga.id = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        let span = with_parent(span, &incoming);
        let context = recorded_context(&span).unwrap_or(incoming);
        Self { span, context }
    }

    /// The context of whatever the request causes; empty when there is none.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Runs a future in this trace: its log lines carry the ids, and [`super::current`] knows it.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        let remote = match self.span.is_disabled() {
            true => text::to_span_context(&self.context),
            // Entering the span makes its context current.
            false => None,
        };
        let context = remote.map_or_else(Context::current, |remote| Context::new().with_remote_span_context(remote));
        future.instrument(self.span.clone()).with_context(context)
    }

    /// Writes the status of the answer into the span.
    pub fn answered(&self, status: u16) {
        if self.span.is_disabled() {
            return;
        }
        self.span.record("http.response.status_code", status);
        // A refusal is the client's, not ours.
        if status >= 500 {
            fail(&self.span, &status.to_string());
        }
    }
}

/// Names the saga that the current request has started or joined.
pub fn note_saga(saga: SagaId) {
    let span = Span::current();
    if !span.is_disabled() {
        span.record("saga.id", tracing::field::display(saga));
    }
}

/// The span of one attempt to ask another service (`GET /stock/find/{item_id}`); disabled when its request's trace is
/// not recorded.
pub struct UpstreamSpan {
    span: Span,
}

impl UpstreamSpan {
    /// The attempt begins. `resends` counts the ones before it.
    pub fn begin(
        method: &str,
        route: &str,
        path: &str,
        replica: SocketAddr,
        resends: u32,
        parent: &TraceContext,
    ) -> Self {
        if !is_recorded(parent) {
            return Self { span: Span::none() };
        }
        let span = tracing::info_span!(
            target: SPAN_TARGET, parent: None, "upstream",
            otel.name = format!("{method} {route}"),
            otel.kind = "client",
            http.request.method = method,
            http.request.resend_count = Empty,
            http.response.status_code = Empty,
            server.address = %replica.ip(),
            server.port = i64::from(replica.port()),
            url.full = format!("http://{replica}{path}"),
            url.template = route,
            error.type = Empty,
            otel.status_code = Empty,
        );
        if resends > 0 {
            span.record("http.request.resend_count", resends);
        }
        Self { span: with_parent(span, parent) }
    }

    /// What the request carries: the context of this span, or `parent` when it is disabled.
    pub fn context<'a>(&self, parent: &'a TraceContext) -> Cow<'a, TraceContext> {
        of_span(&self.span, parent)
    }

    /// The replica has answered.
    pub fn answered(self, status: u16) {
        if self.span.is_disabled() {
            return;
        }
        self.span.record("http.response.status_code", status);
        if status >= 400 {
            fail(&self.span, &status.to_string());
        }
    }

    /// There was no answer; `kind` is a word from a small set.
    pub fn failed(self, kind: &'static str) {
        if !self.span.is_disabled() {
            fail(&self.span, kind);
        }
    }
}

/// Writes a context into the headers of a request that goes out, in the place of what is there. An empty one removes
/// it.
pub fn inject(context: &TraceContext, outgoing: &mut HeaderMap) {
    for (name, text) in [(TRACEPARENT, &context.traceparent), (TRACESTATE, &context.tracestate)] {
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

/// A trace that nobody records still has ids: the next service must not begin another in its middle, and log lines name
/// it.
fn not_recorded() -> TraceContext {
    let traceparent = format!("00-{:032x}-{:016x}-00", rand::random::<u128>().max(1), rand::random::<u64>().max(1));
    TraceContext { traceparent, tracestate: String::new() }
}
