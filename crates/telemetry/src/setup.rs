//! Starts and ends logging, tracing and metrics of one process.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::context::{self, Exporting, SPAN_TARGET};

/// Switches the export of spans on and says where to; the standard name.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The same for traces alone.
const TRACES_ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Share of requests that begin a recorded trace, between 0 and 1; the standard name.
const RATIO_VARIABLE: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Who switches the export on with one request in hand wants to see that request; under load the ratio is for the
/// operator to lower.
const DEFAULT_RATIO: f64 = 1.0;

/// Spans that wait to be exported: a second of a few hundred checkouts. More are dropped, never waited for.
const MAX_QUEUED_SPANS: usize = 16_384;

/// Spans in one export: below the 4 MiB that gRPC takes.
const MAX_SPANS_PER_EXPORT: usize = 2_048;

/// Pause between two exports: short, so that a person who looks finds the trace.
const EXPORT_PAUSE: Duration = Duration::from_secs(1);

/// Who is speaking and how.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `service.name`.
    pub service: &'static str,
    /// `service.instance.id`.
    pub instance: String,
    /// JSON lines instead of human ones.
    pub json_logs: bool,
}

/// Ends telemetry when asked to.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// OTLP over gRPC, e.g. `http://127.0.0.1:4317`; the standard variables when `None`.
    pub endpoint: Option<String>,
    /// Share of requests without a context that begin a recorded trace, from 0 to 1.
    pub ratio: f64,
}

/// Call inside the multi-thread runtime. OTLP export is on when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
pub fn start(identity: &Identity) -> Result<Telemetry, SetupError> {
    let export = is_export_wanted().then(|| Ok(Export { endpoint: None, ratio: root_ratio()? })).transpose()?;
    start_with(identity, export)
}

/// The same with the export decided by the caller.
///
/// A process has one subscriber for its logs and spans: a second call keeps the first one's and exports nothing.
pub fn start_with(identity: &Identity, export: Option<Export>) -> Result<Telemetry, SetupError> {
    let log_filter = log_filter()?;
    let resource = resource(identity);
    crate::metrics::set_resource(resource.clone());
    let traces = export.as_ref().map(|export| tracer_provider(export, resource)).transpose()?;
    let mut layers = vec![log_layer(identity, log_filter)];
    layers.extend(traces.as_ref().map(span_layer));
    let is_first = tracing_subscriber::registry().with(layers).try_init().is_ok();
    if let (true, Some(export)) = (is_first, &export) {
        context::set_root_ratio(export.ratio);
        context::set_exporting(Exporting::On);
    }
    let (service, instance) = (identity.service, identity.instance.as_str());
    tracing::info!(service, instance, exporting_spans = traces.is_some(), "telemetry started");
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Exports what is left, at most until the deadline.
    pub async fn shutdown(self, deadline: Duration) {
        let Some(provider) = self.traces else { return };
        context::set_exporting(Exporting::Off);
        // The exporter waits for its own thread: never on a thread of the runtime.
        let flushing = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(deadline));
        match tokio::time::timeout(deadline, flushing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not exported"),
            Err(_) => tracing::warn!("the last spans were not exported in time"),
        }
    }
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("telemetry cannot start: {0}")]
pub struct SetupError(pub String);

fn log_filter() -> Result<EnvFilter, SetupError> {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = if directives.trim().is_empty() { "info" } else { directives.trim() };
    // Our spans are for the exporter; in log lines they would cost and only repeat the fields.
    EnvFilter::try_new(format!("{directives},{SPAN_TARGET}=off"))
        .map_err(|error| SetupError(format!("RUST_LOG cannot be read: {error}")))
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log_layer(identity: &Identity, filter: EnvFilter) -> AnyLayer {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if identity.json_logs {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
    }
}

fn span_layer(provider: &SdkTracerProvider) -> AnyLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("saga"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(is_exported))
        .boxed()
}

/// Our spans, and the warnings that fall into them; nothing of the exporter's own.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    if metadata.is_span() {
        metadata.target() == SPAN_TARGET
    } else {
        *metadata.level() <= Level::WARN && !metadata.target().starts_with("opentelemetry")
    }
}

fn is_export_wanted() -> bool {
    [ENDPOINT_VARIABLE, TRACES_ENDPOINT_VARIABLE]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| !value.trim().is_empty()))
}

fn root_ratio() -> Result<f64, SetupError> {
    let text = std::env::var(RATIO_VARIABLE).unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(DEFAULT_RATIO);
    }
    let ratio = text.trim().parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| SetupError(format!("{RATIO_VARIABLE} must be a number from 0 to 1, not \"{text}\"")))
}

fn resource(identity: &Identity) -> Resource {
    Resource::builder()
        .with_service_name(identity.service)
        .with_attribute(KeyValue::new("service.instance.id", identity.instance.clone()))
        .build()
}

fn tracer_provider(export: &Export, resource: Resource) -> Result<SdkTracerProvider, SetupError> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &export.endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    let exporter =
        exporter.build().map_err(|error| SetupError(format!("{ENDPOINT_VARIABLE} cannot be used: {error}")))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED_SPANS)
        .with_max_export_batch_size(MAX_SPANS_PER_EXPORT)
        .with_scheduled_delay(EXPORT_PAUSE)
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        // The ratio is drawn where a trace begins (`context::http_span`), before a span is made; everywhere else the
        // flag of the parent decides.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(resource)
        .build())
}
