//! An orchestrator is killed, fenced or finds nonsense: the next one says the same again, with the same ids.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{LANES, Stack, eventually};
use event_stream::{Ground, Lane};
use orchestrator::checkpoint::checkpoint_key;
use proto::Wire;
use proto::checkpoint::Checkpoint;
use redis_txn::{Store, Transaction, Unread, View};
use saga_core::ids::{Direction, SagaId};
use saga_core::record::{InboxEvent, Outcome, SagaOutcome};
use uuid::Uuid;

/// A checkpoint is due so rarely that none is written before the process is killed.
const NEVER: [(&str, &str); 2] = [("CHECKPOINT_INTERVAL_MS", "3600000"), ("CHECKPOINT_RECORDS", "1000000")];
const OFTEN: [(&str, &str); 1] = [("CHECKPOINT_INTERVAL_MS", "100")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_orchestrator_is_replaced() {
    let mut stack = Stack::start().await;
    let store = stack.store().await;
    given_up_without_a_checkpoint(&mut stack, &store).await;
    killed_without_a_checkpoint(&stack, &store).await;
    given_up_with_a_checkpoint(&stack, &store).await;
    fenced_by_another_version(&stack, &store).await;
    another_inbox_halts_all_lanes(&stack, &store).await;
    nonsense_halts_one_lane(&stack, &store).await;
}

async fn killed_without_a_checkpoint(stack: &Stack, store: &Store) {
    let mut first = stack.orchestrator("first", &NEVER);
    first.ready(LANES).await;
    let open = stack.start_saga(0, 0, "buy").await;
    let reserve = stack.command(open, "reserve", Direction::Action).await;
    stack.applied(&reserve, "r").await;
    let charge = stack.command(open, "charge", Direction::Action).await;
    let done = stack.start_saga(0, 1, "buy").await;
    let other = stack.command(done, "reserve", Direction::Action).await;
    stack.refused(&other, "out-of-stock").await;
    let undo = stack.command(done, "reserve", Direction::Undo).await;
    stack.reply(&undo, Outcome::Undone).await;
    let result = stack.result(done).await;
    assert_eq!(version(store, 0).await, None, "no checkpoint was due");
    first.process.kill().unwrap();

    let mut second = stack.orchestrator("second", &OFTEN);
    second.ready(LANES).await;
    // Only what is awaited is asked again: the same command to the last byte, not the one that was answered.
    assert_eq!(stack.command(open, "charge", Direction::Action).await, charge);
    let again = || stack.watched.with(|seen| seen.results.get(&done).filter(|results| results.len() == 2).cloned());
    assert_eq!(eventually("the result is said again", again).await, [result.clone(), result]);
    stack.applied(&charge, "").await;
    assert_eq!(stack.result(open).await.outcome, SagaOutcome::Completed);
    let left = stack.watched.with(|seen| (seen.commands[&open].len(), seen.commands[&done].len()));
    assert_eq!(left, (0, 0), "no command too many");
    checkpoint_written(store, 0).await;
    second.process.kill().unwrap();
}

/// The group must not hear of a position that no checkpoint holds, or the lane would halt for ever.
async fn given_up_without_a_checkpoint(stack: &mut Stack, store: &Store) {
    let [interval, records] = NEVER;
    let mut first = stack.orchestrator("hasty", &[interval, records, ("KAFKA_DRAIN_DEADLINE_MS", "500")]);
    first.ready(LANES).await;
    let saga = stack.start_saga(3, 0, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    stack.redis.pause().unwrap();
    first.process.terminate(common::PATIENCE).unwrap();
    stack.redis.resume().unwrap();
    assert_eq!(version(store, 3).await, None, "the store was away");

    let mut second = stack.orchestrator("patient", &NEVER);
    second.ready(LANES).await;
    assert_eq!(stack.command(saga, "reserve", Direction::Action).await, reserve, "the saga came from the log");
    second.process.kill().unwrap();
}

async fn given_up_with_a_checkpoint(stack: &Stack, store: &Store) {
    let mut first = stack.orchestrator("third", &NEVER);
    first.ready(LANES).await;
    let saga = stack.start_saga(1, 0, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    let before = version(store, 1).await;
    assert!(first.process.terminate(common::PATIENCE).unwrap().success());
    assert!(version(store, 1).await > before, "a last checkpoint was written");

    let mut second = stack.orchestrator("fourth", &OFTEN);
    second.ready(LANES).await;
    assert_eq!(stack.command(saga, "reserve", Direction::Action).await, reserve, "the saga came from the checkpoint");
    stack.applied(&reserve, "").await;
    let charge = stack.command(saga, "charge", Direction::Action).await;
    stack.applied(&charge, "").await;
    assert_eq!(stack.result(saga).await.outcome, SagaOutcome::Completed);
    second.process.kill().unwrap();
}

async fn fenced_by_another_version(stack: &Stack, store: &Store) {
    let mut orchestrator = stack.orchestrator("fifth", &OFTEN);
    orchestrator.ready(LANES).await;
    let saga = stack.start_saga(2, 0, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    let seen = checkpoint_written(store, 2).await;
    // Somebody else writes the lane's checkpoint.
    store.lane_queue(2).run(Bump { key: checkpoint_key(Lane(2)) }).await.unwrap();
    stack.applied(&reserve, "").await;
    stack.command(saga, "charge", Direction::Action).await;
    let fenced = || orchestrator.metric(&["saga_checkpoints", "fenced"]).filter(|count| *count >= 1.0);
    eventually("the checkpoint is fenced", fenced).await;
    // It reloads, folds the same records, says the same again, and goes on.
    let charge = stack.command(saga, "charge", Direction::Action).await;
    stack.applied(&charge, "").await;
    assert_eq!(stack.result(saga).await.outcome, SagaOutcome::Completed);
    let end = std::time::Instant::now() + common::PATIENCE;
    while version(store, 2).await <= Some(seen + 1) {
        assert!(std::time::Instant::now() < end, "no checkpoint after the fence");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(orchestrator.process.terminate(common::PATIENCE).unwrap().success());
}

/// The checkpoints belong to an inbox that is not this one: whatever the offsets are, nothing is folded.
async fn another_inbox_halts_all_lanes(stack: &Stack, store: &Store) {
    let key = Ground::key(common::INBOX);
    let known = store.read(std::slice::from_ref(&key)).await.unwrap().remove(0).expect("remembered at the first start");
    let put = async |value| store.lane_queue(0).run(Put { key: key.clone(), value }).await.unwrap();
    put(Bytes::from_static(b"00000000000000000000000000000001")).await;
    let before = version(store, 0).await;
    let mut orchestrator = stack.orchestrator("astray", &OFTEN);
    let halted = || {
        let (_, body) = orchestrator.get("/readyz")?;
        let answer: serde_json::Value = serde_json::from_str(&body).ok()?;
        answer["details"]["lanes"]["halted"].as_object().filter(|lanes| lanes.len() == LANES as usize).cloned()
    };
    let reasons = eventually("all lanes are halted by name", halted).await;
    assert!(reasons.values().all(|reason| reason.as_str().unwrap().contains("another topic")), "{reasons:?}");
    let counted = || {
        let halts = orchestrator.metric(&["saga_stream_lane_halts", "topic-changed"])?;
        let shown = orchestrator.metric(&["saga_stream_lane_halted", "lane=\"0\""])?;
        (halts == f64::from(LANES) && shown == 1.0).then_some(())
    };
    eventually("the metrics say so", counted).await;
    assert_eq!(version(store, 0).await, before);
    assert!(orchestrator.process.terminate(common::PATIENCE).unwrap().success());
    put(known).await;
}

async fn nonsense_halts_one_lane(stack: &Stack, store: &Store) {
    let rubbish = Put { key: checkpoint_key(Lane(3)), value: Bytes::from_static(b"rubbish") };
    store.lane_queue(3).run(rubbish).await.unwrap();
    let mut orchestrator = stack.orchestrator("sixth", &OFTEN);
    orchestrator.ready(LANES - 1).await;
    let halted = || orchestrator.get_json("/readyz")["details"]["lanes"]["halted"]["3"].as_str().map(str::to_owned);
    let reason = eventually("lane 3 is halted by name", halted).await;
    assert!(reason.contains("corrupt") && reason.contains("checkpoint:3"), "{reason}");
    assert_eq!(orchestrator.get("/readyz").unwrap().0, 200, "a halted lane does not make the process unready");
    // The others go on, and a record of a later program halts one of them too, after what came before it.
    let saga = SagaId(Uuid::now_v7());
    let start = InboxEvent::Start(common::start(saga, 1, 1, "buy")).encode();
    stack.send_together(1, [start, Bytes::from_static(&[8, 2, 26, 0])]).await;
    stack.command(saga, "reserve", Direction::Action).await;
    let halted = || orchestrator.get_json("/readyz")["details"]["lanes"]["halted"]["1"].as_str().map(str::to_owned);
    let reason = eventually("lane 1 is halted by name", halted).await;
    assert!(reason.contains("unknown format"), "{reason}");
    let other = stack.start_saga(0, 2, "buy").await;
    stack.command(other, "reserve", Direction::Action).await;
}

async fn version(store: &Store, lane: u32) -> Option<u64> {
    let values = store.read(&[checkpoint_key(Lane(lane))]).await.unwrap();
    values[0].as_ref().map(|bytes| Checkpoint::decode(bytes).unwrap().version)
}

async fn checkpoint_written(store: &Store, lane: u32) -> u64 {
    let end = std::time::Instant::now() + common::PATIENCE;
    loop {
        if let Some(version) = version(store, lane).await {
            return version;
        }
        assert!(std::time::Instant::now() < end, "no checkpoint of lane {lane}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes the same checkpoint as another loop would: one version on.
struct Bump {
    key: String,
}

impl Transaction for Bump {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.key.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        let mut checkpoint = Checkpoint::decode(&view.get(&self.key)?.unwrap()).unwrap();
        checkpoint.version += 1;
        checkpoint.writer = Uuid::from_u128(1);
        view.set(self.key.clone(), checkpoint.encode());
        Ok(())
    }
}

struct Put {
    key: String,
    value: Bytes,
}

impl Transaction for Put {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.key.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        view.set(self.key.clone(), self.value.clone());
        Ok(())
    }
}
