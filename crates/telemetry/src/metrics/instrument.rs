//! Counters, distributions and gauges over the OpenTelemetry SDK, shown in Prometheus text.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use opentelemetry::metrics::{BoundCounter, BoundGauge, BoundHistogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{MeterProviderBuilder, PeriodicReader, SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

use super::bound::{Series, attributes};

/// A label: its name, and a value from a small set.
pub type Label<'a> = (&'static str, &'a str);

/// A count that only grows.
pub struct Counter {
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    instrument: OnceLock<opentelemetry::metrics::Counter<u64>>,
    series: Series<BoundCounter<u64>>,
}

impl Counter {
    /// Names the counter; it is registered when it is first used.
    pub const fn new(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, unit: "", labels, help, instrument: OnceLock::new(), series: Series::new() }
    }

    /// The same for a time in seconds, which is read and not added to.
    pub const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, unit: "s", labels, help, instrument: OnceLock::new(), series: Series::new() }
    }

    /// Adds to the series with these labels.
    pub fn add(&self, count: u64, labels: &[Label<'_>]) {
        check(self, labels);
        let make = || meter().u64_counter(self.name).with_description(self.help).build();
        let bind = |attributes: &[_]| self.instrument.get_or_init(make).bind(attributes);
        self.series.with(labels, bind, |series| series.add(count));
    }

    /// Reads the series with these labels whenever somebody asks for the metrics. A counter is either added to or read,
    /// and each series of it is read from one place.
    pub fn read(&self, labels: &[Label<'_>], value: impl Fn() -> f64 + Send + Sync + 'static) {
        check(self, labels);
        let attributes = attributes(labels);
        let builder = meter().f64_observable_counter(self.name).with_unit(self.unit).with_description(self.help);
        let _lives_with_the_meter =
            builder.with_callback(move |observer| observer.observe(value(), &attributes)).build();
    }
}

/// A distribution.
pub struct Histogram {
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    bounds: &'static [f64],
    instrument: OnceLock<opentelemetry::metrics::Histogram<f64>>,
    series: Series<BoundHistogram<f64>>,
}

impl Histogram {
    /// Names the histogram with its bucket bounds.
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        Self { name, unit: "", labels, help, bounds, instrument: OnceLock::new(), series: Series::new() }
    }

    /// The same for durations in seconds.
    pub const fn seconds(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        Self { name, unit: "s", labels, help, bounds, instrument: OnceLock::new(), series: Series::new() }
    }

    /// Records one value.
    pub fn record(&self, value: f64, labels: &[Label<'_>]) {
        check(self, labels);
        let make = || {
            let builder = meter().f64_histogram(self.name).with_unit(self.unit).with_description(self.help);
            builder.with_boundaries(self.bounds.to_vec()).build()
        };
        let bind = |attributes: &[_]| self.instrument.get_or_init(make).bind(attributes);
        self.series.with(labels, bind, |series| series.record(value));
    }
}

/// A value that goes up and down.
pub struct Gauge {
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    instrument: OnceLock<opentelemetry::metrics::Gauge<f64>>,
    series: Series<BoundGauge<f64>>,
}

impl Gauge {
    /// Names the gauge.
    pub const fn new(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, unit: "", labels, help, instrument: OnceLock::new(), series: Series::new() }
    }

    /// The same for a time in seconds.
    pub const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, unit: "s", labels, help, instrument: OnceLock::new(), series: Series::new() }
    }

    /// The same for a size in bytes.
    pub const fn bytes(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, unit: "By", labels, help, instrument: OnceLock::new(), series: Series::new() }
    }

    /// Sets the series with these labels.
    pub fn set(&self, value: f64, labels: &[Label<'_>]) {
        check(self, labels);
        let make = || meter().f64_gauge(self.name).with_unit(self.unit).with_description(self.help).build();
        let bind = |attributes: &[_]| self.instrument.get_or_init(make).bind(attributes);
        self.series.with(labels, bind, |series| series.record(value));
    }

    /// Reads the series with these labels from `source` whenever somebody asks for the metrics. A number that can be
    /// read at any time is shown so: one that is set when something happens stays behind when the last thing to happen
    /// forgets it, or when two happen at once. A gauge is either set or read. When `source` is gone, the last value stays.
    pub fn read<T: Send + Sync + 'static>(
        &self,
        labels: &[Label<'_>],
        source: &Arc<T>,
        value: impl Fn(&T) -> f64 + Send + Sync + 'static,
    ) {
        check(self, labels);
        let attributes = attributes(labels);
        let source = Arc::downgrade(source);
        let builder = meter().f64_observable_gauge(self.name).with_unit(self.unit).with_description(self.help);
        let _lives_with_the_meter = builder
            .with_callback(move |observer| {
                if let Some(source) = source.upgrade() {
                    observer.observe(value(&source), &attributes);
                }
            })
            .build();
    }
}

/// What is known of a metric without using it: for the documentation.
pub trait Describe: Sync {
    /// OpenTelemetry name.
    fn name(&self) -> &'static str;
    /// `counter`, `histogram` or `gauge`.
    fn kind(&self) -> &'static str;
    /// What it says.
    fn help(&self) -> &'static str;
    /// Unit of UCUM; empty for a plain number.
    fn unit(&self) -> &'static str;
    /// Names of its labels, in the order in which values are given.
    fn labels(&self) -> &'static [&'static str];
    /// Name in `/metrics`, by the rule of OpenTelemetry for Prometheus: dots become underscores, the unit is spelled out
    /// at the end, and a counter ends in `_total`. A collector that takes the OTLP export makes the same of it.
    fn prometheus_name(&self) -> String {
        let unit = match self.unit() {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if self.kind() == "counter" { "_total" } else { "" };
        format!("{}{unit}{total}", self.name().replace('.', "_"))
    }
}

macro_rules! describe {
    ($type:ty, $kind:literal) => {
        impl Describe for $type {
            fn name(&self) -> &'static str {
                self.name
            }
            fn kind(&self) -> &'static str {
                $kind
            }
            fn help(&self) -> &'static str {
                self.help
            }
            fn unit(&self) -> &'static str {
                self.unit
            }
            fn labels(&self) -> &'static [&'static str] {
                self.labels
            }
        }
    };
}
describe!(Counter, "counter");
describe!(Histogram, "histogram");
describe!(Gauge, "gauge");

/// `/metrics` in Prometheus text format.
pub fn render() -> String {
    let mut text = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&exporter().registry.gather(), &mut text) {
        tracing::warn!(%error, "cannot write the metrics");
    }
    text
}

/// Who these metrics are about (`target_info`). Only what is told before the first metric counts.
pub(crate) fn set_resource(resource: Resource) {
    *RESOURCE.lock().unwrap_or_else(PoisonError::into_inner) = Some(resource);
}

static RESOURCE: Mutex<Option<Resource>> = Mutex::new(None);

/// All instruments of the process, and who reads them.
struct Exporter {
    registry: Registry,
    meter: Meter,
    /// Held, because the instruments end with it.
    provider: SdkMeterProvider,
}

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Lets a second reader have every metric, beside `/metrics`. `None`, and nothing is done, when a metric has been used
/// already: the readers of a process are known before its first metric.
pub(crate) fn begin<E: PushMetricExporter>(reader: PeriodicReader<E>) -> Option<SdkMeterProvider> {
    let mut reader = Some(reader);
    let exporter = EXPORTER.get_or_init(|| {
        let builder = SdkMeterProvider::builder();
        Exporter::new(match reader.take() {
            Some(reader) => builder.with_reader(reader),
            None => builder,
        })
    });
    reader.is_none().then(|| exporter.provider.clone())
}

impl Exporter {
    fn new(provider: MeterProviderBuilder) -> Self {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
        let reader = reader.build().expect("a fresh registry takes the exporter");
        let mut provider = provider.with_reader(reader);
        if let Some(resource) = RESOURCE.lock().unwrap_or_else(PoisonError::into_inner).take() {
            provider = provider.with_resource(resource);
        }
        let provider = provider.build();
        let meter = provider.meter("saga");
        Self { registry, meter, provider }
    }
}

fn exporter() -> &'static Exporter {
    EXPORTER.get_or_init(|| Exporter::new(SdkMeterProvider::builder()))
}

fn meter() -> &'static Meter {
    &exporter().meter
}

/// In debug builds: the labels are those that the metric was declared with, in their order.
fn check(of: &dyn Describe, labels: &[Label<'_>]) {
    debug_assert!(
        labels.iter().map(|(name, _)| name).eq(of.labels()),
        "{} has the labels {:?}, not {labels:?}",
        of.name(),
        of.labels()
    );
}
