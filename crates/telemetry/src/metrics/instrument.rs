//! Counters, distributions and gauges over the OpenTelemetry SDK, shown in Prometheus text.

use std::sync::{Mutex, OnceLock, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// A label: its name, and a value from a small set.
pub type Label<'a> = (&'static str, &'a str);

/// A count that only grows.
pub struct Counter {
    name: &'static str,
    help: &'static str,
    instrument: OnceLock<opentelemetry::metrics::Counter<u64>>,
}

impl Counter {
    /// Names the counter; it is registered when it is first used.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, instrument: OnceLock::new() }
    }

    /// Adds to the series with these labels.
    pub fn add(&self, count: u64, labels: &[Label<'_>]) {
        let make = || meter().u64_counter(self.name).with_description(self.help).build();
        let instrument = self.instrument.get_or_init(make);
        with_attributes(labels, |attributes| instrument.add(count, attributes));
    }
}

/// A distribution; the unit is part of the name's help.
pub struct Histogram {
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
    instrument: OnceLock<opentelemetry::metrics::Histogram<f64>>,
}

impl Histogram {
    /// Names the histogram with its bucket bounds.
    pub const fn new(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, help, bounds, instrument: OnceLock::new() }
    }

    /// Records one value.
    pub fn record(&self, value: f64, labels: &[Label<'_>]) {
        let make = || {
            let builder = meter().f64_histogram(self.name).with_description(self.help);
            builder.with_boundaries(self.bounds.to_vec()).build()
        };
        let instrument = self.instrument.get_or_init(make);
        with_attributes(labels, |attributes| instrument.record(value, attributes));
    }
}

/// A value that goes up and down.
pub struct Gauge {
    name: &'static str,
    help: &'static str,
    instrument: OnceLock<opentelemetry::metrics::Gauge<f64>>,
}

impl Gauge {
    /// Names the gauge.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, instrument: OnceLock::new() }
    }

    /// Sets the series with these labels.
    pub fn set(&self, value: f64, labels: &[Label<'_>]) {
        let make = || meter().f64_gauge(self.name).with_description(self.help).build();
        let instrument = self.instrument.get_or_init(make);
        with_attributes(labels, |attributes| instrument.record(value, attributes));
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
    /// Name in `/metrics`.
    fn prometheus_name(&self) -> String {
        let name = self.name().replace('.', "_");
        if self.kind() == "counter" { format!("{name}_total") } else { name }
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

struct Exporter {
    registry: Registry,
    meter: Meter,
    /// Held, because the instruments end with it.
    _provider: SdkMeterProvider,
}

fn exporter() -> &'static Exporter {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    EXPORTER.get_or_init(|| {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
        let reader = reader.build().expect("a fresh registry takes the exporter");
        let mut provider = SdkMeterProvider::builder().with_reader(reader);
        if let Some(resource) = RESOURCE.lock().unwrap_or_else(PoisonError::into_inner).take() {
            provider = provider.with_resource(resource);
        }
        let provider = provider.build();
        let meter = provider.meter("saga");
        Exporter { registry, meter, _provider: provider }
    })
}

fn meter() -> &'static Meter {
    &exporter().meter
}

/// Calls `f` with the labels as attributes, without a vector for the usual zero, one or two.
fn with_attributes(labels: &[Label<'_>], f: impl FnOnce(&[KeyValue])) {
    let attribute = |(name, value): &Label<'_>| KeyValue::new(*name, (*value).to_owned());
    match labels {
        [] => f(&[]),
        [one] => f(&[attribute(one)]),
        [one, two] => f(&[attribute(one), attribute(two)]),
        many => f(&many.iter().map(attribute).collect::<Vec<_>>()),
    }
}
