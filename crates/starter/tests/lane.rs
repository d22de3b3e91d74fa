//! Windows and result loops on a real Redis and a real Kafka: what starts, ends and is told, whatever fails in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{
    Consumer, KafkaSettings, Lane, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, TopicSpec,
};
use local_servers::{Kafka, KafkaOptions, Redis};
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use redis_txn::{CommitError, Store, Unread, View};
use saga_core::ids::{Ordinal, SagaId, TraceContext};
use saga_core::record::{InboxEvent, ResultRecord, SagaOutcome, SagaResult, Start};
use saga_core::starter::StarterLane;
use starter::window::{Hashed, Health, Placement};
use starter::{Application, Business, Decision, Heard, Plan, Settings, StartError, Starter, Waiter};
use uuid::Uuid;

/// Longest wait for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Long enough for a record to come through, were it sent.
const A_WHILE: Duration = Duration::from_millis(500);
/// No lane looks for forgotten sagas earlier than this: what is sent before was sent on takeover.
const FIRST_SWEEP: Duration = Duration::from_secs(30);
const LANES: u32 = 3;
/// A port on which nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// Things that are free (empty) or taken by a saga; the end of `boom` makes it panic, and the start of `crash`, as long as
/// there is a bug.
struct Things {
    bug: AtomicBool,
}

impl Business for Things {
    type Request = String;
    type Answer = ();

    fn subject<'a>(&self, request: &'a String) -> &'a str {
        request
    }
    fn keys(&self, subject: &str, keys: &mut Vec<String>) {
        keys.push(format!("thing:{subject}"));
    }
    fn decide(
        &self,
        view: &mut View<'_>,
        request: &String,
        saga: SagaId,
        _ordinal: &Ordinal,
    ) -> Result<Decision<()>, Unread> {
        let key = format!("thing:{request}");
        match view.get(&key)? {
            Some(value) if value == "done" => Ok(Decision::Answer(())),
            Some(value) => Ok(Decision::Join(SagaId(Uuid::from_slice(&value).unwrap()))),
            None => {
                // Half of it is done by then.
                view.set(format!("half:{request}"), "done");
                assert!(request != "crash" || !self.bug.load(Ordering::Relaxed), "a bug");
                view.set(key, Bytes::copy_from_slice(saga.0.as_bytes()));
                Ok(Decision::Start(Plan { definition: "take".into(), inputs: BTreeMap::new() }))
            }
        }
    }
    fn apply(&self, view: &mut View<'_>, subject: &str, _result: &SagaResult) -> Result<Application, Unread> {
        assert!(subject != "boom" || !self.bug.load(Ordering::Relaxed), "a bug");
        view.set(format!("thing:{subject}"), "done");
        Ok(Application::Applied)
    }
}

/// Stands for the orchestrator: notes every start and, when told to, answers it at once.
struct Orchestrator {
    publisher: Publisher,
    results_topic: Arc<str>,
    answers: AtomicBool,
    starts: Mutex<Vec<Start>>,
}

impl LaneRunner for Orchestrator {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(Some(0)).await?;
        lane.set_loaded();
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    for record in records {
                        let Ok(InboxEvent::Start(start)) = InboxEvent::decode(&record.payload) else { continue };
                        self.starts.lock().unwrap().push(start.clone());
                        if self.answers.load(Ordering::Relaxed) {
                            self.answer(&start).await;
                        }
                    }
                }
                LaneEvent::Revoked => return Ok(()),
                LaneEvent::End | LaneEvent::Tick => {}
            }
        }
    }
}

impl Orchestrator {
    async fn answer(&self, start: &Start) {
        let result = SagaResult {
            saga: start.saga,
            ordinal: start.ordinal.clone(),
            outcome: SagaOutcome::Completed,
            trace: start.trace.clone(),
        };
        let (topic, lane) = (self.results_topic.clone(), start.ordinal.lane);
        let record = Outgoing { topic, lane, payload: ResultRecord::Ended(result).encode(), headers: Vec::new() };
        self.publisher.send(vec![record]).await.unwrap().await.unwrap();
    }

    fn starts(&self) -> Vec<SagaId> {
        self.starts.lock().unwrap().iter().map(|start| start.saga).collect()
    }
}

struct Broker {
    kafka: Kafka,
    _folder: tempfile::TempDir,
}

/// One broker for all tests; each test has topics of its own.
static BROKER: LazyLock<Broker> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    Broker { kafka: Kafka::start(folder.path(), KafkaOptions::default()).unwrap(), _folder: folder }
});

struct Stage {
    name: &'static str,
    kafka: KafkaSettings,
    store: Store,
    orchestrator: Arc<Orchestrator>,
    things: Arc<Things>,
    inbox: Consumer,
    redis: Mutex<Redis>,
    _folder: tempfile::TempDir,
}

/// One process of the service.
struct Process {
    starter: Starter<Things>,
    results: Consumer,
}

impl Stage {
    async fn set(name: &'static str) -> Self {
        let brokers = tokio::task::spawn_blocking(|| BROKER.kafka.brokers()).await.unwrap();
        // No lane may change its owner because the machine is busy: these tests are about the lanes that stay.
        let kafka = KafkaSettings { session_timeout: PATIENCE, ..KafkaSettings::new(brokers, name) };
        let topic = |kind| TopicSpec { name: format!("{name}.{kind}"), partitions: LANES, log_append_time: true };
        let quarantine = TopicSpec { name: QUARANTINE.to_owned(), ..topic("") };
        let topics = [topic("inbox"), topic("results"), quarantine];
        event_stream::make_topics(&kafka, &topics, 1, 32 << 20, 8 << 20).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(folder.path(), None).unwrap();
        let settings = redis_txn::Settings {
            address: redis.address(),
            process: format!("{name}-{}", Uuid::new_v4()),
            password: redis_txn::Password::default(),
            max_batch: 256,
            conflicts_before_turn: 2,
            response_timeout: Duration::from_secs(5),
            rest_patience: PATIENCE,
        };
        let orchestrator = Arc::new(Orchestrator {
            publisher: Publisher::new(&kafka).unwrap(),
            results_topic: format!("{name}.results").into(),
            answers: AtomicBool::new(false),
            starts: Mutex::default(),
        });
        let (group, inbox) = (format!("{name}-orchestrator"), format!("{name}.inbox"));
        let inbox = Consumer::start(&kafka, &group, &inbox, orchestrator.clone()).unwrap();
        let store = Store::connect(settings).await.unwrap();
        let things = Arc::new(Things { bug: AtomicBool::new(true) });
        Self { name, kafka, store, orchestrator, things, inbox, redis: Mutex::new(redis), _folder: folder }
    }

    /// Starts a process and waits until its lanes take starts.
    async fn process(&self, brokers_of_starts: &str) -> Process {
        self.process_placing(Placement::Window, brokers_of_starts).await
    }

    async fn process_placing(&self, placement: Placement, brokers_of_starts: &str) -> Process {
        let publisher = Publisher::new(&KafkaSettings::new(brokers_of_starts, self.name)).unwrap();
        let settings = Settings {
            name: self.name.to_owned(),
            inbox_topic: format!("{}.inbox", self.name),
            results_topic: format!("{}.results", self.name),
            max_waiters: 100,
            placement,
        };
        let store_id = self.store.id().await.unwrap();
        let starter = Starter::new(settings, self.things.clone(), self.store.clone(), store_id, publisher);
        let topic = format!("{}.results", self.name);
        let results = Consumer::start(&self.kafka, self.name, &topic, starter.runner()).unwrap();
        until(async || results.lanes().values().filter(|lane| lane.loaded).count() == LANES as usize).await;
        Process { starter, results }
    }

    async fn value(&self, key: &str) -> Option<Bytes> {
        self.store.read(&[key.to_owned()]).await.unwrap().pop().unwrap()
    }

    async fn pending(&self) -> usize {
        let keys: Vec<String> = (0..LANES)
            .flat_map(|lane| (0..20).map(move |sequence| starter::keys::pending_key(Lane(lane), sequence)))
            .collect();
        self.store.read(&keys).await.unwrap().into_iter().flatten().count()
    }

    /// What lies in the quarantine of a topic.
    async fn quarantined(&self, topic: &str) -> Vec<Quarantined> {
        let survey = event_stream::survey(&self.kafka, QUARANTINE, 1_000, PATIENCE).await.unwrap();
        let all = survey.records.iter().map(|(_, record)| Quarantined::decode(&record.payload).unwrap());
        all.filter(|record| record.topic == topic).collect()
    }

    async fn end(self, processes: Vec<Process>) {
        for process in processes {
            process.starter.shutdown(A_WHILE).await;
            process.results.shutdown(PATIENCE).await;
        }
        self.inbox.shutdown(PATIENCE).await;
        self.store.shutdown().await;
    }
}

impl Process {
    fn start(&self, thing: &str) -> Waiter<()> {
        self.starter.start(SagaId(Uuid::now_v7()), thing.to_owned(), TraceContext::default()).unwrap()
    }
}

/// As the processes of this program show it, in seconds.
fn oldest_pending_s() -> f64 {
    let text = telemetry::metrics::render();
    let line = text.lines().find(|line| line.starts_with("saga_starter_pending_oldest_seconds "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

async fn until(condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn heard(waiter: &mut Waiter<()>) -> Heard<()> {
    tokio::time::timeout(PATIENCE, waiter.heard()).await.expect("told in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_told_finds_the_result_applied() {
    let stage = Stage::set("told").await;
    stage.orchestrator.answers.store(true, Ordering::Relaxed);
    let process = stage.process(&stage.kafka.brokers).await;
    let things: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let mut waiters: Vec<_> = things.iter().map(|thing| process.start(thing)).collect();
    for (thing, waiter) in things.iter().zip(&mut waiters) {
        let told = heard(waiter).await;
        assert!(matches!(&told, Heard::Ended(result) if result.saga == waiter.saga()), "{told:?}");
        assert_eq!(stage.value(&format!("thing:{thing}")).await.unwrap(), "done");
    }
    assert_eq!((stage.pending().await, process.starter.pending()), (0, 0));
    let mut again = process.start("7");
    assert!(matches!(heard(&mut again).await, Heard::Answered(())));
    assert_eq!(stage.orchestrator.starts().len(), 20, "each was started once");
    assert!(telemetry::metrics::render().contains("saga_starter_waiting "), "a starter shows who waits");
    stage.end(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_request_joins_the_first() {
    let stage = Stage::set("joined").await;
    let process = stage.process(&stage.kafka.brokers).await;
    let mut first = process.start("a");
    until(async || stage.orchestrator.starts().len() == 1).await;
    let mut second = process.start("a");
    let told = heard(&mut second).await;
    assert!(matches!(told, Heard::Joins(saga) if saga == first.saga()), "{told:?}");
    assert!(second.join(first.saga()));
    let start = stage.orchestrator.starts.lock().unwrap()[0].clone();
    // The orchestrator sends it twice: the second one is absorbed.
    stage.orchestrator.answer(&start).await;
    stage.orchestrator.answer(&start).await;
    for waiter in [&mut first, &mut second] {
        assert!(matches!(heard(waiter).await, Heard::Ended(_)));
    }
    stage.end(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_before_its_exec_is_known() {
    let stage = Stage::set("known").await;
    let process = stage.process(&stage.kafka.brokers).await;
    stage.redis.lock().unwrap().pause().unwrap();
    let waiter = process.start("a");
    tokio::time::sleep(A_WHILE).await;
    assert!(stage.orchestrator.starts().is_empty() && waiter.at_work().is_none());
    stage.redis.lock().unwrap().resume().unwrap();
    until(async || stage.orchestrator.starts() == [waiter.saga()]).await;
    assert_eq!(stage.pending().await, 1);
    assert_eq!(waiter.at_work(), Some(waiter.saga()));
    drop(waiter);
    stage.end(vec![process]).await;
}

/// By now another process may have told it how the order ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_before_its_window_is_decided_starts_nothing() {
    let stage = Stage::set("gone").await;
    let process = stage.process(&stage.kafka.brokers).await;
    stage.redis.lock().unwrap().pause().unwrap();
    let [gone, stays] = ["a", "b"].map(|thing| process.start(thing));
    drop(gone);
    stage.redis.lock().unwrap().resume().unwrap();
    until(async || !stage.orchestrator.starts().is_empty()).await;
    assert_eq!((stage.orchestrator.starts(), stage.pending().await), (vec![stays.saga()], 1));
    assert_eq!(stage.value("thing:a").await, None);
    drop(stays);
    stage.end(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_owner_sends_what_is_pending_and_applies_its_end() {
    let stage = Stage::set("taken-over").await;
    let first = stage.process(NOBODY).await;
    let mut waiters: Vec<_> = ["a", "b", "c", "d"].map(|thing| first.start(thing)).into();
    until(async || stage.pending().await == 4).await;
    first.starter.shutdown(A_WHILE).await;
    first.results.shutdown(PATIENCE).await;
    for waiter in &mut waiters {
        assert!(matches!(heard(waiter).await, Heard::Elsewhere), "its answer comes home to another process");
    }
    assert!(stage.orchestrator.starts().is_empty());
    stage.orchestrator.answers.store(true, Ordering::Relaxed);
    let second = stage.process(&stage.kafka.brokers).await;
    let loaded = Instant::now();
    until(async || stage.pending().await == 0).await;
    assert!(loaded.elapsed() < FIRST_SWEEP, "sent by the sweep, not on takeover");
    assert_eq!(stage.value("thing:c").await.unwrap(), "done");
    let mut started = stage.orchestrator.starts();
    started.sort_unstable();
    let mut expected: Vec<_> = waiters.iter().map(Waiter::saga).collect();
    expected.sort_unstable();
    assert_eq!(started, expected, "same ids, each once");
    stage.end(vec![second]).await;
}

/// One thread: all requests are queued before the first window begins, so they are in it together.
#[tokio::test]
async fn the_sagas_of_a_window_stay_together_unless_they_are_hashed() {
    for (name, placement) in [("together", Placement::Window), ("hashed", Placement::Hashed)] {
        let stage = Stage::set(name).await;
        stage.orchestrator.answers.store(true, Ordering::Relaxed);
        let process = stage.process_placing(placement, &stage.kafka.brokers).await;
        let mut waiters: Vec<_> = (0..20).map(|number| process.start(&number.to_string())).collect();
        for waiter in &mut waiters {
            assert!(matches!(heard(waiter).await, Heard::Ended(_)));
        }
        let starts = stage.orchestrator.starts.lock().unwrap().clone();
        let used: BTreeSet<Lane> = starts.iter().map(|start| start.ordinal.lane).collect();
        let hashed = Hashed::new(&[0, 1, 2].map(|lane| (Lane(lane), Health::Good)));
        let is_hashed = starts.iter().all(|start| hashed.lane(start.saga) == Some(start.ordinal.lane));
        let expected = (placement == Placement::Window, placement == Placement::Hashed);
        assert_eq!((used.len() == 1, is_hashed), expected, "{name}: {used:?}");
        assert_eq!((starts.len(), stage.pending().await, process.starter.pending()), (20, 0, 0));
        drop(waiters);
        stage.end(vec![process]).await;
    }
}

/// One thread: all requests are queued before the first window begins, so they are in it together.
#[tokio::test]
async fn a_request_that_panics_or_needs_a_key_of_another_type_fails_alone() {
    let stage = Stage::set("crashes").await;
    stage.redis.lock().unwrap().tell("HSET thing:hash field value").unwrap();
    let process = stage.process(&stage.kafka.brokers).await;
    let things = ["a", "b", "crash", "c", "hash", "d", "e"];
    let mut waiters: Vec<_> = things.iter().map(|thing| process.start(thing)).collect();
    let mut hash = waiters.remove(4);
    let told = heard(&mut hash).await;
    assert!(matches!(told, Heard::Failed(StartError::Commit(CommitError::WrongType(_)))), "{told:?}");
    let mut crash = waiters.remove(2);
    let told = heard(&mut crash).await;
    let is_own = |told: &Heard<()>| matches!(told, Heard::Failed(StartError::Commit(CommitError::Panicked(why))) if why == "a bug");
    assert!(is_own(&told), "{told:?}");
    until(async || stage.orchestrator.starts().len() == things.len() - 2).await;
    assert_eq!(stage.pending().await, things.len() - 2);
    assert_eq!(
        (stage.value("thing:crash").await, stage.value("half:crash").await),
        (None, None),
        "nothing of it is left"
    );
    let starts = stage.orchestrator.starts.lock().unwrap().clone();
    for start in &starts {
        stage.orchestrator.answer(start).await;
    }
    for waiter in &mut waiters {
        let told = heard(waiter).await;
        assert!(matches!(told, Heard::Ended(_)), "{told:?}");
    }
    // Requests are still taken, this one too once it can be handled.
    let mut again = process.start("crash");
    assert!(is_own(&heard(&mut again).await));
    stage.things.bug.store(false, Ordering::Relaxed);
    stage.orchestrator.answers.store(true, Ordering::Relaxed);
    let mut repaired = process.start("crash");
    assert!(matches!(heard(&mut repaired).await, Heard::Ended(_)));
    drop((waiters, hash, crash, again, repaired));
    stage.end(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_panics_is_set_aside_and_its_lane_goes_on() {
    let stage = Stage::set("panics").await;
    let process = stage.process(&stage.kafka.brokers).await;
    let things = ["a", "b", "boom", "c", "d"];
    let mut waiters: Vec<_> = things.iter().map(|thing| process.start(thing)).collect();
    until(async || stage.orchestrator.starts().len() == things.len()).await;
    // All in one lane or not: each lane that has the bad one goes on behind it.
    let starts = stage.orchestrator.starts.lock().unwrap().clone();
    for start in &starts {
        stage.orchestrator.answer(start).await;
    }
    let mut boom = waiters.remove(2);
    for waiter in &mut waiters {
        assert!(matches!(heard(waiter).await, Heard::Ended(_)));
    }
    until(async || !stage.quarantined("panics.results").await.is_empty()).await;
    let [set_aside] = stage.quarantined("panics.results").await.try_into().unwrap();
    assert!(set_aside.reason.contains("3 times") && set_aside.reason.contains("a bug"), "{}", set_aside.reason);
    let lane = Lane(set_aside.partition);
    let lane_next = async || {
        let value = stage.value(&starter::keys::lane_key(lane)).await.unwrap();
        StarterLane::decode(&value).unwrap().results_next
    };
    until(async || lane_next().await > set_aside.offset).await;
    assert_eq!((stage.pending().await, process.starter.pending()), (1, 1), "its saga is pending, for all to see");
    until(async || oldest_pending_s() > 0.0).await;
    assert_ne!(stage.value("thing:boom").await.unwrap(), "done");

    // Mended, and put back as `quarantine retry` does.
    stage.things.bug.store(false, Ordering::Relaxed);
    let topic = set_aside.topic.as_str().into();
    let again = Outgoing { topic, lane, payload: set_aside.payload, headers: Vec::new() };
    stage.orchestrator.publisher.send(vec![again]).await.unwrap().await.unwrap();
    assert!(matches!(heard(&mut boom).await, Heard::Ended(_)));
    assert_eq!((stage.pending().await, stage.value("thing:boom").await.unwrap()), (0, Bytes::from("done")));
    drop((waiters, boom));
    stage.end(vec![process]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_is_set_aside_and_its_lane_goes_on() {
    let stage = Stage::set("impossible").await;
    let process = stage.process(&stage.kafka.brokers).await;
    let mut waiter = process.start("a");
    until(async || !stage.orchestrator.starts().is_empty()).await;
    let start = stage.orchestrator.starts.lock().unwrap()[0].clone();
    let (own, saga) = (&start.ordinal, SagaId(Uuid::new_v4()));
    let next = Ordinal { sequence: own.sequence + 1, ..own.clone() };
    let forged = [own.clone(), next].map(|ordinal| Start { saga, ordinal, ..start.clone() });
    for start in forged.iter().chain([&start]) {
        stage.orchestrator.answer(start).await;
    }
    assert!(matches!(heard(&mut waiter).await, Heard::Ended(_)));
    until(async || stage.quarantined("impossible.results").await.len() == forged.len()).await;
    let reasons: Vec<String> =
        stage.quarantined("impossible.results").await.into_iter().map(|record| record.reason).collect();
    assert!(reasons[0].contains("other-saga") && reasons[1].contains("never-started"), "{reasons:?}");
    drop(waiter);
    stage.end(vec![process]).await;
}
