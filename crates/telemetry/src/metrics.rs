//! Every metric of the system: one static each, so that a name exists once.
//!
//! Names follow OpenTelemetry (`saga.redis.exec.conflicts`); `/metrics` shows them in Prometheus form
//! (`saga_redis_exec_conflicts_total`). Labels are few and bounded; an id is never a label.

mod all;
mod instrument;

pub use all::all;
pub(crate) use instrument::set_resource;
pub use instrument::{Counter, Describe, Gauge, Histogram, Label, render};

/// Bucket bounds for durations in seconds, from a local hop to the longest request.
pub const SECONDS_BOUNDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0];

/// Handlers that panicked: a mistake in the code, answered 500.
pub static HTTP_PANICS: Counter = Counter::new("saga.http.panics", "HTTP handlers that panicked");
/// Replicas of another service that want requests (`upstream`).
pub static UPSTREAM_READY: Gauge = Gauge::new("saga.upstream.ready", "ready replicas of another service, by upstream");
/// Requests answered by the gateway (`route`, `status`).
pub static GATEWAY_REQUESTS: Counter = Counter::new("saga.gateway.requests", "requests answered, by route and status");
/// Time to the answer at the gateway (`route`).
pub static GATEWAY_SECONDS: Histogram =
    Histogram::new("saga.gateway.duration", "from a request's head to the answer's, seconds", SECONDS_BOUNDS);
/// Requests sent again to another replica (`upstream`).
pub static GATEWAY_REPEATS: Counter = Counter::new("saga.gateway.repeats", "requests sent again, by upstream");
/// Requests refused before anything was sent, for want of a place.
pub static GATEWAY_SHED: Counter = Counter::new("saga.gateway.shed", "requests shed at the concurrency limit");

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
pub static REDIS_SETTLED: Counter =
    Counter::new("saga.redis.exec.settled", "unknown outcomes of EXEC settled, by outcome");
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

/// Requests collected into one window of a starter.
pub static STARTER_WINDOW_SIZE: Histogram =
    Histogram::new("saga.starter.window.size", "requests in one window", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0]);
/// How long the stages of a saga take at its starter (`stage`: `commit`, `publish`, `saga`).
pub static STARTER_STAGE_SECONDS: Histogram = Histogram::new(
    "saga.starter.stage.duration",
    "stages of a saga at its starter, seconds: EXEC of its window, ack of its start, start to applied result",
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0],
);
/// Requests with an `Idempotency-Key` by what became of them (`fate`: `ran`, `replayed`, `unusable`, `invalid`, `shed`).
pub static IDEMPOTENCY_REQUESTS: Counter =
    Counter::new("saga.rest.idempotency.requests", "requests with an Idempotency-Key, by fate");
/// Records of idempotency keys in the store, as the last sweep counted them.
pub static IDEMPOTENCY_RECORDS: Gauge = Gauge::new("saga.rest.idempotency.records", "recorded idempotency keys");
/// Requests by what became of them (`fate`: `started`, `joined`, `answered`, `failed`, `shed`).
pub static STARTER_REQUESTS: Counter = Counter::new("saga.starter.requests", "requests to start a saga, by fate");
/// Applied results (`outcome`: `completed`, `refused`, `timed_out`, `invalid`, `operator`).
pub static STARTER_RESULTS: Counter = Counter::new("saga.starter.results", "applied results of sagas, by outcome");
/// Sagas whose subject was told that they are being undone and that it takes a while.
pub static STARTER_UNDO_NOTICES: Counter = Counter::new("saga.starter.undo_notices", "notices of long undos applied");
/// Results that changed nothing, by `reason`.
pub static STARTER_IGNORED: Counter = Counter::new("saga.starter.results.ignored", "results ignored, by reason");
/// Starts sent again (`occasion`: `takeover`, `sweep`).
pub static STARTER_RESENT: Counter = Counter::new("saga.starter.resent", "pending starts sent again, by occasion");
/// Result batches that found another position.
pub static STARTER_FENCED: Counter = Counter::new("saga.starter.fenced", "result batches that were fenced");
/// Deliveries of starts that failed and are repeated.
pub static STARTER_DELIVERY_FAILED: Counter =
    Counter::new("saga.starter.delivery.failed", "deliveries of starts with an unknown outcome");
/// Things that must not happen, by `kind`.
pub static STARTER_ALARMS: Counter = Counter::new("saga.starter.alarms", "surprises of a starter, by kind");
/// Requests that wait for a saga now.
pub static STARTER_WAITING: Gauge = Gauge::new("saga.starter.waiting", "requests that wait for a saga");

/// Lanes of this process (`topic`; `state`: `owned`, `loaded`, `halted`).
pub static STREAM_LANES: Gauge = Gauge::new("saga.stream.lanes", "lanes of this process, by topic and state");
/// Records between the positions of this process's lanes and the log's ends, as far as fetches have told (`topic`).
pub static STREAM_LAG_RECORDS: Gauge = Gauge::new("saga.stream.lag", "records that owned lanes are behind, by topic");
/// Lanes that halted with a named alarm (`topic`).
pub static STREAM_LANE_HALTS: Counter = Counter::new("saga.stream.lane.halts", "lanes that halted, by topic");
/// Runs of lane loops after a fault (`topic`).
pub static STREAM_LANE_RESTARTS: Counter =
    Counter::new("saga.stream.lane.restarts", "lane loops that ran again after a fault, by topic");
/// Lanes that were dropped because they did not drain in time (`topic`).
pub static STREAM_DRAIN_OVERRUNS: Counter =
    Counter::new("saga.stream.drain.overruns", "lanes dropped at the drain deadline, by topic");
/// Changes of ownership (`topic`; `kind`: `assigned`, `revoked`, `lost`).
pub static STREAM_REBALANCES: Counter = Counter::new("saga.stream.rebalances", "changes of ownership, by kind");
/// Records handed to the producer (`topic`).
pub static PUBLISHED: Counter = Counter::new("saga.publish.records", "records handed to the producer, by topic");
/// Records whose delivery failed: whether they are in the log is unknown.
pub static PUBLISH_FAILURES: Counter = Counter::new("saga.publish.failures", "records with an unknown outcome");
/// Times that a sender met a full queue.
pub static PUBLISH_QUEUE_FULL: Counter = Counter::new("saga.publish.queue_full", "waits for room in the producer");
/// Producers that met a fatal error and were replaced.
pub static PUBLISHER_REPLACED: Counter = Counter::new("saga.publish.replaced", "producers made anew");

/// Sagas that the orchestrator started.
pub static SAGAS_STARTED: Counter = Counter::new("saga.started", "sagas started");
/// Sagas that ended (`outcome`: `completed`, `refused`, `timed-out`, `invalid`, `operator`).
pub static SAGAS_ENDED: Counter = Counter::new("saga.ended", "sagas ended, by outcome");
/// Sagas that have started and not ended, in the lanes of this process.
pub static SAGAS_OPEN: Gauge = Gauge::new("saga.open", "open sagas in the lanes of this process");
/// From the start record to the record that ended the saga, in log time (`outcome` as above).
pub static SAGA_SECONDS: Histogram = Histogram::new(
    "saga.duration",
    "from start to end of a saga in log time, seconds",
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0],
);
/// From the record that issued a command to its answer, in log time (`participant`, `direction`).
pub static SAGA_STEP_SECONDS: Histogram = Histogram::new(
    "saga.step.duration",
    "from the record that issued a command to the record of its answer in log time, seconds",
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
);
/// Inbox records in one batch of the fold.
pub static FOLD_BATCH_SIZE: Histogram = Histogram::new(
    "saga.fold.batch_size",
    "inbox records folded in one piece",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0],
);
/// Inbox records that changed nothing (`reason`).
pub static FOLD_IGNORED: Counter = Counter::new("saga.fold.ignored", "inbox records ignored, by reason");
/// Things that a person must know, seen by the fold (`alarm`).
pub static FOLD_ALARMS: Counter = Counter::new("saga.fold.alarms", "alarms of the fold, by name");
/// Records that the orchestrator appended to its own inbox (`kind`: `timer`, `activate`).
pub static INBOX_APPENDED: Counter = Counter::new("saga.inbox.appended", "own records appended to the inbox, by kind");
/// Sagas whose awaited commands the safety net sent again.
pub static SAGAS_RESENT: Counter =
    Counter::new("saga.resent", "sagas whose commands were sent again by the safety net");
/// Checkpoints by how they ended (`outcome`: `written`, `fenced`, `unreadable`, `failed`).
pub static CHECKPOINTS: Counter = Counter::new("saga.checkpoints", "checkpoints, by outcome");
/// From freezing a lane's state to the answer of the store, the wait for Kafka's receipts included.
pub static CHECKPOINT_SECONDS: Histogram = Histogram::new(
    "saga.checkpoint.duration",
    "from freezing a lane's state to its being stored, seconds",
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
);
/// Records sent by the lanes of this process that Kafka has not acknowledged.
pub static UNACKNOWLEDGED: Gauge = Gauge::new("saga.unacknowledged", "records sent and not yet acknowledged");
