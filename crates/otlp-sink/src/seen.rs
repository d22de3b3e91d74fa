//! What was received, in plain types.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, ResourceMetrics, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

/// Attributes as text.
type Attributes = BTreeMap<String, String>;

/// One span.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of the process.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Trace id in hex.
    pub trace: String,
    /// Span id in hex.
    pub id: String,
    /// Span id of the parent; empty for a root.
    pub parent: String,
    /// Begin, nanoseconds since 1970.
    pub start_ns: u64,
    /// End, nanoseconds since 1970.
    pub end_ns: u64,
    /// What it says of itself.
    pub attributes: Attributes,
    /// Other spans that it names.
    pub links: Vec<Link>,
    /// Whether its status is *error*.
    pub is_error: bool,
}

/// Another span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Trace id in hex.
    pub trace: String,
    /// Span id in hex.
    pub id: String,
}

/// One log line.
#[derive(Clone, Debug)]
pub struct Log {
    /// `service.name` of the process.
    pub service: String,
    /// `INFO`, `WARN`, `ERROR` …
    pub level: String,
    /// The message.
    pub body: String,
    /// Its fields.
    pub attributes: Attributes,
    /// Trace id in hex; empty when it belongs to none.
    pub trace: String,
    /// Span id in hex; empty when it belongs to none.
    pub span: String,
}

/// One metric of one export.
#[derive(Clone, Debug)]
pub struct Metric {
    /// `service.name` of the process.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its unit; empty for none.
    pub unit: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Labels and value of each series; of a histogram the number of values.
    pub points: Vec<(Attributes, f64)>,
}

pub(crate) fn spans(received: ResourceSpans) -> Vec<Span> {
    let service = service(received.resource);
    let spans = received.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans
        .map(|span| Span {
            service: service.clone(),
            kind: span.kind(),
            is_error: span.status.as_ref().is_some_and(|status| status.code == 2),
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            start_ns: span.start_time_unix_nano,
            end_ns: span.end_time_unix_nano,
            attributes: texts(span.attributes),
            links: span.links.iter().map(|link| Link { trace: hex(&link.trace_id), id: hex(&link.span_id) }).collect(),
        })
        .collect()
}

pub(crate) fn logs(received: ResourceLogs) -> Vec<Log> {
    let service = service(received.resource);
    let records = received.scope_logs.into_iter().flat_map(|scope| scope.log_records);
    records
        .map(|record| Log {
            service: service.clone(),
            level: record.severity_text,
            body: record.body.map(text).unwrap_or_default(),
            attributes: texts(record.attributes),
            trace: hex(&record.trace_id),
            span: hex(&record.span_id),
        })
        .collect()
}

pub(crate) fn metrics(received: ResourceMetrics) -> Vec<Metric> {
    let service = service(received.resource);
    let metrics = received.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
    metrics
        .map(|metric| {
            let (kind, points) = match metric.data {
                Some(metric::Data::Sum(sum)) => ("counter", numbers(sum.data_points)),
                Some(metric::Data::Gauge(gauge)) => ("gauge", numbers(gauge.data_points)),
                Some(metric::Data::Histogram(histogram)) => {
                    let points = histogram.data_points.into_iter();
                    ("histogram", points.map(|point| (texts(point.attributes), point.count as f64)).collect())
                }
                _ => ("other", Vec::new()),
            };
            Metric { service: service.clone(), name: metric.name, unit: metric.unit, kind, points }
        })
        .collect()
}

fn numbers(points: Vec<NumberDataPoint>) -> Vec<(Attributes, f64)> {
    let value = |point: &NumberDataPoint| match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => 0.0,
    };
    points.into_iter().map(|point| (texts(point.attributes.clone()), value(&point))).collect()
}

fn service(resource: Option<Resource>) -> String {
    let attributes = resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
    attributes.get("service.name").cloned().unwrap_or_default()
}

fn texts(attributes: Vec<KeyValue>) -> Attributes {
    attributes.into_iter().map(|attribute| (attribute.key, attribute.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
