//! A real broker, a real Redis, orchestrators as child processes, and a participant and a starter that do what the
//! test says.

#![allow(dead_code, missing_docs, reason = "each test program uses a part of it")]

pub mod ledger;
pub mod program;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{
    Consumer, KafkaSettings, Lane, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, Record, TopicSpec,
    make_topics,
};
use local_servers::{Kafka, KafkaOptions, Lifetime, ManagedProcess, ProcessSpec, Redis, free_port};
use proto::Wire;
use proto::quarantine::QUARANTINE;
use redis_txn::Store;
use saga_core::ids::{Direction, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::{
    Command, CommandRecord, Floor, InboxEvent, Outcome, Refusal, Reply, ResultRecord, SagaResult, Start,
};
use uuid::Uuid;

/// Longest wait for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const LANES: u32 = 4;
pub const INBOX: &str = "saga.inbox";
pub const RESULTS: &str = "order.results";
pub const TOPICS: [&str; 4] = [INBOX, "stock.commands", "payment.commands", RESULTS];

const BUY: &str = "\
name: buy
version: 1
deadline_ms: 60000
steps:
  - name: reserve
    participant: stock
    timeout_ms: 60000
  - name: charge
    participant: payment
    after: [reserve]
    uses: [reserve]
    timeout_ms: 60000
";

const HASTY: &str = "\
name: hasty
version: 1
deadline_ms: 60000
steps:
  - name: reserve
    participant: stock
    timeout_ms: 300
    on_timeout: undo
";

pub struct Stack {
    pub kafka: Kafka,
    pub redis: Redis,
    pub settings: KafkaSettings,
    pub publisher: Publisher,
    pub watched: Watched,
    watchers: Vec<Consumer>,
    folder: tempfile::TempDir,
}

impl Stack {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(&folder.path().join("kafka"), KafkaOptions::default()).unwrap();
        let redis = Redis::start(&folder.path().join("redis"), None).unwrap();
        let definitions = folder.path().join("definitions");
        std::fs::create_dir(&definitions).unwrap();
        std::fs::write(definitions.join("buy.yaml"), BUY).unwrap();
        std::fs::write(definitions.join("hasty.yaml"), HASTY).unwrap();
        let settings = KafkaSettings::new(kafka.brokers(), "test");
        let topics = TOPICS.into_iter().chain([QUARANTINE]).map(|name| TopicSpec {
            name: name.to_owned(),
            partitions: LANES,
            log_append_time: name == INBOX,
        });
        let topics: Vec<TopicSpec> = topics.collect();
        make_topics(&settings, &topics, 1, 32 << 20, 8 << 20).await.unwrap();
        let watched = Watched::default();
        let watch = |topic: &str| {
            let watcher = Arc::new(Watcher { topic: topic.to_owned(), watched: watched.clone() });
            Consumer::start(&settings, &format!("test-{topic}"), topic, watcher).unwrap()
        };
        let watchers = TOPICS.map(watch).into_iter().collect();
        let publisher = Publisher::new(&settings).unwrap();
        Self { kafka, redis, settings, publisher, watched, watchers, folder }
    }

    /// An orchestrator with this name, and its admin port.
    pub fn orchestrator(&self, name: &str, more: &[(&str, &str)]) -> Orchestrator {
        let port = free_port().unwrap();
        let mut envs = vec![
            ("INSTANCE", name.to_owned()),
            ("ADMIN_LISTEN", format!("127.0.0.1:{port}")),
            ("KAFKA_BROKERS", self.kafka.brokers()),
            ("PARTITIONS", LANES.to_string()),
            ("REDIS", self.redis.address()),
            ("DEFINITIONS_DIR", self.folder.path().join("definitions").display().to_string()),
        ];
        envs.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let process = ManagedProcess::spawn(ProcessSpec {
            name: name.to_owned(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_orchestrator")),
            args: Vec::new(),
            envs: envs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            log_file: self.folder.path().join(format!("{name}.log")),
            lifetime: Lifetime::WithParent,
        });
        Orchestrator { process: process.unwrap(), port }
    }

    pub fn definitions(&self) -> PathBuf {
        self.folder.path().join("definitions")
    }

    pub async fn store(&self) -> Store {
        Store::connect(redis_txn::Settings {
            address: self.redis.address(),
            process: format!("test-{}", Uuid::new_v4()),
            password: redis_txn::Password::default(),
            max_batch: 16,
            conflicts_before_turn: 2,
            response_timeout: Duration::from_secs(5),
            rest_patience: Duration::from_secs(5),
        })
        .await
        .unwrap()
    }

    pub async fn send(&self, lane: u32, event: &InboxEvent) {
        self.send_bytes(lane, event.encode()).await;
    }

    pub async fn send_bytes(&self, lane: u32, payload: Bytes) {
        self.send_together(lane, [payload]).await;
    }

    /// Several records in one piece, so that they are read in one piece.
    pub async fn send_together<const N: usize>(&self, lane: u32, payloads: [Bytes; N]) {
        let record = |payload| Outgoing { topic: INBOX.into(), lane: Lane(lane), payload, headers: Vec::new() };
        self.publisher.send(payloads.map(record).into()).await.unwrap().await.unwrap();
    }

    /// Starts a saga and answers its id.
    pub async fn start_saga(&self, lane: u32, sequence: u64, definition: &str) -> SagaId {
        let saga = SagaId(Uuid::now_v7());
        self.send(lane, &InboxEvent::Start(start(saga, lane, sequence, definition))).await;
        saga
    }

    pub async fn reply(&self, command: &Command, outcome: Outcome) {
        let (id, ordinal) = (command.id.clone(), command.ordinal.clone());
        self.send(command.ordinal.lane.0, &InboxEvent::Reply(Reply { id, ordinal, outcome })).await;
    }

    pub async fn applied(&self, command: &Command, output: &'static str) {
        self.reply(command, Outcome::Applied { output: Bytes::from_static(output.as_bytes()) }).await;
    }

    pub async fn refused(&self, command: &Command, code: &str) {
        let refusal = Refusal { code: code.to_owned(), reason: "no".to_owned() };
        self.reply(command, Outcome::Refused(refusal)).await;
    }

    /// The next command of this saga for this step, and no other before it.
    pub async fn command(&self, saga: SagaId, step: &str, direction: Direction) -> Command {
        let what = format!("{direction:?} of {step} for saga {saga}");
        let next = || self.watched.with(|seen| seen.commands.get_mut(&saga).and_then(VecDeque::pop_front));
        let command = eventually(&what, next).await;
        assert_eq!((command.id.step.as_str(), command.id.direction), (step, direction), "{what}");
        command
    }

    /// The result of this saga.
    pub async fn result(&self, saga: SagaId) -> SagaResult {
        let first = || self.watched.with(|seen| seen.results.get(&saga).and_then(|results| results.first().cloned()));
        eventually(&format!("result of saga {saga}"), first).await
    }
}

pub fn starter() -> Starter {
    Starter { name: "order".to_owned(), store: Uuid::from_u128(77) }
}

pub fn start(saga: SagaId, lane: u32, sequence: u64, definition: &str) -> Start {
    let inputs = ["reserve", "charge"].map(|step| (step.to_owned(), Bytes::from(format!("input of {step}"))));
    Start {
        saga,
        ordinal: Ordinal { starter: starter(), lane: Lane(lane), sequence },
        definition: definition.to_owned(),
        inputs: BTreeMap::from_iter(inputs.into_iter().take(if definition == "hasty" { 1 } else { 2 })),
        results_topic: RESULTS.to_owned(),
        trace: TraceContext::default(),
    }
}

/// Waits for a value, with a deadline.
pub async fn eventually<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What has been read from the topics so far.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<Seen>>);

#[derive(Default)]
pub struct Seen {
    /// Not yet taken by the test, by saga.
    pub commands: BTreeMap<SagaId, VecDeque<Command>>,
    pub floors: Vec<(String, u32, Floor)>,
    pub results: BTreeMap<SagaId, Vec<SagaResult>>,
    pub undoing: Vec<SagaId>,
    pub inbox: Vec<(u32, i64, InboxEvent)>,
}

impl Watched {
    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn record(&self, topic: &str, lane: Lane, record: &Record) {
        let mut seen = self.0.lock().unwrap();
        match topic {
            INBOX => {
                let event = InboxEvent::decode(&record.payload);
                seen.inbox.extend(event.ok().map(|event| (lane.0, record.timestamp_ms, event)));
            }
            RESULTS => match ResultRecord::decode(&record.payload).unwrap() {
                ResultRecord::Ended(result) => seen.results.entry(result.saga).or_default().push(result),
                ResultRecord::Undoing(notice) => seen.undoing.push(notice.saga),
            },
            _ => match CommandRecord::decode(&record.payload).unwrap() {
                CommandRecord::Command(command) => {
                    seen.commands.entry(command.id.saga).or_default().push_back(command);
                }
                CommandRecord::Floor(floor) => seen.floors.push((topic.to_owned(), lane.0, floor)),
            },
        }
    }
}

struct Watcher {
    topic: String,
    watched: Watched,
}

impl LaneRunner for Watcher {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(Some(0)).await?;
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    records.iter().for_each(|record| self.watched.record(&self.topic, lane.lane(), record));
                }
                LaneEvent::End | LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}

/// One orchestrator as a child process.
pub struct Orchestrator {
    pub process: ManagedProcess,
    port: u16,
}

impl Orchestrator {
    /// Waits until it owns this many lanes and has loaded them.
    pub async fn ready(&mut self, lanes: u32) {
        let loaded = |answer: &serde_json::Value| answer["details"]["lanes"]["loaded"] == lanes;
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/readyz");
            if answer.as_ref().is_some_and(|(_, body)| serde_json::from_str(body).is_ok_and(|body| loaded(&body))) {
                return;
            }
            if Instant::now() > end || self.process.exit_status().is_some() {
                panic!("{:?}", self.process.failure(&format!("did not load {lanes} lanes, but says {answer:?}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Status and body of an answer of the admin port.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn get_json(&self, path: &str) -> serde_json::Value {
        let (_, body) = self.get(path).unwrap();
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// The value of the first line of `/metrics` that contains all of these.
    pub fn metric(&self, parts: &[&str]) -> Option<f64> {
        let (_, body) = self.get("/metrics")?;
        let line = body.lines().find(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}
