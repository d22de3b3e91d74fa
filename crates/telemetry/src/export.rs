//! Bounded queues before the exporters: what does not fit is dropped and counted, nobody waits for telemetry.
//!
//! The queues are those of OpenTelemetry's batch processors. A [`Valve`] stands before each, because those only log that
//! they drop, and behind each exporter, because it says what became of a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use crate::metrics::TELEMETRY_ITEMS;

/// Counts what waits, and what became of it.
#[derive(Debug)]
pub(crate) struct Valve {
    signal: &'static str,
    limit: usize,
    waiting: AtomicUsize,
    failing: AtomicBool,
}

impl Valve {
    pub(crate) fn new(signal: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { signal, limit, waiting: AtomicUsize::new(0), failing: AtomicBool::new(false) })
    }

    /// Shows the counters from the start: an alert compares with what was before.
    pub(crate) fn show(&self) {
        for fate in ["exported", "failed", "dropped"] {
            TELEMETRY_ITEMS.add(0, &[("signal", self.signal), ("fate", fate)]);
        }
    }

    /// Whether one more may wait.
    fn admit(&self) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.limit {
            return true;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        TELEMETRY_ITEMS.add(1, &[("signal", self.signal), ("fate", "dropped")]);
        false
    }

    /// A batch has left the queue.
    fn taken(&self, items: usize) {
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| Some(waiting.saturating_sub(items)));
    }

    /// Tells what became of a batch: counted always, said once when it begins to fail and once when it works again.
    fn finished(&self, items: usize, outcome: &OTelSdkResult) {
        let fate = if outcome.is_ok() { "exported" } else { "failed" };
        TELEMETRY_ITEMS.add(items as u64, &[("signal", self.signal), ("fate", fate)]);
        let was_failing = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_failing => {
                tracing::warn!(signal = self.signal, %error, "telemetry cannot be exported and is lost until it can");
            }
            Ok(()) if was_failing => tracing::info!(signal = self.signal, "telemetry is exported again"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// A batch processor behind a valve.
#[derive(Debug)]
pub(crate) struct Bounded<P> {
    pub(crate) inner: P,
    pub(crate) valve: Arc<Valve>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.valve.admit() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Bounded<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.valve.admit() {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter whose outcomes are counted.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    pub(crate) inner: E,
    pub(crate) valve: Arc<Valve>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len();
        self.valve.taken(items);
        let outcome = self.inner.export(batch).await;
        self.valve.finished(items, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        self.valve.taken(items);
        let outcome = self.inner.export(batch).await;
        self.valve.finished(items, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let outcome = self.inner.export(metrics).await;
        // One item is one look at all metrics.
        self.valve.finished(1, &outcome);
        outcome
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_room_comes_back() {
        let valve = Valve::new("test", 2);
        assert_eq!([valve.admit(), valve.admit(), valve.admit()], [true, true, false]);
        valve.taken(1);
        assert_eq!([valve.admit(), valve.admit()], [true, false]);
        valve.taken(5);
        assert!(valve.admit(), "never below zero");
        let text = crate::metrics::render();
        assert!(text.contains(r#"saga_telemetry_items_total{fate="dropped",signal="test"} 2"#), "{text}");
    }
}
