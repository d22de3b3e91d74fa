//! Log lines: for people or as JSON, each with the trace it belongs to, and not more of them than say something.
//!
//! A line about a saga has the field `saga.id`. The ids of its trace are those of the span it is written in, or of the
//! scope that [`crate::context::scope`] has opened; the exporter takes them from the same place.

mod json;
mod throttle;

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::context::SPAN_TARGET;
use crate::setup::SetupError;
pub(crate) use json::Json;
pub use throttle::Throttle;

/// Lines of what carries the exported lines: they would make more lines to carry.
const CARRIERS: [&str; 5] = ["opentelemetry", "tonic", "h2", "hyper", "tower"];

/// A layer of the subscriber, whatever its type.
pub(crate) type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// For people.
    Human,
    /// One JSON object each.
    Json,
}

/// The layer that writes lines.
pub(crate) fn line_layer<W>(format: LineFormat, colours: Colours, writer: W) -> Result<AnyLayer, SetupError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let ansi = colours == Colours::On;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    Ok(match format {
        LineFormat::Json => lines.event_format(Json).with_filter(filter()?).boxed(),
        LineFormat::Human => {
            lines.event_format(Human { inner: Format::default().with_ansi(ansi) }).with_filter(filter()?).boxed()
        }
    })
}

/// Whether human lines are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    On,
    Off,
}

/// Which lines are written (`RUST_LOG`), for one layer.
pub(crate) fn filter() -> Result<EnvFilter, SetupError> {
    let directives = crate::environment::of_process("RUST_LOG").unwrap_or_else(|| "info".to_owned());
    // Our spans are for the exporter; in lines they would cost and only repeat the fields. The exporter's own lines come
    // with every batch that fails: `export` says it once.
    EnvFilter::try_new(format!("opentelemetry=off,{directives},{SPAN_TARGET}=off"))
        .map_err(|error| SetupError(format!("RUST_LOG cannot be read: {error}")))
}

/// Lets everything through but the lines of those who carry lines.
pub(crate) fn not_of_carriers() -> FilterFn {
    FilterFn::new(|metadata: &Metadata<'_>| !CARRIERS.iter().any(|carrier| metadata.target().starts_with(carrier)))
}

/// The context that is current on this thread, if it belongs to a trace.
fn current() -> Option<SpanContext> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| span.clone())
    })
}

/// The usual lines for people, with the trace at their end.
struct Human {
    inner: Format<Full, SystemTime>,
}

impl<S> FormatEvent<S, DefaultFields> for Human
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(span) = current() else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} trace_id={} span_id={}", line.trim_end(), span.trace_id(), span.span_id())
    }
}
