//! Settings of the Kafka clients, and the ones that are not the client's defaults, with their reasons.

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::error::StreamError;

/// Local queue of one fetching consumer: it is emptied at once, so it need not hold what the client's default does.
const FETCH_QUEUE_KB: u32 = 2048;
/// Records that a fetching consumer tries to have at hand.
const FETCH_QUEUE_RECORDS: u32 = 1000;
/// Most bytes of one fetch answer; the default of 50 MiB times ten consumers is more than a small machine has.
const FETCH_MAX_BYTES: u32 = 1024 * 1024;
/// Pause of a fetcher whose local queue was full; the default of a second is felt as a stall.
const FETCH_QUEUE_BACKOFF_MS: u32 = 2;
/// Pause after a failed fetch; short, so that lanes go on soon after a broker has come back.
const FETCH_ERROR_BACKOFF_MS: u32 = 100;
/// Longest pause between two attempts to connect; the default of 10 s would be added to every broker restart.
const RECONNECT_BACKOFF_MAX_MS: u32 = 1000;
/// Pause between two questions of a group member for its topic, milliseconds. The client asks once before it joins, and a question that
/// goes down with its connection is not asked again before this has passed: five minutes by default.
const MEMBER_TOPIC_INTERVAL_MS: u32 = 2000;
/// Most bytes in the producer's queue; above it `send` waits.
const PRODUCER_QUEUE_KB: u32 = 32 * 1024;
/// Most records in the producer's queue; above it `send` waits.
const PRODUCER_QUEUE_RECORDS: u32 = 50_000;

/// Which protocol of consumer groups the member speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupProtocol {
    /// The classic one, with the cooperative-sticky assignor.
    #[default]
    Classic,
    /// KIP-848: the broker assigns and sets the timeouts.
    Consumer,
}

/// Settings of the Kafka clients, from flags or the environment.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaArgs {
    /// Kafka brokers, host:port,host:port
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub kafka_brokers: String,
    /// Partitions (lanes) that every topic must have
    #[arg(long, env = "PARTITIONS", default_value_t = 100)]
    pub partitions: u32,
    /// After this time without heartbeats the group gives a process's lanes to others, milliseconds
    #[arg(long, env = "KAFKA_SESSION_TIMEOUT_MS", default_value_t = 3000)]
    pub kafka_session_timeout_ms: u64,
    /// Time between two heartbeats to the group, milliseconds
    #[arg(long, env = "KAFKA_HEARTBEAT_INTERVAL_MS", default_value_t = 500)]
    pub kafka_heartbeat_interval_ms: u64,
    /// How long a lane that is taken away may drain, milliseconds; below the session timeout
    #[arg(long, env = "KAFKA_DRAIN_DEADLINE_MS", default_value_t = 2000)]
    pub kafka_drain_deadline_ms: u64,
    /// Lanes that one fetching consumer serves
    #[arg(long, env = "KAFKA_LANES_PER_FETCHER", default_value_t = 10)]
    pub kafka_lanes_per_fetcher: usize,
    /// How long a fetch waits at the broker for records, milliseconds
    #[arg(long, env = "KAFKA_FETCH_WAIT_MS", default_value_t = 500)]
    pub kafka_fetch_wait_ms: u64,
    /// A group member that hears nothing of its group for this long and the session timeout, after it has asked to join
    /// or lost its lanes, is made anew, milliseconds
    #[arg(long, env = "KAFKA_REJOIN_DEADLINE_MS", default_value_t = 60_000)]
    pub kafka_rejoin_deadline_ms: u64,
    /// How long records wait for company at the producer, milliseconds (the client rounds up); those of small batches do not
    #[arg(long, env = "KAFKA_LINGER_MS", default_value_t = 0.5)]
    pub kafka_linger_ms: f64,
    /// After this time a record that was not acknowledged counts as unknown, milliseconds
    #[arg(long, env = "KAFKA_MESSAGE_TIMEOUT_MS", default_value_t = 30_000)]
    pub kafka_message_timeout_ms: u64,
    /// Protocol of consumer groups
    #[arg(long, env = "KAFKA_GROUP_PROTOCOL", value_enum, default_value_t = GroupProtocol::Classic)]
    pub kafka_group_protocol: GroupProtocol,
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
    /// A group member that hears nothing of its group for this long, and the session timeout, is made anew.
    pub rejoin_deadline: Duration,
    /// Owned lanes per fetching consumer (about ten).
    pub lanes_per_fetcher: usize,
    /// How long a fetch waits at the broker for records. A lane that joins an idle fetcher may wait this long.
    pub fetch_wait: Duration,
    /// How long the producer waits for company, in milliseconds; fractions are allowed.
    pub linger_ms: f64,
    /// After this time a record that was not acknowledged counts as unknown.
    pub message_timeout: Duration,
    /// Protocol of consumer groups.
    pub group_protocol: GroupProtocol,
}

impl KafkaArgs {
    /// The settings of this process.
    pub fn settings(&self, service: &str, instance: &str) -> KafkaSettings {
        KafkaSettings {
            brokers: self.kafka_brokers.clone(),
            client_id: format!("{service}-{instance}"),
            session_timeout: Duration::from_millis(self.kafka_session_timeout_ms),
            heartbeat_interval: Duration::from_millis(self.kafka_heartbeat_interval_ms),
            drain_deadline: Duration::from_millis(self.kafka_drain_deadline_ms),
            rejoin_deadline: Duration::from_millis(self.kafka_rejoin_deadline_ms),
            lanes_per_fetcher: self.kafka_lanes_per_fetcher,
            fetch_wait: Duration::from_millis(self.kafka_fetch_wait_ms),
            linger_ms: self.kafka_linger_ms,
            message_timeout: Duration::from_millis(self.kafka_message_timeout_ms),
            group_protocol: self.kafka_group_protocol,
        }
    }
}

impl KafkaSettings {
    /// The defaults of [`KafkaArgs`] for these brokers.
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: client_id.into(),
            session_timeout: Duration::from_millis(3000),
            heartbeat_interval: Duration::from_millis(500),
            drain_deadline: Duration::from_millis(2000),
            rejoin_deadline: Duration::from_secs(60),
            lanes_per_fetcher: 10,
            fetch_wait: Duration::from_millis(500),
            linger_ms: 0.5,
            message_timeout: Duration::from_secs(30),
            group_protocol: GroupProtocol::Classic,
        }
    }

    /// Refuses settings that contradict each other, with one sentence that says what to change.
    pub fn check(&self) -> Result<(), StreamError> {
        let refuse = |sentence: &str| Err(StreamError::Settings(sentence.to_owned()));
        if self.drain_deadline >= self.session_timeout {
            return refuse("KAFKA_DRAIN_DEADLINE_MS must be below KAFKA_SESSION_TIMEOUT_MS");
        }
        if self.heartbeat_interval >= self.session_timeout {
            return refuse("KAFKA_HEARTBEAT_INTERVAL_MS must be below KAFKA_SESSION_TIMEOUT_MS");
        }
        if self.lanes_per_fetcher == 0 {
            return refuse("KAFKA_LANES_PER_FETCHER must be at least 1");
        }
        if !(0.0..=1000.0).contains(&self.linger_ms) {
            return refuse("KAFKA_LINGER_MS must lie between 0 and 1000");
        }
        Ok(())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MAX_MS.to_string())
            .set("socket.nagle.disable", "true")
            // A broker closes idle connections by itself: nothing to tell anybody.
            .set("log.connection.close", "false");
        config
    }

    pub(crate) fn admin(&self) -> ClientConfig {
        self.client()
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", self.message_timeout.as_millis().to_string())
            .set("linger.ms", self.linger_ms.to_string())
            .set("queue.buffering.max.kbytes", PRODUCER_QUEUE_KB.to_string())
            .set("queue.buffering.max.messages", PRODUCER_QUEUE_RECORDS.to_string())
            .set("compression.type", "none");
        config
    }

    /// For the group member, which owns lanes and fetches nothing.
    pub(crate) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer(group);
        config
            // With `error` it would report one error per partition, paused or not.
            .set("auto.offset.reset", "earliest")
            .set("topic.metadata.refresh.interval.ms", MEMBER_TOPIC_INTERVAL_MS.to_string());
        match self.group_protocol {
            GroupProtocol::Classic => config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", self.session_timeout.as_millis().to_string())
                .set("heartbeat.interval.ms", self.heartbeat_interval.as_millis().to_string()),
            GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        };
        config
    }

    /// For the plain consumers. They carry the group's name because `assign` asks for one; they never join.
    pub(crate) fn fetcher(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer(group);
        config
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", self.fetch_wait.as_millis().to_string())
            .set("fetch.max.bytes", FETCH_MAX_BYTES.to_string())
            .set("fetch.queue.backoff.ms", FETCH_QUEUE_BACKOFF_MS.to_string())
            .set("fetch.error.backoff.ms", FETCH_ERROR_BACKOFF_MS.to_string());
        config
    }

    fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false")
            .set("queued.max.messages.kbytes", FETCH_QUEUE_KB.to_string())
            .set("queued.min.messages", FETCH_QUEUE_RECORDS.to_string());
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        kafka: KafkaArgs,
    }

    #[test]
    fn defaults_of_flags_and_code_agree() {
        let program = Program::parse_from(["program"]);
        let parsed = program.kafka.settings("stock-svc", "a");
        let coded = KafkaSettings::new("127.0.0.1:9092", "stock-svc-a");
        assert_eq!(format!("{parsed:?}"), format!("{coded:?}"));
        assert!(parsed.check().is_ok());
    }

    #[test]
    fn a_drain_as_long_as_the_session_is_refused() {
        let mut settings = KafkaSettings::new("127.0.0.1:9092", "a");
        settings.drain_deadline = settings.session_timeout;
        assert!(settings.check().is_err());
    }

    #[test]
    fn the_consumer_protocol_sets_no_classic_timeouts() {
        let mut settings = KafkaSettings::new("127.0.0.1:9092", "a");
        settings.group_protocol = GroupProtocol::Consumer;
        assert_eq!(settings.member("g").get("session.timeout.ms"), None);
    }
}
