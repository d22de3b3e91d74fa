//! Every metric of the system: one static each, so that a name exists once.
//!
//! Names follow OpenTelemetry (`saga.redis.exec.duration` in `s`) and are exported so; `/metrics` shows them in Prometheus
//! form (`saga_redis_exec_duration_seconds`). Each names its labels: few, with values from a small set. An id is never one.

mod all;
mod bound;
mod instrument;

pub use all::all;
pub use instrument::{Counter, Describe, Gauge, Histogram, Label, render};
pub(crate) use instrument::{begin, set_resource};

/// Bucket bounds for durations in seconds, from a local hop to the longest request.
pub const SECONDS_BOUNDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0];

/// What became of telemetry itself (`signal`: `traces`, `logs`, `metrics`; `fate`: `exported`, `failed`, `dropped`).
pub static TELEMETRY_ITEMS: Counter = Counter::new(
    "saga.telemetry.items",
    &["signal", "fate"],
    "spans, log lines and looks at the metrics by what became of them; what failed or was dropped is lost",
);

/// CPU time of the process's threads by what they were busy with (`stage`: `http`, `decode`, `encode`, `produce`, `consume`,
/// `fold`, `apply`, `redis`); see [`crate::stages`].
pub static CPU_STAGE_SECONDS: Counter =
    Counter::seconds("saga.cpu.stage", &["stage"], "CPU time by stage; only with CPU_STAGES=1");

/// Handlers that panicked: a mistake in the code, answered 500.
pub static HTTP_PANICS: Counter = Counter::new("saga.http.panics", &[], "HTTP handlers that panicked");
/// Open connections of a port (`port`: `rest`, `admin`).
pub static HTTP_CONNECTIONS: Gauge =
    Gauge::new("saga.http.connections", &["port"], "open HTTP connections of this process's ports");
/// Replicas of another service that want requests.
pub static UPSTREAM_READY: Gauge =
    Gauge::new("saga.upstream.ready", &["upstream"], "ready replicas of another service");
/// Requests answered by the gateway.
pub static GATEWAY_REQUESTS: Counter =
    Counter::new("saga.gateway.requests", &["route", "status"], "requests answered by the gateway");
/// Time to the answer at the gateway.
pub static GATEWAY_SECONDS: Histogram =
    Histogram::seconds("saga.gateway.duration", &["route"], "from a request's head to the answer's", SECONDS_BOUNDS);
/// Requests that the gateway has taken and not answered.
pub static GATEWAY_IN_FLIGHT: Gauge =
    Gauge::new("saga.gateway.in_flight", &[], "requests taken by the gateway and not answered yet");
/// Requests sent again to another replica.
pub static GATEWAY_REPEATS: Counter = Counter::new("saga.gateway.repeats", &["upstream"], "requests sent again");
/// Requests that no service answered (`kind`: `undecided`, `unavailable`, `outcome-unknown`).
pub static GATEWAY_GIVEN_UP: Counter = Counter::new(
    "saga.gateway.given_up",
    &["upstream", "kind"],
    "requests that ended without an answer of the service",
);
/// Requests refused before anything was sent, for want of a place.
pub static GATEWAY_SHED: Counter = Counter::new("saga.gateway.shed", &[], "requests shed at the concurrency limit");

/// Redis EXECs by how they ended (`outcome`: `done`, `conflict`, `refused`, `unknown`).
pub static REDIS_EXECS: Counter = Counter::new("saga.redis.exec", &["outcome"], "Redis EXECs by how they ended");
/// Transactions in one EXEC.
pub static REDIS_BATCH_SIZE: Histogram = Histogram::new(
    "saga.redis.exec.batch_size",
    &[],
    "transactions in one committed EXEC",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
);
/// From sending MULTI to the reply of EXEC.
pub static REDIS_EXEC_SECONDS: Histogram = Histogram::seconds(
    "saga.redis.exec.duration",
    &[],
    "from MULTI to the reply of EXEC",
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0],
);
/// Transactions whose EXEC was not committed and that are run again (`cause`: `conflict`, `refused`, `unknown`).
pub static REDIS_RETRIED: Counter = Counter::new(
    "saga.redis.transactions.retried",
    &["cause"],
    "transactions run again because their EXEC was not committed, or not known to be",
);
/// Turns asked for after repeated conflicts (`outcome`: `got`, `passed`).
pub static REDIS_TURNS: Counter = Counter::new("saga.redis.turn", &["outcome"], "turns asked for after conflicts");
/// Unknown outcomes that were settled by the commit key (`outcome`: `happened`, `not-happened`).
pub static REDIS_SETTLED: Counter =
    Counter::new("saga.redis.exec.settled", &["outcome"], "unknown outcomes of EXEC settled by the commit key");
/// Connections opened by committers, apart from the first one.
pub static REDIS_CONNECTIONS: Counter =
    Counter::new("saga.redis.connections", &[], "connections that committers had to open anew");
/// Whether the store is of use.
pub static REDIS_CONNECTED: Gauge =
    Gauge::new("saga.redis.connected", &[], "1 while the committer's Redis answers and takes writes, else 0");
/// Transactions that wait for the committer (`queue`: `lane`, `rest`).
pub static REDIS_QUEUE_DEPTH: Gauge =
    Gauge::new("saga.redis.queue.depth", &["queue"], "transactions waiting for the committer");
/// Memory of the Redis's data.
pub static REDIS_MEMORY_USED: Gauge =
    Gauge::bytes("saga.redis.memory.used", &[], "memory that this service's Redis has allocated");
/// Memory of the Redis's process.
pub static REDIS_MEMORY_RESIDENT: Gauge =
    Gauge::bytes("saga.redis.memory.resident", &[], "memory of the Redis process as the system sees it");
/// Most memory that the Redis may use.
pub static REDIS_MEMORY_LIMIT: Gauge =
    Gauge::bytes("saga.redis.memory.limit", &[], "maxmemory of the Redis; 0 for none");
/// Whether the Redis writes an append-only file.
pub static REDIS_AOF_ENABLED: Gauge = Gauge::new("saga.redis.aof.enabled", &[], "1 when the Redis writes an AOF");
/// Whether the last write to the append-only file worked.
pub static REDIS_AOF_WRITE_OK: Gauge =
    Gauge::new("saga.redis.aof.last_write_ok", &[], "1 when the last write to the AOF worked, else 0");
/// Whether the last rewrite of the append-only file worked.
pub static REDIS_AOF_REWRITE_OK: Gauge =
    Gauge::new("saga.redis.aof.last_rewrite_ok", &[], "1 when the last rewrite of the AOF worked, else 0");
/// Whether the append-only file is being rewritten.
pub static REDIS_AOF_REWRITING: Gauge = Gauge::new("saga.redis.aof.rewriting", &[], "1 while the AOF is rewritten");
/// Size of the append-only file.
pub static REDIS_AOF_SIZE: Gauge = Gauge::bytes("saga.redis.aof.size", &[], "size of the AOF");
/// Times that an fsync kept a write waiting.
pub static REDIS_AOF_DELAYED_FSYNC: Gauge =
    Gauge::new("saga.redis.aof.delayed_fsync", &[], "writes that waited for an fsync since the Redis started");
/// Clients of the Redis.
pub static REDIS_CLIENTS: Gauge = Gauge::new("saga.redis.clients", &[], "connections that the Redis has");
/// Time since the Redis started.
pub static REDIS_UPTIME: Gauge = Gauge::seconds("saga.redis.uptime", &[], "time since the Redis started");
/// Whether the Redis holds another data set than before (`alarm`: `store-replaced`), or forgets by itself
/// (`store-evicts`): then nothing is read and nothing written.
pub static REDIS_DISTRUSTED: Gauge =
    Gauge::new("saga.redis.distrusted", &["alarm"], "1 while the Redis must not be believed");
/// Whether the Redis is reading its data.
pub static REDIS_LOADING: Gauge = Gauge::new("saga.redis.loading", &[], "1 while the Redis loads its data");

/// Commands executed by a participant (`outcome`: `applied`, `refused`, `undone`, `cancelled`, `failed`, `stale`).
pub static PARTICIPANT_ANSWERS: Counter =
    Counter::new("saga.participant.answers", &["outcome"], "commands answered by this participant");
/// How long the stages of a chunk of commands take (`stage`: `commit`, `publish`).
pub static PARTICIPANT_STAGE_SECONDS: Histogram = Histogram::seconds(
    "saga.participant.stage.duration",
    &["stage"],
    "stages of a chunk of commands: handing in to EXEC known, sending the answers to their acknowledgement",
    SECONDS_BOUNDS,
);
/// Recorded answers sent again after a takeover, a fence or a failure.
pub static PARTICIPANT_REPEATED: Counter =
    Counter::new("saga.participant.repeated", &[], "recorded answers sent again after a restart of the lane loop");
/// Records that changed nothing, each for a named reason.
pub static PARTICIPANT_IGNORED: Counter =
    Counter::new("saga.participant.ignored", &["reason"], "records without effect and answer");
/// What a person should look at.
pub static PARTICIPANT_ALARMS: Counter =
    Counter::new("saga.participant.alarms", &["alarm"], "surprises of a participant");
/// Records in one lane transaction.
pub static PARTICIPANT_CHUNK_SIZE: Histogram = Histogram::new(
    "saga.participant.chunk_size",
    &[],
    "records in one lane transaction",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
);

/// Requests collected into one window of a starter.
pub static STARTER_WINDOW_SIZE: Histogram = Histogram::new(
    "saga.starter.window.size",
    &[],
    "requests in one window",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0],
);
/// How long the stages of a saga take at its starter (`stage`: `commit`, `publish`, `saga`).
pub static STARTER_STAGE_SECONDS: Histogram = Histogram::seconds(
    "saga.starter.stage.duration",
    &["stage"],
    "stages of a saga at its starter: EXEC of its window, ack of its start, start to applied result",
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0],
);
/// Requests with an `Idempotency-Key` by what became of them (`fate`: `ran`, `joined`, `replayed`, `unusable`, `invalid`,
/// `shed`).
pub static IDEMPOTENCY_REQUESTS: Counter = Counter::new(
    "saga.rest.idempotency.requests",
    &["fate"],
    "requests with an Idempotency-Key by what became of them",
);
/// Records of idempotency keys in the store, as the last sweep counted them.
pub static IDEMPOTENCY_RECORDS: Gauge =
    Gauge::new("saga.rest.idempotency.records", &[], "recorded idempotency keys, as the last sweep counted them");
/// Requests by what became of them (`fate`: `started`, `joined`, `answered`, `abandoned`, `failed`, `shed`).
pub static STARTER_REQUESTS: Counter =
    Counter::new("saga.starter.requests", &["fate"], "requests to start a saga by what became of them");
/// Applied results (`outcome`: `completed`, `refused`, `timed-out`, `invalid`, `operator`).
pub static STARTER_RESULTS: Counter =
    Counter::new("saga.starter.results", &["outcome"], "results applied by the starter");
/// Sagas whose subject was told that they are being undone and that it takes a while.
pub static STARTER_UNDO_NOTICES: Counter =
    Counter::new("saga.starter.undo_notices", &[], "notices of long undos applied");
/// Results that changed nothing.
pub static STARTER_IGNORED: Counter =
    Counter::new("saga.starter.results.ignored", &["reason"], "results that changed nothing");
/// Starts sent again (`occasion`: `takeover`, `sweep`).
pub static STARTER_RESENT: Counter = Counter::new("saga.starter.resent", &["occasion"], "pending starts sent again");
/// Result batches that found another position.
pub static STARTER_FENCED: Counter = Counter::new("saga.starter.fenced", &[], "result batches that were fenced");
/// Deliveries of starts that failed and are repeated.
pub static STARTER_DELIVERY_FAILED: Counter =
    Counter::new("saga.starter.delivery.failed", &[], "deliveries of starts with an unknown outcome");
/// Things that must not happen.
pub static STARTER_ALARMS: Counter = Counter::new("saga.starter.alarms", &["alarm"], "surprises of a starter");
/// Requests that wait for a saga now.
pub static STARTER_WAITING: Gauge = Gauge::new("saga.starter.waiting", &[], "requests that wait for a saga");
/// Sagas that are pending in this process's lanes.
pub static STARTER_PENDING: Gauge =
    Gauge::new("saga.starter.pending", &[], "sagas pending in the starter's lanes of this process");
/// Age of the oldest of them, since this process knows of it.
pub static STARTER_PENDING_OLDEST: Gauge = Gauge::seconds(
    "saga.starter.pending.oldest",
    &[],
    "age of the oldest pending saga, since this process knows of it",
);

/// Lanes of this process (`state`: `owned`, `loaded`, `halted`).
pub static STREAM_LANES: Gauge = Gauge::new("saga.stream.lanes", &["topic", "state"], "lanes of this process");
/// Records between the positions of this process's lanes and the log's ends, as far as fetches have told.
pub static STREAM_LAG_RECORDS: Gauge =
    Gauge::new("saga.stream.lag", &["topic"], "records that the owned lanes are behind, together");
/// The same for each lane. A lane that is given up shows 0.
pub static STREAM_LANE_LAG: Gauge =
    Gauge::new("saga.stream.lane.lag", &["topic", "lane"], "records that one owned lane is behind");
/// Whether a lane is halted.
pub static STREAM_LANE_HALTED: Gauge =
    Gauge::new("saga.stream.lane.halted", &["topic", "lane"], "1 while an owned lane is halted, else 0");
/// Lanes that halted with a named alarm.
pub static STREAM_LANE_HALTS: Counter =
    Counter::new("saga.stream.lane.halts", &["topic", "reason"], "lanes that halted");
/// Runs of lane loops after a fault.
pub static STREAM_LANE_RESTARTS: Counter =
    Counter::new("saga.stream.lane.restarts", &["topic"], "lane loops that ran again after a fault");
/// Lanes that were dropped because they did not drain in time.
pub static STREAM_DRAIN_OVERRUNS: Counter =
    Counter::new("saga.stream.drain.overruns", &["topic"], "lanes dropped at the drain deadline");
/// Group members that were given up and made anew.
pub static STREAM_MEMBER_RENEWALS: Counter = Counter::new(
    "saga.stream.member.renewals",
    &["topic"],
    "group members made anew after a fatal error or because their group did not take them in",
);
/// Fetching consumers that were given up and made anew.
pub static STREAM_FETCHER_RENEWALS: Counter = Counter::new(
    "saga.stream.fetcher.renewals",
    &["topic"],
    "fetching consumers made anew because they did not bring what lies in the log",
);
/// Changes of ownership (`kind`: `assigned`, `revoked`, `lost`).
pub static STREAM_REBALANCES: Counter =
    Counter::new("saga.stream.rebalances", &["topic", "kind"], "changes of ownership");
/// Whether the producer has a broker.
pub static KAFKA_CONNECTED: Gauge =
    Gauge::new("saga.kafka.connected", &[], "1 while the producer reaches a broker, else 0");
/// Records handed to the producer.
pub static PUBLISHED: Counter = Counter::new("saga.publish.records", &["topic"], "records handed to the producer");
/// Records whose delivery failed: whether they are in the log is unknown.
pub static PUBLISH_FAILURES: Counter = Counter::new("saga.publish.failures", &[], "records with an unknown outcome");
/// Times that a sender met a full queue.
pub static PUBLISH_QUEUE_FULL: Counter = Counter::new("saga.publish.queue_full", &[], "waits for room in the producer");
/// Producers that met a fatal error and were replaced.
pub static PUBLISHER_REPLACED: Counter = Counter::new("saga.publish.replaced", &[], "producers made anew");
/// Records that were set aside. Setting aside is planned; until then it stays at 0.
pub static QUARANTINED: Counter =
    Counter::new("saga.quarantine.records", &["topic"], "records set aside in saga.quarantine");

/// Sagas that the orchestrator started.
pub static SAGAS_STARTED: Counter = Counter::new("saga.started", &[], "sagas started");
/// Sagas that ended (`outcome`: `completed`, `refused`, `timed-out`, `invalid`, `operator`).
pub static SAGAS_ENDED: Counter = Counter::new("saga.ended", &["outcome"], "sagas ended");
/// Sagas that have started and not ended, in the lanes of this process.
pub static SAGAS_OPEN: Gauge = Gauge::new("saga.open", &[], "open sagas in the lanes of this process");
/// The same by age (`age`: `below-1s`, `1s-10s`, `10s-60s`, `above-60s`).
pub static SAGAS_OPEN_BY_AGE: Gauge =
    Gauge::new("saga.open.by_age", &["age"], "open sagas by the time since their start, counted every few seconds");
/// Age of the oldest open saga.
pub static SAGA_OLDEST: Gauge = Gauge::seconds("saga.open.oldest", &[], "age of the oldest open saga; 0 for none");
/// Open sagas that a person should look at, by the time since they need it (`age` as above).
pub static SAGAS_ATTENTION: Gauge =
    Gauge::new("saga.attention", &["age"], "open sagas that need a person, by the time since they do");
/// Starts that wait for a definition.
pub static SAGAS_PARKED: Gauge = Gauge::new("saga.parked", &[], "starts that wait for a definition");
/// Time for which a floor has not risen although sagas above it have ended or are open.
pub static FLOOR_AGE: Gauge = Gauge::seconds(
    "saga.floor.age",
    &[],
    "longest time for which a floor has stood still with sagas above it, since this process owns the lane",
);
/// From the start record to the record that ended the saga, in log time (`outcome` as above).
pub static SAGA_SECONDS: Histogram = Histogram::seconds(
    "saga.duration",
    &["outcome"],
    "from start to end of a saga in log time",
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0],
);
/// From the record that issued a command to its answer, in log time (`direction`: `action`, `undo`).
pub static SAGA_STEP_SECONDS: Histogram = Histogram::seconds(
    "saga.step.duration",
    &["participant", "direction"],
    "from the record that issued a command to the record of its answer in log time",
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
);
/// Inbox records in one batch of the fold.
pub static FOLD_BATCH_SIZE: Histogram = Histogram::new(
    "saga.fold.batch_size",
    &[],
    "inbox records folded in one piece",
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0],
);
/// Inbox records that changed nothing.
pub static FOLD_IGNORED: Counter = Counter::new("saga.fold.ignored", &["reason"], "inbox records that changed nothing");
/// Things that a person must know, seen by the fold.
pub static FOLD_ALARMS: Counter = Counter::new("saga.fold.alarms", &["alarm"], "alarms of the fold");
/// Records that the orchestrator appended to its own inbox (`kind`: `timer`, `activate`, `fold-version`).
pub static INBOX_APPENDED: Counter =
    Counter::new("saga.inbox.appended", &["kind"], "own records appended to the inbox");
/// Sagas whose awaited commands the safety net sent again.
pub static SAGAS_RESENT: Counter =
    Counter::new("saga.resent", &[], "sagas whose commands were sent again by the safety net");
/// Checkpoints by how they ended (`outcome`: `written`, `fenced`, `unreadable`, `failed`).
pub static CHECKPOINTS: Counter = Counter::new("saga.checkpoints", &["outcome"], "checkpoints by how they ended");
/// From freezing a lane's state to the answer of the store, the wait for Kafka's receipts included.
pub static CHECKPOINT_SECONDS: Histogram = Histogram::seconds(
    "saga.checkpoint.duration",
    &[],
    "from freezing a lane's state to its being stored",
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
);
/// How long news of a lane have not been in a checkpoint.
pub static CHECKPOINT_AGE: Gauge =
    Gauge::seconds("saga.checkpoint.age", &[], "age of the oldest folded record that no checkpoint holds; 0 for none");
/// Records sent by the lanes of this process that Kafka has not acknowledged.
pub static UNACKNOWLEDGED: Gauge = Gauge::new("saga.unacknowledged", &[], "records sent and not yet acknowledged");
