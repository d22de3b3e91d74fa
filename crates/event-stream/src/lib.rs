//! Moves records between Kafka and lane loops: ownership, fetching, publishing, topic checks. The only crate that
//! names the Kafka client.
//!
//! Deliberately not in it: what the bytes mean, and where positions are stored.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use saga_core::ids::Lane;

/// One record as it was read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Offset in the lane's partition.
    pub offset: i64,
    /// Log-append time, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub payload: Bytes,
    /// Headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

/// One record to be written.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub lane: Lane,
    /// The value.
    pub payload: Bytes,
    /// Headers, in order.
    pub headers: Vec<(&'static str, String)>,
}

/// How this process talks to Kafka.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Bootstrap brokers, `host:port,host:port`.
    pub brokers: String,
    /// Client id: the service name and its instance.
    pub client_id: String,
    /// Group session timeout.
    pub session_timeout: Duration,
    /// Group heartbeat interval.
    pub heartbeat_interval: Duration,
    /// How long a revoked lane may drain; below the session timeout.
    pub drain_deadline: Duration,
    /// Owned lanes per fetching consumer (about ten).
    pub lanes_per_fetcher: usize,
    /// How long the producer waits for company, in milliseconds; fractions are allowed.
    pub linger_ms: f64,
}

/// Idempotent producer, `acks=all`, bounded; replaced by itself after a fatal error.
#[derive(Clone)]
pub struct Publisher {}

/// Resolves when every record of one `send` is acknowledged, or says that at least one outcome is unknown.
pub struct Receipt {}

impl Future for Receipt {
    type Output = Result<(), PublishError>;
    fn poll(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        unimplemented!()
    }
}

/// A delivery failed: whether the records are in the log is unknown. Send again with the same ids.
#[derive(Clone, Debug, thiserror::Error)]
#[error("delivery failed, the outcome is unknown: {0}")]
pub struct PublishError(pub String);

impl Publisher {
    /// Makes the producer; does not wait for a broker.
    pub fn new(_settings: &KafkaSettings) -> Result<Self, StreamError> {
        unimplemented!()
    }
    /// Puts the records into the producer's queue in order, waiting while it is full (back-pressure), and returns
    /// the receipt for all of them.
    pub async fn send(&self, _records: Vec<Outgoing>) -> Result<Receipt, PublishError> {
        unimplemented!()
    }
    /// Whether a broker connection is up (readiness).
    pub fn is_connected(&self) -> bool {
        unimplemented!()
    }
    /// Waits until everything is acknowledged or the deadline has passed.
    pub async fn flush(&self, _deadline: Duration) {
        unimplemented!()
    }
}

/// A failure of the stream as a whole.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Kafka client error, with the operation.
    #[error("{operation}: {cause}")]
    Kafka {
        /// What was being done.
        operation: &'static str,
        /// The client's words.
        cause: String,
    },
    /// The topics are not as they must be; one sentence each.
    #[error("topics are not as they must be: {}", .0.join("; "))]
    Topics(Vec<String>),
}

/// Why a lane stands still until a person acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// No position in the store, but the log does not start at 0 or the group has committed an offset.
    #[error("no position in the store, but {0}")]
    MissingPosition(String),
    /// The position lies outside the log.
    #[error("position {position} is outside the log ({low}..{high})")]
    OutOfRange {
        /// The position of the store.
        position: i64,
        /// First offset of the log.
        low: i64,
        /// End of the log.
        high: i64,
    },
    /// Something stored or read cannot be what it is; the text says what.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// A record or value of a format or version that this program does not know.
    #[error("unknown format: {0}")]
    UnknownFormat(String),
}

/// How one run of a lane loop ended, other than by revocation.
#[derive(Debug, thiserror::Error)]
pub enum LaneFault {
    /// The lane halts with a named alarm; the others go on.
    #[error("halted: {0}")]
    Halt(#[from] HaltReason),
    /// Run the loop again from its stored position, after a backoff (fenced: a backoff of nearly nothing).
    #[error("restart: {0}")]
    Restart(String),
}

/// What a lane loop hears.
#[derive(Debug)]
pub enum LaneEvent {
    /// Records in offset order, never empty.
    Records(Vec<Record>),
    /// The log's end has been reached (told each time the loop catches up).
    End,
    /// The time given to `next` has come.
    Tick,
    /// The lane is taken away: drain and return `Ok`. Told once; the drain deadline runs.
    Revoked,
}

/// One lane for as long as this process owns it; given to [`LaneRunner::run`].
pub struct OwnedLane {}

impl OwnedLane {
    /// Which lane.
    pub fn lane(&self) -> Lane {
        unimplemented!()
    }
    /// Starts fetching at `next`. `None`: no position is stored; then the log must start at 0 and the group must
    /// have committed nothing, else the lane halts. Answers where fetching starts.
    pub async fn fetch_from(&mut self, _next: Option<i64>) -> Result<i64, LaneFault> {
        unimplemented!()
    }
    /// The next event, in order; `Tick` when `until` passes first. Cancel-safe. An `Err` is a fault of the stream
    /// (position out of range …) that the loop returns from `run`.
    pub async fn next(&mut self, _until: Option<Instant>) -> Result<LaneEvent, LaneFault> {
        unimplemented!()
    }
    /// Resolves when the lane is being taken away (for loops that wait for something else than `next`).
    pub async fn revoked(&self) {
        unimplemented!()
    }
    /// Tells where the lane stands: for `/readyz` (loaded), lag, and the group's committed offset (for show).
    pub fn set_position(&self, _next: i64) {
        unimplemented!()
    }
    /// Marks the lane as loaded: it does its work from now on.
    pub fn set_loaded(&self) {
        unimplemented!()
    }
}

/// What a service does with each lane it owns.
pub trait LaneRunner: Send + Sync + 'static {
    /// Runs the lane until `Revoked`. On `Err` it is called again (restart) or the lane stays halted.
    fn run(&self, lane: OwnedLane) -> impl Future<Output = Result<(), LaneFault>> + Send;
}

/// A running consumer: one group member that owns lanes, plain consumers that fetch them, one task per owned lane.
#[derive(Clone)]
pub struct Consumer {}

/// What is known of one owned lane.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// True once the loop has called `set_loaded`.
    pub loaded: bool,
    /// Where the loop stands (next offset).
    pub position: i64,
    /// End of the log, as far as fetches have told.
    pub log_end: i64,
    /// Why the lane is halted, if it is.
    pub halted: Option<HaltReason>,
}

impl Consumer {
    /// Joins the group `group` for `topic` and runs every lane it is given with `runner`.
    pub fn start<R: LaneRunner>(
        _settings: &KafkaSettings,
        _group: &str,
        _topic: &str,
        _runner: Arc<R>,
    ) -> Result<Self, StreamError> {
        unimplemented!()
    }
    /// The owned lanes and how they are.
    pub fn lanes(&self) -> BTreeMap<Lane, LaneStatus> {
        unimplemented!()
    }
    /// Whether the group has answered since the start: lanes are assigned (perhaps none, with more processes than lanes).
    pub fn has_joined(&self) -> bool {
        unimplemented!()
    }
    /// Drains all lanes, leaves the group, ends the threads; gives up after the deadline.
    pub async fn shutdown(&self, _deadline: Duration) {
        unimplemented!()
    }
}

/// A topic as it must be.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Partitions (lanes).
    pub partitions: u32,
    /// Whether `message.timestamp.type=LogAppendTime` is required.
    pub log_append_time: bool,
}

/// Checks that the topics exist with the partition count, `cleanup.policy=delete` and the timestamp type.
pub async fn check_topics(_settings: &KafkaSettings, _topics: &[TopicSpec]) -> Result<(), StreamError> {
    unimplemented!()
}

/// Makes the topics that are missing (retention bounded by `retention_bytes` and `segment_bytes` per partition),
/// then checks all of them.
pub async fn make_topics(
    _settings: &KafkaSettings,
    _topics: &[TopicSpec],
    _replication: u16,
    _retention_bytes: u64,
    _segment_bytes: u64,
) -> Result<(), StreamError> {
    unimplemented!()
}
