use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proto::Wire;
use proto::checkpoint::Checkpoint;
use redis_txn::Memory;
use saga_core::ids::{CommandId, Direction, Ordinal, TraceContext};
use saga_core::lane::SUPPORTED_FOLD_VERSION;
use saga_core::record::{InboxEvent, InboxRecord, Outcome, Reply, Start};

use super::load::restore;
use super::*;

const LANE: Lane = Lane(5);
const TEXT: &str = "name: buy\nversion: 1\ndeadline_ms: 20000\nsteps:\n  - name: reserve\n    participant: stock\n";

fn ordinal(sequence: u64) -> Ordinal {
    Ordinal { starter: Starter { name: "order".to_owned(), store: Uuid::nil() }, lane: LANE, sequence }
}

fn saga(sequence: u64) -> SagaId {
    SagaId(Uuid::from_u128(u128::from(sequence) + 1))
}

fn fold(state: &mut LaneState, event: InboxEvent) {
    let offset = state.next_offset();
    let step = state.step(&InboxRecord { offset, time_ms: 1_000 + offset, event });
    assert_eq!(step.ignored, None);
}

fn start(state: &mut LaneState, sequence: u64) {
    let start = Start {
        saga: saga(sequence),
        ordinal: ordinal(sequence),
        definition: "buy".to_owned(),
        inputs: BTreeMap::from([("reserve".to_owned(), Bytes::from_static(b"two"))]),
        results_topic: "order.results".to_owned(),
        trace: TraceContext::default(),
    };
    fold(state, InboxEvent::Start(start));
}

fn apply(state: &mut LaneState, sequence: u64) {
    let id = CommandId { saga: saga(sequence), step: "reserve".to_owned(), direction: Direction::Action };
    let outcome = Outcome::Applied { output: Bytes::new() };
    fold(state, InboxEvent::Reply(Reply { id, ordinal: ordinal(sequence), outcome }));
}

fn state() -> LaneState {
    let mut state = LaneState::new(LANE);
    fold(&mut state, InboxEvent::Activate { text: TEXT.to_owned() });
    state
}

fn write(store: &mut Memory, version: u64, state: &mut LaneState) -> WriteOutcome {
    store.run(&mut WriteCheckpoint::new(LANE, version, Uuid::from_u128(7), state.take_changes()))
}

fn read(store: &Memory) -> Result<Loaded, HaltReason> {
    let checkpoint = Checkpoint::decode(store.get(&checkpoint_key(LANE)).unwrap()).unwrap();
    let sagas = checkpoint.head.open.iter().map(|id| store.get(&saga_key(LANE, *id)).cloned()).collect();
    restore(SUPPORTED_FOLD_VERSION, LANE, checkpoint, store.get(&definitions_key(LANE)), sagas)
}

fn keys(store: &Memory) -> Vec<&str> {
    store.iter().map(|(key, _)| key).collect()
}

fn corrupt(store: &Memory) -> String {
    match read(store) {
        Err(HaltReason::Corrupt(text)) => text,
        Err(other) => panic!("halts for another reason: {other}"),
        Ok(_) => panic!("does not halt"),
    }
}

#[test]
fn what_was_written_comes_back() {
    let (mut store, mut state) = (Memory::new(), state());
    start(&mut state, 0);
    start(&mut state, 2);
    assert_eq!(write(&mut store, 0, &mut state), WriteOutcome::Written);
    let loaded = read(&store).unwrap();
    assert_eq!((loaded.version, loaded.next), (1, Some(3)));
    assert_eq!(loaded.state, state);
    // The next one writes only what has changed, and the definitions are not among it.
    apply(&mut state, 2);
    let before = store.clone();
    assert_eq!(write(&mut store, 1, &mut state), WriteOutcome::Written);
    assert_eq!(read(&store).unwrap().state, state);
    assert_eq!(store.get(&saga_key(LANE, saga(0))), before.get(&saga_key(LANE, saga(0))));
    assert_eq!(store.get(&saga_key(LANE, saga(2))), None);
}

#[test]
fn a_checkpoint_of_somebody_else_fences() {
    let (mut store, mut mine) = (Memory::new(), state());
    let mut other = mine.clone();
    start(&mut other, 0);
    let changes = other.take_changes();
    store.run(&mut WriteCheckpoint::new(LANE, 0, Uuid::from_u128(99), changes));
    let before = store.clone();
    start(&mut mine, 0);
    apply(&mut mine, 0);
    assert_eq!(write(&mut store, 0, &mut mine), WriteOutcome::Fenced { found: 1 });
    assert_eq!(store, before, "a fenced checkpoint writes nothing");
    // Nor does one that expects a version where there is none.
    let mut wiped = Memory::new();
    assert_eq!(write(&mut wiped, 3, &mut mine), WriteOutcome::Fenced { found: 0 });
    assert_eq!(wiped, Memory::new());
}

#[test]
fn a_write_that_is_run_again_after_it_happened_is_written_once() {
    let (mut store, mut state) = (Memory::new(), state());
    let mut twice = WriteCheckpoint::new(LANE, 0, Uuid::from_u128(7), state.take_changes());
    assert_eq!(store.run(&mut twice), WriteOutcome::Written);
    let after = store.clone();
    assert_eq!(store.run(&mut twice), WriteOutcome::Written);
    assert_eq!(store, after);
}

#[test]
fn ended_sagas_are_deleted_although_this_loop_never_stored_them() {
    let ghost = saga_key(LANE, saga(0));
    let (mut store, mut state) = (Memory::new().with(ghost.clone(), "left by another"), state());
    start(&mut state, 0);
    apply(&mut state, 0);
    assert_eq!(write(&mut store, 0, &mut state), WriteOutcome::Written);
    assert_eq!(keys(&store), [checkpoint_key(LANE), definitions_key(LANE)]);
}

#[test]
fn what_cannot_be_a_state_halts_the_lane() {
    let (mut store, mut state) = (Memory::new(), state());
    start(&mut state, 0);
    write(&mut store, 0, &mut state);
    let head = Checkpoint::decode(store.get(&checkpoint_key(LANE)).unwrap()).unwrap();
    let key = saga_key(LANE, saga(0));

    // A saga of the checkpoint has ended: a ghost.
    let mut ghost = head.clone();
    ghost.head.ended.insert(ordinal(0).starter, EndedSequences::new(1, []));
    let text = corrupt(&store.clone().with(checkpoint_key(LANE), ghost.encode()));
    assert!(text.contains("has ended"), "{text}");

    // A saga that is open has no value, or one that cannot be read, or another one's.
    let mut missing = Memory::new();
    for (key_there, value) in store.iter().filter(|(name, _)| *name != key) {
        missing = missing.with(key_there, value.clone());
    }
    assert!(corrupt(&missing).contains("is missing"));
    assert!(corrupt(&store.clone().with(key.clone(), "x")).contains("malformed"));
    let mut other = state.clone();
    start(&mut other, 1);
    let mut with_other = Memory::new();
    write(&mut with_other, 0, &mut other);
    let value = with_other.get(&saga_key(LANE, saga(1))).unwrap().clone();
    assert!(corrupt(&store.clone().with(key.clone(), value)).contains("holds saga"));

    // A checkpoint of another lane; a text that is not there.
    let mut moved = head.clone();
    moved.head.lane = Lane(6);
    assert!(corrupt(&store.clone().with(checkpoint_key(LANE), moved.encode())).contains("lane 6"));
    let mut no_texts = Memory::new();
    for (name, value) in store.iter().filter(|(name, _)| *name != definitions_key(LANE)) {
        no_texts = no_texts.with(name, value.clone());
    }
    assert!(corrupt(&no_texts).contains("is not stored"));
}

#[test]
fn a_later_program_s_checkpoint_is_not_corrupt_but_unknown() {
    let (mut store, mut state) = (Memory::new(), state());
    write(&mut store, 0, &mut state);
    let mut head = Checkpoint::decode(store.get(&checkpoint_key(LANE)).unwrap()).unwrap();
    head.head.fold_version = 9;
    let later = store.clone().with(checkpoint_key(LANE), head.encode());
    assert!(matches!(read(&later), Err(HaltReason::UnknownFormat(_))));
    let unreadable = store.with(checkpoint_key(LANE), Bytes::from_static(&[8, 2]));
    let mut unreadable = unreadable;
    let outcome = write(&mut unreadable, 1, &mut state);
    assert!(matches!(outcome, WriteOutcome::Unreadable(HaltReason::UnknownFormat(_))), "{outcome:?}");
}

/// Checkpoints over a store in memory.
fn checkpoints(store: &Arc<Mutex<Memory>>) -> Checkpoints {
    let schedule = CheckpointSchedule::new(Instant::now(), Duration::from_secs(3_600), 1);
    let store = store.clone();
    let commit: Commit = Box::new(move |mut write| {
        let outcome = store.lock().unwrap().run(&mut write);
        Box::pin(std::future::ready(Ok(outcome)))
    });
    Checkpoints::with_commit(LANE, commit, schedule, 0, Uuid::new_v4())
}

#[tokio::test]
async fn a_snapshot_waits_for_the_receipts_before_it_and_the_next_one_for_the_snapshot() {
    let store = Arc::new(Mutex::new(Memory::new()));
    let (mut checkpoints, mut state) = (checkpoints(&store), state());
    let now = Instant::now();
    checkpoints.folded(1, now);
    start(&mut state, 0);
    let frozen_at = state.next_offset();
    checkpoints.freeze_if_due(&mut state, 2, now);

    // Folded on: the snapshot stays as it was, and a second one has to wait.
    start(&mut state, 1);
    checkpoints.folded(1, now);
    checkpoints.freeze_if_due(&mut state, 3, now);
    assert_eq!(state.changes_pending(), 1, "the second change was not taken out of the state");
    checkpoints.write_if_acknowledged(1);
    assert_eq!(keys(&store.lock().unwrap()), Vec::<&str>::new(), "a receipt is missing");

    checkpoints.write_if_acknowledged(2);
    checkpoints.written().await.unwrap();
    let stored = read(&store.lock().unwrap()).unwrap();
    assert_eq!((stored.next, stored.state.sagas().len()), (Some(frozen_at), 1));
    assert!(!checkpoints.is_settled());

    checkpoints.freeze_if_due(&mut state, 3, now);
    checkpoints.write_if_acknowledged(3);
    checkpoints.written().await.unwrap();
    assert_eq!(read(&store.lock().unwrap()).unwrap().state, state);
    assert!(checkpoints.is_settled());
}

#[tokio::test]
async fn a_fenced_loop_starts_again() {
    let store = Arc::new(Mutex::new(Memory::new()));
    let (mut mine, mut theirs) = (checkpoints(&store), checkpoints(&store));
    let (mut state, now) = (state(), Instant::now());
    for checkpoints in [&mut theirs, &mut mine] {
        checkpoints.folded(1, now);
        checkpoints.freeze_now(&mut state, 0, now);
        checkpoints.write_if_acknowledged(0);
    }
    theirs.written().await.unwrap();
    let fault = mine.written().await.unwrap_err();
    assert!(matches!(&fault, LaneFault::Restart(why) if why.starts_with("fenced")), "{fault}");
}

#[test]
fn an_idle_lane_freezes_nothing() {
    let store = Arc::new(Mutex::new(Memory::new()));
    let (mut checkpoints, mut state) = (checkpoints(&store), state());
    let later = Instant::now() + Duration::from_secs(7_200);
    checkpoints.freeze_if_due(&mut state, 0, later);
    checkpoints.freeze_now(&mut state, 0, later);
    assert!(checkpoints.is_settled() && checkpoints.due_at().is_none());
}
