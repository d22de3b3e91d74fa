//! What happens at the store: one function per event, which writes the log line and counts.

use std::time::Duration;

use telemetry::metrics::{
    REDIS_BATCH_SIZE, REDIS_CONNECTED, REDIS_CONNECTIONS, REDIS_EXEC_SECONDS, REDIS_EXECS, REDIS_RETRIED, REDIS_SETTLED,
};

/// An EXEC was committed.
pub(crate) fn executed(transactions: usize, took: Duration) {
    REDIS_EXECS.add(1, &[("outcome", "done")]);
    REDIS_EXEC_SECONDS.record(took.as_secs_f64(), &[]);
    REDIS_BATCH_SIZE.record(transactions as f64, &[]);
}

/// An EXEC was not committed; its transactions are run again.
pub(crate) fn not_executed(outcome: &'static str, transactions: usize) {
    REDIS_EXECS.add(1, &[("outcome", outcome)]);
    REDIS_RETRIED.add(transactions as u64, &[("cause", outcome)]);
}

/// An unknown outcome is known.
pub(crate) fn settled(number: u64, happened: bool) {
    let outcome = if happened { "happened" } else { "not-happened" };
    REDIS_SETTLED.add(1, &[("outcome", outcome)]);
    tracing::info!(number, outcome, "settled an unknown outcome");
}

/// The committer has a new connection.
pub(crate) fn connected() {
    REDIS_CONNECTIONS.add(1, &[]);
}

/// The store has become of use: said once, when it was not before.
pub(crate) fn came(address: &str) {
    REDIS_CONNECTED.set(1.0, &[]);
    tracing::info!(address, "the store answers");
}

/// The store has become of no use: said once, when it was before.
pub(crate) fn went(address: &str, cause: &str) {
    REDIS_CONNECTED.set(0.0, &[]);
    tracing::warn!(address, cause, "the store is away or refuses");
}
