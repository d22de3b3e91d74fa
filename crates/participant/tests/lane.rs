//! The lane loop of a participant on a real Redis and a real Kafka: commands in, answers out, whatever fails in between.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{
    Consumer, KafkaSettings, Lane, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, TopicSpec,
};
use local_servers::{Kafka, KafkaOptions, Redis};
use participant::{Business, Decision, Fault, Participant, UndoOutcome, Values, lane_key};
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use redis_txn::{Settings, Store};
use saga_core::ids::{CommandId, Direction, Ordinal, SagaId, Starter, TraceContext};
use saga_core::participant::ParticipantLane;
use saga_core::record::{Command, CommandRecord, InboxEvent, Outcome, Refusal, Reply};
use uuid::Uuid;

/// Longest wait for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const LANES: u32 = 3;
/// A port on which nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// Takes one coin per action; this input makes it panic.
struct Purse {
    bug: Option<&'static str>,
}

fn coins(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

impl Business for Purse {
    fn keys(&self, _command: &Command) -> Vec<String> {
        vec!["purse".to_owned()]
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        assert!(self.bug.is_none_or(|bug| command.input != bug), "a bug");
        if command.input == "hash" && values.get("hash")?.is_none() {
            return Ok(Decision::Refuse(Refusal { code: "no-such-thing".to_owned(), reason: String::new() }));
        }
        let held = coins(&values.get("purse")?.unwrap());
        if held == 0 {
            return Ok(Decision::Refuse(Refusal { code: "empty".to_owned(), reason: "no coin left".to_owned() }));
        }
        values.set("purse".to_owned(), (held - 1).to_string().into());
        Ok(Decision::Apply { output: Bytes::new(), undo: Bytes::new() })
    }

    fn undo(&self, _command: &Command, _done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        let held = coins(&values.get("purse")?.unwrap());
        values.set("purse".to_owned(), (held + 1).to_string().into());
        Ok(UndoOutcome::Reversed)
    }
}

struct Broker {
    kafka: Kafka,
    _folder: tempfile::TempDir,
}

/// One broker for all tests; each test has a participant, and so a command topic, of its own.
static BROKER: LazyLock<Broker> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    Broker { kafka: Kafka::start(folder.path(), KafkaOptions::default()).unwrap(), _folder: folder }
});

/// One participant with its store, and what it answers.
struct Stage {
    name: &'static str,
    settings: KafkaSettings,
    publisher: Publisher,
    store: Store,
    answers: Arc<Answers>,
    inbox: Consumer,
    redis: Redis,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(name: &'static str, purse: u64) -> Self {
        let brokers = tokio::task::spawn_blocking(|| BROKER.kafka.brokers()).await.unwrap();
        let settings = KafkaSettings::new(brokers, name);
        let topic = |name: String| TopicSpec { name, partitions: LANES, log_append_time: true };
        let topics = [topic(format!("{name}.commands")), topic("saga.inbox".to_owned()), topic(QUARANTINE.to_owned())];
        event_stream::make_topics(&settings, &topics, 1, 32 << 20, 8 << 20).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(folder.path(), None).unwrap();
        let store = connect(&redis.address()).await;
        store.bulk_set([("purse".to_owned(), Bytes::from(purse.to_string()))].into_iter()).await.unwrap();
        let answers = Arc::new(Answers { participant: name, seen: Mutex::default() });
        let group = format!("{name}-collector");
        let inbox = Consumer::start(&settings, &group, "saga.inbox", Arc::clone(&answers)).unwrap();
        let publisher = Publisher::new(&settings).unwrap();
        Self { name, settings, publisher, store, answers, inbox, redis, _folder: folder }
    }

    /// Starts the participant as a process would, with this publisher for its answers.
    fn start(&self, publisher: Publisher) -> Consumer {
        self.start_with(Purse { bug: Some("boom") }, publisher)
    }

    fn start_with(&self, purse: Purse, publisher: Publisher) -> Consumer {
        let drain = Duration::from_millis(500);
        let runner = Participant::new(self.name, purse, self.store.clone(), publisher, drain);
        Consumer::start(&self.settings, self.name, &format!("{}.commands", self.name), Arc::new(runner)).unwrap()
    }

    async fn send(&self, lane: u32, commands: Vec<Command>) {
        let topic: Arc<str> = format!("{}.commands", self.name).into();
        let record = |command| Outgoing {
            topic: Arc::clone(&topic),
            lane: Lane(lane),
            payload: CommandRecord::Command(command).encode(),
            headers: Vec::new(),
        };
        self.publisher.send(commands.into_iter().map(record).collect()).await.unwrap().await.unwrap();
    }

    fn command(&self, lane: u32, sequence: u64, direction: Direction, input: &'static str) -> Command {
        let starter = Starter { name: "order".to_owned(), store: Uuid::nil() };
        Command {
            id: CommandId {
                saga: SagaId(Uuid::from_u128(u128::from(lane) << 64 | u128::from(sequence))),
                step: self.name.to_owned(),
                direction,
            },
            ordinal: Ordinal { starter, lane: Lane(lane), sequence },
            operation: "take".to_owned(),
            input: input.into(),
            uses: BTreeMap::new(),
            may_refuse: true,
            trace: TraceContext::default(),
        }
    }

    fn actions(&self, lane: u32, sequences: std::ops::Range<u64>) -> Vec<Command> {
        sequences.map(|sequence| self.command(lane, sequence, Direction::Action, "")).collect()
    }

    async fn purse(&self) -> u64 {
        coins(self.store.read(&["purse".to_owned()]).await.unwrap()[0].as_ref().unwrap())
    }

    async fn lane(&self, lane: u32) -> ParticipantLane {
        let value = self.store.read(&[lane_key(Lane(lane))]).await.unwrap().remove(0);
        value.map(|bytes| ParticipantLane::decode(&bytes).unwrap()).unwrap_or_default()
    }

    /// What of this participant's commands lies in the quarantine.
    async fn quarantined(&self) -> Vec<Quarantined> {
        let survey = event_stream::survey(&self.settings, QUARANTINE, 1_000, PATIENCE).await.unwrap();
        let all = survey.records.iter().map(|(_, record)| Quarantined::decode(&record.payload).unwrap());
        all.filter(|record| record.topic == format!("{}.commands", self.name)).collect()
    }

    async fn end(self, participant: Consumer) {
        participant.shutdown(PATIENCE).await;
        self.inbox.shutdown(PATIENCE).await;
        self.store.shutdown().await;
    }
}

async fn connect(address: &str) -> Store {
    Store::connect(Settings {
        address: address.to_owned(),
        process: format!("test-{}", Uuid::new_v4()),
        password: redis_txn::Password::default(),
        max_batch: 256,
        conflicts_before_turn: 2,
        response_timeout: Duration::from_secs(5),
        rest_patience: Duration::from_secs(5),
    })
    .await
    .unwrap()
}

/// Reads the inbox and keeps the answers of one participant.
struct Answers {
    participant: &'static str,
    seen: Mutex<Vec<Reply>>,
}

impl Answers {
    fn of(&self, lane: u32) -> Vec<Reply> {
        self.seen.lock().unwrap().iter().filter(|reply| reply.ordinal.lane == Lane(lane)).cloned().collect()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl LaneRunner for Answers {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(Some(0)).await?;
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    for record in records {
                        let InboxEvent::Reply(reply) = InboxEvent::decode(&record.payload).unwrap() else { continue };
                        if reply.id.step == self.participant {
                            self.seen.lock().unwrap().push(reply);
                        }
                    }
                }
                LaneEvent::End | LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}

/// Waits for a condition, with a deadline.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_answered_once_and_in_order() {
    let stage = Stage::set("plain", 250).await;
    let participant = stage.start(stage.publisher.clone());
    for lane in 0..LANES {
        stage.send(lane, stage.actions(lane, 0..100)).await;
    }
    eventually("all are answered", async || stage.answers.count() >= 300).await;
    let undo = stage.command(0, 0, Direction::Undo, "");
    stage.send(0, vec![undo]).await;
    eventually("the undo is answered", async || stage.answers.count() > 300).await;
    assert_eq!(stage.answers.count(), 301);
    for lane in 0..LANES {
        let sequences: Vec<u64> = stage.answers.of(lane).iter().map(|reply| reply.ordinal.sequence).collect();
        assert!(sequences.into_iter().take(100).eq(0..100), "lane {lane}");
    }
    let applied = |reply: &&Reply| matches!(reply.outcome, Outcome::Applied { .. });
    let count: usize = (0..LANES).map(|lane| stage.answers.of(lane).iter().filter(applied).count()).sum();
    // The purse was empty at the end; the last answer of lane 0 is the undo's.
    assert_eq!((count, stage.purse().await), (250, 1));
    assert_eq!(stage.answers.of(0).last().unwrap().outcome, Outcome::Undone);
    // A silent lane writes down that all is acknowledged.
    eventually("replied is written", async || {
        let lane = stage.lane(1).await;
        lane.next == 100 && lane.replied == 100
    })
    .await;
    stage.end(participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_were_lost_after_the_exec_are_repeated() {
    let stage = Stage::set("lossy", 150).await;
    // A publisher without a broker: the EXEC happens, the answers get nowhere.
    let nowhere = KafkaSettings { message_timeout: Duration::from_secs(1), ..KafkaSettings::new(NOBODY, "nowhere") };
    let participant = stage.start(Publisher::new(&nowhere).unwrap());
    for lane in 0..LANES {
        stage.send(lane, stage.actions(lane, 0..60)).await;
    }
    eventually("all are executed", async || {
        let mut next = 0;
        for lane in 0..LANES {
            next += stage.lane(lane).await.next;
        }
        next == 180
    })
    .await;
    assert_eq!(stage.lane(0).await.replied, 0);
    participant.shutdown(Duration::from_secs(20)).await;
    assert_eq!(stage.answers.count(), 0);

    let participant = stage.start(stage.publisher.clone());
    eventually("all are answered", async || stage.answers.count() >= 180).await;
    assert_eq!(stage.answers.count(), 180);
    let refused = |reply: &&Reply| matches!(reply.outcome, Outcome::Refused(_));
    let count: usize = (0..LANES).map(|lane| stage.answers.of(lane).iter().filter(refused).count()).sum();
    assert_eq!((count, stage.purse().await), (30, 0));
    // The lane goes on behind what was repeated.
    stage.send(2, stage.actions(2, 60..61)).await;
    eventually("a new command is answered", async || stage.answers.count() == 181).await;
    assert_eq!(stage.lane(2).await.next, 61);
    stage.end(participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_somebody_else_moved_is_loaded_again() {
    let stage = Stage::set("fenced", 100).await;
    let participant = stage.start(stage.publisher.clone());
    stage.send(0, stage.actions(0, 0..10)).await;
    eventually("all are answered", async || stage.answers.count() >= 10).await;
    // Another owner, with the same store: it has executed up to 5 only, as far as the lane's key says. What the first
    // loop does next is fenced; it loads, and repeats from the step records instead of taking coins again.
    let moved = ParticipantLane { next: 5, replied: 5, ..stage.lane(0).await };
    stage.store.bulk_set([(lane_key(Lane(0)), moved.encode())].into_iter()).await.unwrap();
    stage.send(0, stage.actions(0, 10..20)).await;
    eventually("all are executed", async || stage.lane(0).await.next == 20).await;
    eventually("all are answered", async || stage.answers.count() >= 25).await;
    assert_eq!(stage.purse().await, 80);
    stage.end(participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_fails_only_the_commands_that_need_it() {
    let stage = Stage::set("hashes", 3).await;
    stage.redis.tell("HSET hash field value").unwrap();
    let participant = stage.start(stage.publisher.clone());
    let command = |sequence, input| stage.command(0, sequence, Direction::Action, input);
    stage.send(0, vec![command(0, ""), command(1, "hash"), command(2, "")]).await;
    eventually("all are answered", async || stage.answers.count() >= 3).await;
    let told: Vec<Outcome> = stage.answers.of(0).into_iter().map(|reply| reply.outcome).collect();
    assert!(matches!(&told[1], Outcome::Failed { .. }), "not refused for want of it: {told:?}");
    assert!([0, 2].into_iter().all(|place: usize| matches!(&told[place], Outcome::Applied { .. })), "{told:?}");
    assert!(participant.lanes().values().all(|lane| lane.halted.is_none()));
    assert_eq!(stage.purse().await, 1);
    stage.end(participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_panics_is_set_aside_and_its_lane_goes_on() {
    let stage = Stage::set("panics", 100).await;
    let participant = stage.start(stage.publisher.clone());
    let mut commands = stage.actions(0, 0..20);
    commands.push(stage.command(0, 20, Direction::Action, "boom"));
    commands.extend(stage.actions(0, 21..30));
    stage.send(0, commands).await;
    stage.send(1, stage.actions(1, 0..10)).await;
    eventually("all others are answered", async || stage.answers.count() >= 39).await;
    eventually("the lane is past it", async || stage.lane(0).await.next == 30).await;
    assert_eq!(stage.purse().await, 61, "nothing of it has happened");
    let sequences: Vec<u64> = stage.answers.of(0).iter().map(|reply| reply.ordinal.sequence).collect();
    assert!(sequences.into_iter().eq((0..20).chain(21..30)), "it has no answer");
    assert!(participant.lanes().values().all(|lane| lane.halted.is_none()));
    let [set_aside] = stage.quarantined().await.try_into().unwrap();
    assert_eq!((set_aside.partition, set_aside.offset), (0, 20));
    assert!(set_aside.reason.contains("3 times") && set_aside.reason.contains("a bug"), "{}", set_aside.reason);
    participant.shutdown(PATIENCE).await;

    // A program that can do it, and the record put back as `quarantine retry` does.
    let participant = stage.start_with(Purse { bug: None }, stage.publisher.clone());
    let again = Outgoing {
        topic: set_aside.topic.as_str().into(),
        lane: Lane(set_aside.partition),
        payload: set_aside.payload,
        headers: Vec::new(),
    };
    stage.publisher.send(vec![again]).await.unwrap().await.unwrap();
    eventually("it is answered", async || stage.answers.count() == 40).await;
    assert!(matches!(stage.answers.of(0).last().unwrap().outcome, Outcome::Applied { .. }));
    assert_eq!((stage.purse().await, stage.quarantined().await.len()), (60, 1));
    stage.end(participant).await;
}
