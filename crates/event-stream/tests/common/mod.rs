//! What the contract tests share: a real broker, topics of their own, a store of positions, a lane loop that records.

#![allow(dead_code, missing_docs, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{
    Consumer, KafkaSettings, Lane, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, Record, TopicSpec,
};
use local_servers::{Kafka, KafkaOptions};

/// Longest wait for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Broker {
    pub kafka: Kafka,
    _folder: tempfile::TempDir,
}

impl Broker {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
        Self { kafka, _folder: folder }
    }
}

/// One broker for all tests of a program that leave it alone.
static BROKER: LazyLock<Broker> = LazyLock::new(Broker::start);

pub fn settings() -> KafkaSettings {
    KafkaSettings::new(BROKER.kafka.brokers(), "test")
}

/// A new topic with this many partitions.
pub async fn new_topic(settings: &KafkaSettings, partitions: u32) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("topic-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let spec = TopicSpec { name: name.clone(), partitions, log_append_time: true };
    event_stream::make_topics(settings, &[spec], 1, 32 << 20, 8 << 20).await.unwrap();
    name
}

pub fn outgoing(topic: &str, lane: u32, text: impl Into<String>) -> Outgoing {
    Outgoing { topic: topic.into(), lane: Lane(lane), payload: Bytes::from(text.into()), headers: Vec::new() }
}

/// Writes `numbers` to the lane, in one batch.
pub async fn produce(publisher: &Publisher, topic: &str, lane: u32, numbers: std::ops::Range<u32>) {
    let records = numbers.map(|number| outgoing(topic, lane, number.to_string())).collect();
    publisher.send(records).await.unwrap().await.unwrap();
}

/// Waits for a condition, with a deadline.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often what this counter counts has happened to the topic.
pub fn counter(name: &str, topic: &str) -> u64 {
    let text = telemetry::metrics::render();
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(topic));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// A store in memory: positions with fencing, and what was read in which order.
#[derive(Default)]
pub struct Store {
    lanes: Mutex<BTreeMap<u32, LaneLog>>,
}

#[derive(Clone, Default)]
pub struct LaneLog {
    pub next: Option<i64>,
    pub texts: Vec<String>,
    pub batches: Vec<usize>,
    pub ends: usize,
    pub runs: usize,
}

impl Store {
    pub fn lane(&self, lane: u32) -> LaneLog {
        self.lanes.lock().unwrap().get(&lane).cloned().unwrap_or_default()
    }

    pub fn set_next(&self, lane: u32, next: i64) {
        self.change(lane, |log| log.next = Some(next));
    }

    pub fn change<T>(&self, lane: u32, change: impl FnOnce(&mut LaneLog) -> T) -> T {
        change(self.lanes.lock().unwrap().entry(lane).or_default())
    }

    pub fn total(&self) -> usize {
        self.lanes.lock().unwrap().values().map(|log| log.texts.len()).sum()
    }

    /// One transaction: all of the batch, or nothing if somebody else has moved the lane on.
    pub fn apply(&self, lane: u32, records: &[Record]) -> Result<i64, LaneFault> {
        self.change(lane, |log| {
            if log.next.unwrap_or(0) != records[0].offset {
                return Err(LaneFault::Restart("fenced".into()));
            }
            let next = records.last().unwrap().offset + 1;
            log.next = Some(next);
            log.batches.push(records.len());
            log.texts.extend(records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()));
            Ok(next)
        })
    }

    /// What the numbers 0..count look like when they were read once and in order.
    pub fn assert_numbers(&self, lane: u32, count: u32) {
        let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        assert_eq!(self.lane(lane).texts, expected, "lane {lane}");
    }
}

/// Applies what it reads to the store.
#[derive(Default)]
pub struct Applier {
    pub store: Arc<Store>,
}

impl LaneRunner for Applier {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        let number = lane.lane().0;
        let next = self.store.change(number, |log| {
            log.runs += 1;
            log.next
        });
        let next = lane.fetch_from(next).await?;
        lane.set_stored(next);
        lane.set_loaded();
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => lane.set_stored(self.store.apply(number, &records)?),
                LaneEvent::End => self.store.change(number, |log| log.ends += 1),
                LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}

/// Starts a consumer whose group is named after the topic.
pub fn consume<R: LaneRunner>(settings: &KafkaSettings, topic: &str, runner: R) -> Consumer {
    Consumer::start(settings, &format!("{topic}-group"), topic, Arc::new(runner)).unwrap()
}

pub fn loaded(consumer: &Consumer) -> usize {
    consumer.lanes().values().filter(|lane| lane.loaded).count()
}

pub async fn end(consumer: Consumer) {
    consumer.shutdown(Duration::from_secs(20)).await;
}
