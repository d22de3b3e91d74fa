//! Starts and ends logging, tracing and metrics of one process.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider};
use tracing::Metadata;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::context::{self, Exporting, SPAN_TARGET};
use crate::environment::{self, Batches};
use crate::export::{Bounded, Counted, Valve};
use crate::logs::{self, AnyLayer, Colours, LineFormat};
use crate::metrics;

pub use crate::environment::{DEFAULT_MIN_TRACES_PER_S, Export};
pub use crate::sampling::Sampling;

/// Name of the tracer and of the logger.
const SCOPE: &str = "saga";

/// Who is speaking and how.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `service.name`; also the name of the service's consumer group.
    pub service: &'static str,
    /// `service.instance.id`.
    pub instance: String,
    /// How log lines look.
    pub lines: LineFormat,
}

/// Ends telemetry when asked to.
#[derive(Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<SdkMeterProvider>,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("telemetry cannot start: {0}")]
pub struct SetupError(pub String);

/// Call inside the multi-thread runtime. OTLP export is on when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, or that of a
/// signal; of the traces that begin in this process `min_traces_per_s` are recorded besides
/// what the ratio draws.
pub fn start(identity: &Identity, min_traces_per_s: u32) -> Result<Telemetry, SetupError> {
    let export = Export::from_variables(&environment::of_process, min_traces_per_s)?;
    start_with(identity, export)
}

/// The same with the export decided by the caller.
///
/// A process has one subscriber for its logs and spans: a second call keeps the first one's and exports nothing.
pub fn start_with(identity: &Identity, export: Option<Export>) -> Result<Telemetry, SetupError> {
    let resource = resource(identity);
    metrics::set_resource(resource.clone());
    let telemetry = export.as_ref().map(|export| Telemetry::new(export, &resource)).transpose()?;
    let telemetry = telemetry.unwrap_or_default();
    let colours = if std::io::stderr().is_terminal() { Colours::On } else { Colours::Off };
    let mut layers = vec![logs::line_layer(identity.lines, colours, std::io::stderr)?];
    layers.extend(telemetry.traces.as_ref().map(|provider| span_layer(provider)));
    if let Some(provider) = &telemetry.logs {
        let bridge = OpenTelemetryTracingBridge::new(provider);
        layers.push(bridge.with_filter(logs::not_of_carriers()).with_filter(logs::filter()?).boxed());
    }
    let is_first = tracing_subscriber::registry().with(layers).try_init().is_ok();
    if let (true, Some(export), Some(traces)) = (is_first, &export, &telemetry.traces) {
        context::begin(identity.service, traces.tracer(SCOPE), export.sampling);
    }
    let (service, instance) = (identity.service, identity.instance.as_str());
    let (traces, logs, metrics) = (telemetry.traces.is_some(), telemetry.logs.is_some(), telemetry.metrics.is_some());
    tracing::info!(service, instance, traces, logs, metrics, "telemetry started; what is true is exported by OTLP");
    Ok(telemetry)
}

impl Telemetry {
    fn new(export: &Export, resource: &Resource) -> Result<Self, SetupError> {
        let unusable =
            |error: ExporterBuildError| SetupError(format!("{} cannot be used: {error}", environment::ENDPOINT));
        // The metrics first: what the others count is theirs to export.
        let metrics = export.metrics.map(|pause| meter_provider(export, pause)).transpose().map_err(unusable)?;
        let traces = export.traces.map(|batches| tracer_provider(export, batches, resource));
        let logs = export.logs.map(|batches| logger_provider(export, batches, resource));
        Ok(Self {
            traces: traces.transpose().map_err(unusable)?,
            logs: logs.transpose().map_err(unusable)?,
            metrics: metrics.flatten(),
        })
    }

    /// Exports what is left, at most until the deadline.
    pub async fn shutdown(self, deadline: Duration) {
        context::set_exporting(Exporting::Off);
        let Self { traces, logs, metrics } = self;
        tokio::join!(
            end("traces", deadline, traces.map(|provider| move || provider.shutdown_with_timeout(deadline))),
            end("metrics", deadline, metrics.map(|provider| move || provider.shutdown_with_timeout(deadline))),
            end("logs", deadline, logs.map(|provider| move || provider.shutdown_with_timeout(deadline))),
        );
    }
}

async fn end<F>(signal: &'static str, deadline: Duration, shutdown: Option<F>)
where
    F: FnOnce() -> OTelSdkResult + Send + 'static,
{
    let Some(shutdown) = shutdown else { return };
    // The exporter waits for its own thread: never on a thread of the runtime.
    let ended = tokio::time::timeout(deadline, tokio::task::spawn_blocking(shutdown)).await;
    match ended {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(signal, %error, "the last telemetry was not exported"),
        Ok(Err(error)) => tracing::warn!(signal, %error, "the last telemetry was not exported"),
        Err(_) => tracing::warn!(signal, "the last telemetry was not exported in time"),
    }
}

fn span_layer(provider: &SdkTracerProvider) -> AnyLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(is_span))
        .boxed()
}

/// Our spans, and nothing else: log lines are exported as such, and carry the ids of their trace.
fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPAN_TARGET
}

fn resource(identity: &Identity) -> Resource {
    Resource::builder()
        .with_service_name(identity.service)
        .with_attributes([
            KeyValue::new("service.instance.id", identity.instance.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

fn tracer_provider(
    export: &Export,
    batches: Batches,
    resource: &Resource,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &export.endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    let valve = Valve::new("traces", batches.max_queued);
    let exporter = Counted { inner: exporter.build()?, valve: valve.clone() };
    let config = opentelemetry_sdk::trace::BatchConfigBuilder::default()
        .with_max_queue_size(batches.max_queued)
        .with_max_export_batch_size(batches.max_exported)
        .with_scheduled_delay(batches.pause)
        .build();
    valve.show();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(Bounded { inner, valve })
        // Whether a trace is recorded is drawn where it begins (`context::RequestTrace`), before a span is made; everywhere
        // else the flag of the parent decides.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(resource.clone())
        .build())
}

fn logger_provider(
    export: &Export,
    batches: Batches,
    resource: &Resource,
) -> Result<SdkLoggerProvider, ExporterBuildError> {
    let mut exporter = opentelemetry_otlp::LogExporter::builder().with_tonic();
    if let Some(endpoint) = &export.endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    let valve = Valve::new("logs", batches.max_queued);
    let exporter = Counted { inner: exporter.build()?, valve: valve.clone() };
    let config = opentelemetry_sdk::logs::BatchConfigBuilder::default()
        .with_max_queue_size(batches.max_queued)
        .with_max_export_batch_size(batches.max_exported)
        .with_scheduled_delay(batches.pause)
        .build();
    valve.show();
    let inner = BatchLogProcessor::builder(exporter).with_batch_config(config).build();
    Ok(SdkLoggerProvider::builder()
        .with_log_processor(Bounded { inner, valve })
        .with_resource(resource.clone())
        .build())
}

/// `None` when the metrics of this process are in use already, without an exporter.
fn meter_provider(export: &Export, pause: Duration) -> Result<Option<SdkMeterProvider>, ExporterBuildError> {
    let mut exporter = opentelemetry_otlp::MetricExporter::builder().with_tonic();
    if let Some(endpoint) = &export.endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    let valve = Valve::new("metrics", usize::MAX);
    let exporter = Counted { inner: exporter.build()?, valve: valve.clone() };
    let provider = metrics::begin(PeriodicReader::builder(exporter).with_interval(pause).build());
    valve.show();
    Ok(provider)
}
