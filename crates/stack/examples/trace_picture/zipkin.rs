//! Spans in Zipkin's own format, version 2 of its API.

use otlp_sink::{Span, SpanKind};
use serde_json::{Value, json};

/// A list of spans for `POST /api/v2/spans`.
pub fn encode(trace: &[Span]) -> anyhow::Result<String> {
    let spans: Vec<Value> = trace.iter().map(span).collect();
    Ok(serde_json::to_string_pretty(&spans)?)
}

fn span(span: &Span) -> Value {
    let mut encoded = json!({
        "traceId": span.trace,
        "id": span.id,
        "name": span.name,
        "timestamp": span.start_ns / 1_000,
        // Zipkin takes a missing duration for an unfinished span.
        "duration": (span.end_ns.saturating_sub(span.start_ns) / 1_000).max(1),
        "localEndpoint": { "serviceName": span.service },
        "tags": span.attributes,
    });
    if !span.parent.is_empty() {
        encoded["parentId"] = json!(span.parent);
    }
    let kind = match span.kind {
        SpanKind::Server => Some("SERVER"),
        SpanKind::Client => Some("CLIENT"),
        SpanKind::Producer => Some("PRODUCER"),
        SpanKind::Consumer => Some("CONSUMER"),
        SpanKind::Internal | SpanKind::Unspecified => None,
    };
    if let Some(kind) = kind {
        encoded["kind"] = json!(kind);
    }
    encoded
}
