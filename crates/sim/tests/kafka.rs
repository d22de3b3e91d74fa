//! The simulated log does what a real Kafka does: the same random appends and reads on both give the same records.
//!
//! Sent by the publisher of the services, several batches at a time, and read by their consumer. What is lost, doubled
//! or late on its way is not the log's doing: the simulation's network does that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use event_stream::{
    Consumer, KafkaSettings, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, Record, TopicSpec,
};
use local_servers::{Kafka, KafkaOptions};
use saga_core::ids::Lane;
use sim::log::{Log, Topic};
use sim::plans::PARTICIPANTS;
use sim::rng::Rng;
use tokio::sync::{mpsc, oneshot};

const LANES: usize = 3;
const SEEDS: u64 = 5;
const OPERATIONS: usize = 40;
/// Most records of one batch.
const MAX_BATCH: usize = 20;
/// Longest wait for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a lane is asked for.
struct Question {
    from: i64,
    limit: usize,
    answer: oneshot::Sender<Vec<Record>>,
}

/// Reads a topic when and where it is asked to.
struct Reader(Mutex<BTreeMap<Lane, mpsc::Receiver<Question>>>);

impl LaneRunner for Reader {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        let mut questions = self.0.lock().unwrap().remove(&lane.lane()).expect("a lane is loaded once");
        while let Some(Question { from, limit, answer }) = questions.recv().await {
            lane.fetch_from(Some(from)).await?;
            let mut records = Vec::new();
            while records.len() < limit {
                match lane.next(None).await? {
                    LaneEvent::Records(more) => records.extend(more),
                    LaneEvent::Tick => {}
                    LaneEvent::End | LaneEvent::Revoked => break,
                }
            }
            records.truncate(limit);
            answer.send(records).expect("somebody asked");
        }
        Ok(())
    }
}

/// The way to ask each lane.
type Questions = BTreeMap<(Topic, Lane), mpsc::Sender<Question>>;

/// Both logs, and what has been sent to the real one without its receipt being looked at.
struct Both {
    log: Log,
    publisher: Publisher,
    readers: Questions,
    consumers: Vec<Consumer>,
    receipts: Vec<event_stream::Receipt>,
    number: u64,
}

impl Both {
    async fn append(&mut self, topic: Topic, lane: Lane, records: usize) {
        let mut batch = Vec::new();
        for _ in 0..records {
            self.number += 1;
            let payload = Bytes::from(self.number.to_string());
            self.log.append(topic, lane, payload.clone(), 0);
            batch.push(Outgoing { topic: topic.to_string().into(), lane, payload, headers: Vec::new() });
        }
        self.receipts.push(self.publisher.send(batch).await.expect("there is room"));
    }

    async fn settle(&mut self) {
        for receipt in self.receipts.drain(..) {
            receipt.await.expect("acknowledged");
        }
    }

    async fn read(&self, topic: Topic, lane: Lane, from: i64, limit: usize) -> Vec<Record> {
        let (answer, records) = oneshot::channel();
        let question = Question { from, limit, answer };
        self.readers[&(topic, lane)].send(question).await.expect("its reader lives");
        let records =
            tokio::time::timeout(PATIENCE, records).await.unwrap_or_else(|_| panic!("in vain: {topic}/{lane}"));
        records.expect("its reader lives")
    }

    async fn compare(&self, topic: Topic, lane: Lane, from: i64, limit: usize) -> usize {
        let (real, simulated) = (self.read(topic, lane, from, limit).await, self.log.read(topic, lane, from, limit));
        let shown = |records: &[Record]| -> Vec<(i64, Bytes)> {
            records.iter().map(|record| (record.offset, record.payload.clone())).collect()
        };
        assert_eq!(shown(&real), shown(simulated), "{topic}/{lane} from {from}, at most {limit}");
        assert!(real.is_sorted_by_key(|record| record.timestamp_ms), "{topic}/{lane}: a log's time never goes back");
        real.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_log_does_what_kafka_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = tokio::task::spawn_blocking({
        let path = folder.path().to_owned();
        move || Kafka::start(&path, KafkaOptions::default()).expect("a broker")
    });
    let kafka = kafka.await.expect("a broker");
    let settings = KafkaSettings::new(kafka.brokers(), "test");
    let topics: Vec<Topic> =
        [Topic::Inbox, Topic::Results].into_iter().chain((0..PARTICIPANTS.len()).map(Topic::Commands)).collect();
    let specs = topics.iter().map(|topic| TopicSpec {
        name: topic.to_string(),
        partitions: LANES as u32,
        log_append_time: true,
    });
    event_stream::make_topics(&settings, &specs.collect::<Vec<_>>(), 1, 32 << 20, 8 << 20).await.expect("topics");
    let publisher = Publisher::new(&settings).expect("a publisher");
    let (readers, consumers) = readers(&settings, &topics);
    let mut both = Both { log: Log::new(LANES), publisher, readers, consumers, receipts: Vec::new(), number: 0 };
    let mut compared = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed, 7);
        for _ in 0..OPERATIONS {
            let (topic, lane) = (topics[rng.below(topics.len())], Lane(rng.below(LANES) as u32));
            if rng.below(8) > 0 {
                both.append(topic, lane, 1 + rng.below(MAX_BATCH)).await;
            } else {
                both.settle().await;
                let from = rng.between(0, both.log.end(topic, lane));
                compared += both.compare(topic, lane, from, 1 + rng.below(2 * MAX_BATCH)).await;
            }
        }
    }
    both.settle().await;
    for topic in &topics {
        for lane in (0..LANES).map(|lane| Lane(lane as u32)) {
            let all = both.compare(*topic, lane, 0, usize::MAX).await;
            assert_eq!(all as i64, both.log.end(*topic, lane), "the whole of {topic}/{lane}");
        }
    }
    assert!(compared > 100, "only {compared} records were compared on the way");
    drop(both.readers);
    for consumer in both.consumers {
        consumer.shutdown(PATIENCE).await;
    }
}

/// A consumer for each topic, and the way to ask each of its lanes.
fn readers(settings: &KafkaSettings, topics: &[Topic]) -> (Questions, Vec<Consumer>) {
    let (mut senders, mut consumers) = (BTreeMap::new(), Vec::new());
    for topic in topics {
        let mut questions = BTreeMap::new();
        for lane in (0..LANES).map(|lane| Lane(lane as u32)) {
            let (sender, receiver) = mpsc::channel(1);
            senders.insert((*topic, lane), sender);
            questions.insert(lane, receiver);
        }
        let (name, reader) = (topic.to_string(), Arc::new(Reader(Mutex::new(questions))));
        consumers.push(Consumer::start(settings, &format!("{name}-reader"), &name, reader).expect("a consumer"));
    }
    (senders, consumers)
}
