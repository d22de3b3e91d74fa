//! One JSON object per line.

use std::error::Error;
use std::fmt::{self, Debug};

use serde::ser::{SerializeMap, Serializer as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes `timestamp`, `level`, `target`, the event's fields as they are named, `trace_id` and `span_id`.
pub(crate) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = Vec::with_capacity(256);
        write(&mut line, &timestamp, event).map_err(|_| fmt::Error)?;
        writer.write_str(&String::from_utf8(line).map_err(|_| fmt::Error)?)?;
        writer.write_char('\n')
    }
}

fn write(line: &mut Vec<u8>, timestamp: &str, event: &Event<'_>) -> Result<(), serde_json::Error> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("timestamp", timestamp)?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    map.serialize_entry("target", event.metadata().target())?;
    let mut fields = Fields { map: &mut map, outcome: Ok(()) };
    event.record(&mut fields);
    fields.outcome?;
    if let Some(span) = super::current() {
        map.serialize_entry("trace_id", &span.trace_id().to_string())?;
        map.serialize_entry("span_id", &span.span_id().to_string())?;
    }
    map.end()
}

/// Writes the fields of an event; keeps the first error.
struct Fields<'map, M: SerializeMap> {
    map: &'map mut M,
    outcome: Result<(), M::Error>,
}

impl<M: SerializeMap> Fields<'_, M> {
    fn write(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        if self.outcome.is_ok() {
            self.outcome = self.map.serialize_entry(field.name(), value);
        }
    }
}

impl<M: SerializeMap> Visit for Fields<'_, M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, &value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, &value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, &value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, &value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.write(field, &value.to_string());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, &format!("{value:?}"));
    }
}
