//! Spans of the orchestrator: folding one record, and how a saga ended.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, Span as _, SpanKind, Tracer};
use opentelemetry::{Context, KeyValue};
use saga_core::ids::SagaId;
use saga_core::record::{SagaOutcome, UndoCause};
use tracing::Span;
use tracing::field::Empty;

use super::{PROCESS, SPAN_TARGET, TraceContext, is_exporting, text};

/// The span in which one record is folded (`fold start`): child of the span that consumed it, disabled when that is.
pub fn fold_span(event: &'static str, saga: SagaId, consumed: &Span) -> Span {
    if consumed.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPAN_TARGET, parent: consumed, "fold",
        otel.name = format!("fold {event}"),
        otel.kind = "internal",
        saga.id = %saga,
        saga.event = event,
        saga.ignored = Empty,
    )
}

/// The record of a [`fold_span`] changed nothing, for a named reason.
pub fn ignored(fold: &Span, reason: &'static str) {
    fold.record("saga.ignored", reason);
}

/// The word for how a saga ended, in metrics and spans: `completed`, `refused`, `timed-out`, `invalid`, `operator`.
pub fn outcome_word(outcome: &SagaOutcome) -> &'static str {
    match outcome {
        SagaOutcome::Completed => "completed",
        SagaOutcome::Undone { cause: UndoCause::Refused, .. } => "refused",
        SagaOutcome::Undone { cause: UndoCause::TimedOut, .. } => "timed-out",
        SagaOutcome::Undone { cause: UndoCause::Invalid, .. } => "invalid",
        SagaOutcome::Undone { cause: UndoCause::Operator, .. } => "operator",
    }
}

/// What one saga came to.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// The saga.
    pub saga: SagaId,
    /// Name of its definition.
    pub definition: &'a str,
    /// Its lane.
    pub lane: u32,
    /// How it ended ([`outcome_word`]), or `stuck` for one that has not and needs a person.
    pub outcome: &'static str,
    /// Code of the refusal, or what is wrong.
    pub reason: &'a str,
    /// Log time of its first record.
    pub started_ms: i64,
    /// Log time of the record that ended it.
    pub ended_ms: i64,
    /// The trace that its records belong to, recorded or not.
    pub trace: &'a TraceContext,
}

/// Writes one span that tells how a saga ended (`saga checkout`): a trace of its own, recorded always, as long as the saga
/// was, with a link to the saga's trace. So the unusual ones are found even when only few traces are recorded.
pub fn summarise(summary: &Summary<'_>) {
    let Some(process) = PROCESS.get().filter(|_| is_exporting()) else { return };
    let ended_ms = summary.ended_ms.max(summary.started_ms);
    let attributes = vec![
        KeyValue::new("saga.id", summary.saga.to_string()),
        KeyValue::new("saga.definition", summary.definition.to_owned()),
        KeyValue::new("saga.outcome", summary.outcome),
        KeyValue::new("saga.reason", summary.reason.to_owned()),
        KeyValue::new("saga.lane", i64::from(summary.lane)),
        KeyValue::new("saga.duration_ms", ended_ms.saturating_sub(summary.started_ms)),
    ];
    let links: Vec<Link> = text::to_span_context(summary.trace).map(Link::with_context).into_iter().collect();
    let builder = process
        .tracer
        .span_builder(format!("saga {}", summary.definition))
        .with_kind(SpanKind::Internal)
        .with_start_time(time(summary.started_ms))
        .with_attributes(attributes)
        .with_links(links);
    process.tracer.build_with_context(builder, &Context::new()).end_with_timestamp(time(ended_ms));
}

fn time(unix_ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or_default())
}
