//! Two processes share a hundred lanes, with positions in a real Redis. One is killed, another is paused for longer than
//! its session and wakes up as a zombie: every record counts exactly once, in order.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Broker, PATIENCE, new_topic, outgoing};
use event_stream::{Consumer, HaltReason, KafkaSettings, LaneEvent, LaneFault, LaneRunner, OwnedLane, Publisher};
use local_servers::{Lifetime, ManagedProcess, ProcessSpec, Redis};
use redis_txn::{Queue, Settings, Store, Transaction, Unread, View};

const LANES: u32 = 100;
/// Records of one batch, all to one lane.
const BATCH: u32 = 10;
const ROUNDS: u32 = 12;
/// The worker is this test program again, with this in its environment.
const WORKER: &str = "EVENT_STREAM_WORKER";

/// Moves a lane on by a batch of numbered records, unless somebody else has.
struct Count {
    key: String,
    first: i64,
    numbers: Vec<u64>,
}

enum Counted {
    Until(i64),
    Fenced,
    Disorder(String),
}

impl Transaction for Count {
    type Outcome = Counted;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.key.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Counted, Unread> {
        let (next, mut count) = parse(view.get(&self.key)?.as_ref());
        if next.unwrap_or(0) != self.first {
            return Ok(Counted::Fenced);
        }
        for number in &self.numbers {
            if *number != count {
                return Ok(Counted::Disorder(format!("{number} after {count} records")));
            }
            count += 1;
        }
        let next = self.first + self.numbers.len() as i64;
        view.set(self.key.clone(), format!("{next} {count}"));
        Ok(Counted::Until(next))
    }
}

/// Next offset and count of records of a lane.
fn parse(value: Option<&Bytes>) -> (Option<i64>, u64) {
    let Some(value) = value else { return (None, 0) };
    let text = std::str::from_utf8(value).unwrap();
    let (next, count) = text.split_once(' ').unwrap();
    (Some(next.parse().unwrap()), count.parse().unwrap())
}

struct Counter {
    store: Store,
    queues: Vec<Queue>,
    /// While this file exists, records that were read are kept in hand.
    hold: PathBuf,
}

impl Counter {
    async fn keep_in_hand(&self, lane: u32) {
        if self.hold.exists() {
            println!("keeps records of {lane} in hand");
        }
        while self.hold.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The file that makes a worker keep what it has read.
fn hold_file(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("hold-{pid}"))
}

impl LaneRunner for Counter {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        let number = lane.lane().0;
        let key = format!("lane:{number}");
        let restart = |error: redis_txn::CommitError| LaneFault::Restart(error.to_string());
        let stored = self.store.read(std::slice::from_ref(&key)).await.map_err(restart)?;
        let next = lane.fetch_from(parse(stored[0].as_ref()).0).await?;
        lane.set_stored(next);
        lane.set_loaded();
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    self.keep_in_hand(number).await;
                    let first = records[0].offset;
                    let numbers = records
                        .iter()
                        .map(|record| std::str::from_utf8(&record.payload).unwrap().parse().unwrap())
                        .collect();
                    let count = Count { key: key.clone(), first, numbers };
                    match self.queues[number as usize].run(count).await.map_err(restart)? {
                        Counted::Until(next) => lane.set_stored(next),
                        Counted::Fenced => {
                            println!("fenced {number} at {first}");
                            return Err(LaneFault::Restart("fenced".into()));
                        }
                        Counted::Disorder(what) => {
                            println!("disorder in {number} at {first}: {what}");
                            return Err(HaltReason::Corrupt(what).into());
                        }
                    }
                }
                LaneEvent::End | LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}

/// Not a test: the body of a worker process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below as a process of its own"]
async fn worker() {
    let Ok(line) = std::env::var(WORKER) else { return };
    let [brokers, redis, topic, folder] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{WORKER}={line}") };
    let store = Store::connect(store_settings(redis)).await.unwrap();
    let queues = (0..LANES).map(|lane| store.lane_queue(lane)).collect();
    let settings = KafkaSettings::new(brokers, format!("worker-{}", std::process::id()));
    let hold = hold_file(Path::new(folder), std::process::id());
    let runner = Arc::new(Counter { store, queues, hold });
    let consumer = Consumer::start(&settings, "workers", topic, runner).unwrap();
    let mut before = (0, 0);
    loop {
        let lanes = consumer.lanes();
        let now = (lanes.len(), lanes.values().filter(|lane| lane.halted.is_some()).count());
        if now != before {
            println!("{} lanes, {} halted", now.0, now.1);
            before = now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn store_settings(address: &str) -> Settings {
    Settings {
        address: address.to_owned(),
        process: format!("process-{}", std::process::id()),
        password: redis_txn::Password::default(),
        max_batch: 256,
        conflicts_before_turn: 2,
        response_timeout: Duration::from_secs(5),
        rest_patience: Duration::from_secs(5),
    }
}

struct Stage {
    folder: tempfile::TempDir,
    line: String,
    store: Store,
    publisher: Publisher,
    topic: String,
    produced: u32,
}

impl Stage {
    fn start_worker(&self, name: &str) -> ManagedProcess {
        ManagedProcess::spawn(ProcessSpec {
            name: name.to_owned(),
            program: std::env::current_exe().unwrap(),
            args: ["worker", "--exact", "--ignored", "--nocapture"].map(Into::into).to_vec(),
            envs: vec![(WORKER.to_owned(), self.line.clone())],
            log_file: self.log_file(name),
            lifetime: Lifetime::WithParent,
        })
        .unwrap()
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn said(&self, name: &str, word: &str) -> usize {
        let log = std::fs::read_to_string(self.log_file(name)).unwrap();
        log.lines().filter(|line| line.contains(word)).count()
    }

    async fn wait_until_said(&self, name: &str, word: &str) {
        let began = Instant::now();
        while self.said(name, word) == 0 {
            assert!(began.elapsed() < PATIENCE, "in vain: {name} says {word}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes batches to every lane, one per lane and round.
    async fn produce_rounds(&mut self, rounds: u32) {
        for _ in 0..rounds {
            let mut receipts = Vec::new();
            for lane in 0..LANES {
                let numbers = self.produced..self.produced + BATCH;
                let records = numbers.map(|number| outgoing(&self.topic, lane, number.to_string())).collect();
                receipts.push(self.publisher.send(records).await.unwrap());
            }
            for receipt in receipts {
                receipt.await.unwrap();
            }
            self.produced += BATCH;
        }
    }

    async fn counts(&self) -> Vec<u64> {
        let keys: Vec<String> = (0..LANES).map(|lane| format!("lane:{lane}")).collect();
        let values = self.store.read(&keys).await.unwrap();
        values.iter().map(|value| parse(value.as_ref()).1).collect()
    }

    /// Waits until all that was written so far is counted; answers how long that took.
    async fn all_counted(&self, what: &str) -> Duration {
        let (began, wanted) = (Instant::now(), u64::from(self.produced));
        loop {
            let counts = self.counts().await;
            assert!(counts.iter().all(|count| *count <= wanted), "counted twice: {counts:?}");
            if counts.iter().all(|count| *count == wanted) {
                println!("{what}: all counted after {:?}", began.elapsed());
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "in vain: {what}: {wanted} wanted, {counts:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_paused_processes_lose_nothing_and_repeat_nothing() {
    let (broker, redis, folder) = tokio::task::spawn_blocking(|| {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(&folder.path().join("redis"), None).unwrap();
        (Broker::start(), redis, folder)
    })
    .await
    .unwrap();
    let settings = KafkaSettings::new(broker.kafka.brokers(), "test");
    let topic = new_topic(&settings, LANES).await;
    let mut stage = Stage {
        line: format!("{} {} {topic} {}", broker.kafka.brokers(), redis.address(), folder.path().display()),
        store: Store::connect(store_settings(&redis.address())).await.unwrap(),
        publisher: Publisher::new(&settings).unwrap(),
        folder,
        topic,
        produced: 0,
    };
    let mut first = stage.start_worker("first");
    let mut second = stage.start_worker("second");
    stage.produce_rounds(ROUNDS).await;
    stage.all_counted("two processes").await;
    assert!(stage.said("second", "lanes") > 0, "the second has a share");

    first.kill().unwrap();
    stage.produce_rounds(ROUNDS).await;
    stage.all_counted("one was killed").await;

    let _third = stage.start_worker("third");
    stage.produce_rounds(ROUNDS).await;
    stage.all_counted("a third came").await;

    // Stopped with records in its hands, which others count meanwhile: it wakes up and hands them in.
    let hold = hold_file(stage.folder.path(), second.pid());
    std::fs::write(&hold, "").unwrap();
    stage.produce_rounds(ROUNDS).await;
    stage.wait_until_said("second", "in hand").await;
    second.pause().unwrap();
    std::fs::remove_file(&hold).unwrap();
    stage.all_counted("one is paused").await;
    stage.produce_rounds(1).await;
    second.resume().unwrap();
    stage.produce_rounds(ROUNDS).await;
    stage.all_counted("it woke up").await;
    stage.wait_until_said("second", "fenced").await;
    for name in ["first", "second", "third"] {
        println!("{name}: fenced {} times", stage.said(name, "fenced"));
        assert_eq!(stage.said(name, "disorder"), 0, "{name} saw records out of order");
        assert_eq!(stage.said(name, ", 1 halted"), 0, "{name} halted a lane");
    }
}
