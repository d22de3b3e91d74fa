//! What the standard variables of OpenTelemetry ask for; read once, at the start.
//!
//! The names are those of the specification, so that whoever runs a collector need not learn ours. A value that cannot
//! be obeyed is refused: telemetry that is silently not there is found out when it is needed.

use std::time::Duration;

use crate::sampling::Sampling;
use crate::setup::SetupError;

/// Switches the export on and says where to.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Share of the traces that are recorded beyond the first ones of every second. A checkout has some forty spans; a
/// hundredth of them costs a busy system little (`./dev bench telemetry` says how much), and finds what is common.
pub(crate) const DEFAULT_RATIO: f64 = 0.01;

/// Traces that a process begins to record in every second, whatever the ratio says: whoever sends one request wants to
/// see that one, and a fixed number costs the same however busy the system is.
pub const DEFAULT_MIN_TRACES_PER_S: u32 = 10;

/// Spans that wait to be exported: a second of a few hundred recorded checkouts, some 20 MB. More are dropped and counted.
const MAX_QUEUED_SPANS: usize = 16_384;

/// Log lines that wait to be exported; a process writes a few in a second.
const MAX_QUEUED_LOGS: usize = 2_048;

/// Spans or lines in one export: below the 4 MiB that gRPC takes.
const MAX_ITEMS_PER_EXPORT: usize = 1_024;

/// Pause between two exports of spans and logs: short, so that a person who looks finds the trace.
const EXPORT_PAUSE: Duration = Duration::from_secs(1);

/// Pause between two exports of metrics.
const METRICS_PAUSE: Duration = Duration::from_secs(10);

/// Where telemetry goes, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// OTLP over gRPC, e.g. `http://127.0.0.1:4317`; the standard variables when `None`.
    pub endpoint: Option<String>,
    /// Which traces are recorded.
    pub sampling: Sampling,
    /// Spans, unless `None`.
    pub traces: Option<Batches>,
    /// Log lines, unless `None`.
    pub logs: Option<Batches>,
    /// Metrics, unless `None`: the pause between two exports.
    pub metrics: Option<Duration>,
}

/// How one signal is collected before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Most items that wait; more are dropped and counted.
    pub max_queued: usize,
    /// Most items in one export.
    pub max_exported: usize,
    /// Pause between two exports.
    pub pause: Duration,
}

impl Export {
    /// Everything to one endpoint, with the defaults.
    pub fn to(endpoint: impl Into<String>, sampling: Sampling) -> Self {
        let nothing_set = |_: &str| None;
        Self {
            endpoint: Some(endpoint.into()),
            sampling,
            traces: Batches::of_spans(&nothing_set).ok(),
            logs: Batches::of_logs(&nothing_set).ok(),
            metrics: Some(METRICS_PAUSE),
        }
    }

    /// What the variables ask for; `None` when nothing is to be exported.
    pub(crate) fn from_variables(
        variable: &dyn Fn(&str) -> Option<String>,
        min_traces_per_s: u32,
    ) -> Result<Option<Self>, SetupError> {
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        for signal in ["", "TRACES_", "METRICS_", "LOGS_"] {
            let name = &format!("OTEL_EXPORTER_OTLP_{signal}PROTOCOL");
            if let Some(other) = variable(name).filter(|protocol| protocol != "grpc") {
                return Err(SetupError(format!(
                    "{name} must be grpc, the only protocol of this program, not \"{other}\""
                )));
            }
        }
        let export = Self {
            endpoint: None,
            sampling: sampling(variable, min_traces_per_s)?,
            traces: is_wanted(variable, "TRACES")?.then(|| Batches::of_spans(variable)).transpose()?,
            logs: is_wanted(variable, "LOGS")?.then(|| Batches::of_logs(variable)).transpose()?,
            metrics: is_wanted(variable, "METRICS")?.then(|| metrics_pause(variable)).transpose()?,
        };
        let is_any = export.traces.is_some() || export.logs.is_some() || export.metrics.is_some();
        Ok(is_any.then_some(export))
    }
}

impl Batches {
    fn of_spans(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        Self::read(variable, "OTEL_BSP", MAX_QUEUED_SPANS)
    }

    fn of_logs(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        Self::read(variable, "OTEL_BLRP", MAX_QUEUED_LOGS)
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>, prefix: &str, max_queued: usize) -> Result<Self, SetupError> {
        let max_queued = number(variable, &format!("{prefix}_MAX_QUEUE_SIZE"))?.unwrap_or(max_queued);
        let max_exported =
            number(variable, &format!("{prefix}_MAX_EXPORT_BATCH_SIZE"))?.unwrap_or(MAX_ITEMS_PER_EXPORT);
        let pause = number(variable, &format!("{prefix}_SCHEDULE_DELAY"))?;
        Ok(Self {
            max_queued,
            max_exported: max_exported.min(max_queued),
            pause: pause.map_or(EXPORT_PAUSE, |pause_ms| Duration::from_millis(pause_ms as u64)),
        })
    }
}

/// A signal is exported when there is an endpoint for it, unless its exporter is `none`.
fn is_wanted(variable: &dyn Fn(&str) -> Option<String>, signal: &str) -> Result<bool, SetupError> {
    let name = format!("OTEL_{signal}_EXPORTER");
    match variable(&name).as_deref() {
        Some("none") => Ok(false),
        None | Some("otlp") => {
            let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
            Ok(variable(ENDPOINT).is_some() || variable(&own).is_some())
        }
        Some(other) => Err(SetupError(format!("{name} must be otlp or none, not \"{other}\""))),
    }
}

/// Only samplers that obey their parent: the decision is made once, where a trace begins, and holds for every hop.
fn sampling(variable: &dyn Fn(&str) -> Option<String>, min_per_s: u32) -> Result<Sampling, SetupError> {
    match variable("OTEL_TRACES_SAMPLER").as_deref() {
        Some("parentbased_always_on") => Ok(Sampling { ratio: 1.0, min_per_s }),
        Some("parentbased_always_off") => Ok(Sampling { ratio: 0.0, min_per_s: 0 }),
        None | Some("parentbased_traceidratio") => Ok(Sampling { ratio: ratio(variable)?, min_per_s }),
        Some(other) => Err(SetupError(format!(
            "OTEL_TRACES_SAMPLER must be parentbased_traceidratio, parentbased_always_on or parentbased_always_off \
             (a trace is decided on where it begins), not \"{other}\""
        ))),
    }
}

fn ratio(variable: &dyn Fn(&str) -> Option<String>) -> Result<f64, SetupError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(text) = variable(NAME) else { return Ok(DEFAULT_RATIO) };
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| SetupError(format!("{NAME} must be a number from 0 to 1, not \"{text}\"")))
}

fn metrics_pause(variable: &dyn Fn(&str) -> Option<String>) -> Result<Duration, SetupError> {
    let pause = number(variable, "OTEL_METRIC_EXPORT_INTERVAL")?;
    Ok(pause.map_or(METRICS_PAUSE, |pause_ms| Duration::from_millis(pause_ms as u64)))
}

fn number(variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<usize>, SetupError> {
    let Some(text) = variable(name) else { return Ok(None) };
    let number = text.parse::<usize>().ok().filter(|number| *number > 0);
    number.map(Some).ok_or_else(|| SetupError(format!("{name} must be a whole number above 0, not \"{text}\"")))
}

/// A variable of this process; one that is empty counts as not set.
pub(crate) fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<Export>, SetupError> {
        let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Export::from_variables(&variable, 10)
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert_eq!(read(&[]).expect("fine"), None);
        assert_eq!(read(&[("OTEL_TRACES_SAMPLER_ARG", "0.5")]).expect("fine"), None);
        assert_eq!(read(&[(ENDPOINT, "http://x:1"), ("OTEL_SDK_DISABLED", "true")]).expect("fine"), None);
    }

    #[test]
    fn an_endpoint_switches_all_signals_on_or_its_own() {
        let all = read(&[(ENDPOINT, "http://x:1")]).expect("fine").expect("on");
        assert!(all.traces.is_some() && all.logs.is_some() && all.metrics.is_some());
        assert_eq!(all.sampling, Sampling { ratio: DEFAULT_RATIO, min_per_s: 10 });
        let traces = read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://x:1")]).expect("fine").expect("on");
        assert!(traces.traces.is_some() && traces.logs.is_none() && traces.metrics.is_none());
        let no_logs = read(&[(ENDPOINT, "http://x:1"), ("OTEL_LOGS_EXPORTER", "none")]).expect("fine").expect("on");
        assert!(no_logs.traces.is_some() && no_logs.logs.is_none());
    }

    #[test]
    fn batches_and_samplers_are_the_ones_asked_for() {
        let set = [
            (ENDPOINT, "http://x:1"),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ];
        let export = read(&set).expect("fine").expect("on");
        assert_eq!(export.sampling, Sampling { ratio: 0.0, min_per_s: 0 });
        let expected = Batches { max_queued: 100, max_exported: 100, pause: Duration::from_millis(200) };
        assert_eq!(export.traces, Some(expected));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_TRACES_SAMPLER_ARG", "much"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "1s"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_LOGS_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ] {
            let refused = read(&[(ENDPOINT, "http://x:1"), (name, value)]).expect_err(name);
            assert!(refused.to_string().contains(name) && refused.to_string().contains(value), "{refused}");
        }
    }
}
