//! Spans of Redis transactions: one for each saga that takes part, and one for each EXEC that carries several.

use opentelemetry::trace::SpanContext;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{SPAN_TARGET, TraceContext, fail, is_exporting, is_recorded, recorded_span_context, with_parent};

/// Most sagas that the span of an EXEC links to: enough to find it, small enough to send. A batch may have more.
const MAX_LINKS: usize = 32;

/// The name of a transaction, as the conventions have it for commands of several kinds.
const OPERATION: &str = "MULTI";

/// The server, as spans name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServer {
    host: String,
    port: i64,
}

impl RedisServer {
    /// Of `host:port`; nothing else may stand in it.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port: port.into() }
    }
}

/// What one saga waits for: from handing a transaction in to its outcome, queue and repetitions included (`MULTI`).
#[derive(Debug)]
pub struct TransactionSpan(Span);

impl TransactionSpan {
    /// Child of the saga's context; `None` when that is not recorded.
    pub fn begin(server: &RedisServer, parent: &TraceContext) -> Option<Self> {
        if !is_recorded(parent) {
            return None;
        }
        let span = tracing::info_span!(
            target: SPAN_TARGET, parent: None, "transaction",
            otel.name = OPERATION,
            otel.kind = "client",
            db.system.name = "redis",
            db.operation.name = OPERATION,
            server.address = server.host,
            server.port = server.port,
            saga.redis.execs = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        Some(Self(with_parent(span, parent)))
    }

    /// It has its outcome after so many EXECs.
    pub fn done(self, execs: u32) {
        self.0.record("saga.redis.execs", execs);
    }

    /// It has none; `kind` is a word from a small set.
    pub fn failed(self, execs: u32, kind: &'static str) {
        self.0.record("saga.redis.execs", execs);
        fail(&self.0, kind);
    }

    fn context(&self) -> Option<SpanContext> {
        recorded_span_context(&self.0)
    }
}

/// One MULTI … EXEC for many transactions (`MULTI batch`): child of the first saga's span, linked to the sagas in it (at
/// most 32), and linked from each of them. Disabled when none is recorded.
pub struct ExecSpan(Span);

impl ExecSpan {
    /// About to be sent: so many commands for so many transactions.
    pub fn begin<'a>(
        server: &RedisServer,
        commands: usize,
        transactions: usize,
        parts: impl Iterator<Item = &'a TransactionSpan>,
    ) -> Self {
        let mut parts = parts.peekable();
        if !is_exporting() || parts.peek().is_none() {
            return Self(Span::none());
        }
        let parts: Vec<&TransactionSpan> = parts.collect();
        let span = tracing::info_span!(
            target: SPAN_TARGET, parent: &parts[0].0, "exec",
            otel.name = "MULTI batch",
            otel.kind = "client",
            db.system.name = "redis",
            db.operation.name = OPERATION,
            db.operation.batch.size = Empty,
            server.address = server.host,
            server.port = server.port,
            saga.redis.transactions = transactions,
            saga.redis.outcome = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        // One command is not a batch, say the conventions.
        if commands > 1 {
            span.record("db.operation.batch.size", commands);
        }
        for context in parts.iter().take(MAX_LINKS).filter_map(|part| part.context()) {
            span.add_link(context);
        }
        if let Some(own) = recorded_span_context(&span) {
            parts.iter().for_each(|part| part.0.add_link(own.clone()));
        }
        Self(span)
    }

    /// Redis has answered: `done` or `conflict`.
    pub fn answered(self, outcome: &'static str) {
        self.0.record("saga.redis.outcome", outcome);
    }

    /// Redis has refused (`refused`), or nobody knows what it did (`unknown`).
    pub fn failed(self, outcome: &'static str) {
        self.0.record("saga.redis.outcome", outcome);
        fail(&self.0, outcome);
    }
}
