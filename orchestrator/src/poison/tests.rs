use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use event_stream::Outgoing;
use proto::quarantine::{QUARANTINE, Quarantined};
use redis_txn::Memory;
use saga_core::ids::{CommandId, Direction, Ordinal, SagaId, Starter};
use saga_core::lane::{LaneState, SUPPORTED_FOLD_VERSION};
use saga_core::record::{DeadlineKind, Outcome, Reply, Start, Timer};
use saga_core::saga::AttentionCause;
use uuid::Uuid;

use super::*;
use crate::checkpoint::{
    Checkpoints, WriteCheckpoint, WriteOutcome, checkpoint_key, definitions_key, restore, saga_key,
};
use crate::decide::CheckpointSchedule;
use crate::definitions::Definitions;
use crate::fold::FoldFault;
use crate::summary::{Summaries, SummaryRule};

const LANE: Lane = Lane(2);
const TEXT: &str = "name: buy\nversion: 1\ndeadline_ms: 20000\nsteps:\n  - name: reserve\n    participant: stock\n";

fn saga(number: u64) -> SagaId {
    SagaId(Uuid::from_u128(u128::from(number) + 1))
}

fn ordinal(sequence: u64) -> Ordinal {
    Ordinal { starter: Starter { name: "order".to_owned(), store: Uuid::nil() }, lane: LANE, sequence }
}

fn start(number: u64) -> InboxEvent {
    InboxEvent::Start(Start {
        saga: saga(number),
        ordinal: ordinal(number),
        definition: "buy".to_owned(),
        inputs: BTreeMap::from([("reserve".to_owned(), Bytes::from_static(b"two"))]),
        results_topic: "order.results".to_owned(),
        trace: TraceContext::default(),
    })
}

fn applied(number: u64) -> InboxEvent {
    let id = CommandId { saga: saga(number), step: "reserve".to_owned(), direction: Direction::Action };
    InboxEvent::Reply(Reply { id, ordinal: ordinal(number), outcome: Outcome::Applied { output: Bytes::new() } })
}

fn log(values: impl IntoIterator<Item = Bytes>) -> Vec<Record> {
    let record = |(offset, payload)| Record { offset, timestamp_ms: 1_000 + offset, payload, headers: Vec::new() };
    (0..).zip(values).map(record).collect()
}

fn activate() -> Bytes {
    InboxEvent::Activate { text: TEXT.to_owned() }.encode()
}

/// A store for the checkpoints of one lane.
type Disk = Arc<Mutex<Memory>>;

/// The lane as its next owner finds it.
fn load(disk: &Disk) -> LaneCore {
    let stored = disk.lock().unwrap();
    let (state, version) = match stored.get(&checkpoint_key(LANE)) {
        None => (LaneState::new(LANE), 0),
        Some(head) => {
            let checkpoint = proto::checkpoint::Checkpoint::decode(head).unwrap();
            let sagas = checkpoint.head.open.iter().map(|id| stored.get(&saga_key(LANE, *id)).cloned()).collect();
            let loaded =
                restore(SUPPORTED_FOLD_VERSION, LANE, checkpoint, stored.get(&definitions_key(LANE)), sagas).unwrap();
            (loaded.state, loaded.version)
        }
    };
    let position = state.next_offset();
    let (now, disk) = (Instant::now(), disk.clone());
    let schedule = CheckpointSchedule::new(now, Duration::from_secs(3_600), 1_000_000);
    let commit = move |mut write: WriteCheckpoint| -> crate::checkpoint::Write {
        let outcome: WriteOutcome = disk.lock().unwrap().run(&mut write);
        Box::pin(std::future::ready(Ok(outcome)))
    };
    let checkpoints = Checkpoints::with_commit(LANE, Box::new(commit), schedule, version, Uuid::nil());
    let summaries = SummaryRule { which: Summaries::Off, slow_ms: 0 };
    LaneCore::new(state, position, checkpoints, Arc::new(Definitions::default()), summaries, now)
}

/// What the loop does for a checkpoint that is due, if one is: everything sent is acknowledged at once.
fn write_checkpoint(core: &mut LaneCore) -> bool {
    core.keep_checkpoint(0, 0, Instant::now());
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(written) = pin!(core.checkpoints.written()).poll(&mut context) else { return false };
    core.checkpoint_written(written.unwrap(), Instant::now());
    true
}

fn quarantined(core: &mut LaneCore) -> Vec<Quarantined> {
    let sent: Vec<Outgoing> = core.emitter.take();
    let there = sent.iter().filter(|record| &*record.topic == QUARANTINE);
    there.map(|record| Quarantined::decode(&record.payload).unwrap()).collect()
}

fn fold(core: &mut LaneCore, records: &[Record]) -> Result<usize, FoldFault> {
    core.fold(records, Mode::Live, Instant::now())
}

/// Panics at this offset; half a change is made before, by the fold itself, of which nothing may be left.
fn fragile(disk: &Disk, offset: i64) -> LaneCore {
    let mut core = load(disk);
    core.set_probe(Some(Arc::new(move |record: &InboxRecord| assert!(record.offset != offset, "planted"))));
    core
}

#[test]
fn nothing_is_folded_behind_garbage_before_a_checkpoint() {
    let disk = Disk::default();
    let records = log([activate(), "rubbish".into(), "more rubbish".into(), start(0).encode()]);
    let mut core = load(&disk);
    assert_eq!(fold(&mut core, &records), Ok(3), "all that is garbage is passed in one go");
    assert!(core.owes_checkpoint() && core.state().saga(saga(0)).is_none());
    assert_eq!(fold(&mut core, &records[3..]), Ok(0), "still not written");
    let reasons: Vec<i64> = quarantined(&mut core).iter().map(|record| record.offset).collect();
    assert_eq!(reasons, [1, 2]);
    assert!(write_checkpoint(&mut core), "owed, although it is not due");
    assert!(!core.owes_checkpoint());
    // The next owner never sees it, whatever it could make of it.
    assert_eq!(load(&disk).position(), 3);
    assert_eq!(fold(&mut core, &records[3..]), Ok(1));
    assert!(core.state().saga(saga(0)).is_some());
    assert!(!write_checkpoint(&mut core), "nothing is owed any more");
}

#[test]
fn a_checkpoint_under_way_does_not_count_as_the_one_that_is_owed() {
    let disk = Disk::default();
    let mut core = load(&disk);
    let records = log([activate(), start(0).encode(), "rubbish".into(), start(1).encode()]);
    assert_eq!(fold(&mut core, &records[..2]), Ok(2));
    // Frozen before the garbage; its receipts come later.
    core.checkpoints.freeze_now(&mut core.state, 5, Instant::now());
    assert_eq!(fold(&mut core, &records[2..]), Ok(1));
    core.keep_checkpoint(5, 5, Instant::now());
    assert!(write_checkpoint(&mut core));
    assert!(core.owes_checkpoint(), "the older one is written, the owed one is not");
    assert_eq!(fold(&mut core, &records[3..]), Ok(0));
    core.keep_checkpoint(5, 5, Instant::now());
    assert!(write_checkpoint(&mut core) && !core.owes_checkpoint());
    assert_eq!(load(&disk).position(), 3);
}

#[test]
fn a_record_that_panics_is_tried_three_times_and_its_saga_held() {
    let (disk, suspects) = (Disk::default(), Suspects::default());
    let records = log([activate(), start(0).encode(), start(1).encode(), applied(0).encode(), applied(1).encode()]);
    let mut core = fragile(&disk, 3);
    assert_eq!(suspects.of(LANE, core.position()), None);
    let Err(FoldFault::Panicked { offset: 3, why }) = fold(&mut core, &records) else { panic!("no panic") };
    assert_eq!(suspects.panicked(LANE, 3, why), 1);
    let mut core = fragile(&disk, 3);
    assert_eq!(suspects.of(LANE, core.position()), Some((3, None)));
    core.suspect(3);
    assert_eq!(core.fold(&records, Mode::Silent, Instant::now()), Ok(3));
    for tries in 2..=MAX_TRIES {
        let (offset, why) = core.take_panic().expect("it panics alone");
        assert_eq!((offset, suspects.panicked(LANE, 3, why)), (3, tries));
        // Nothing is taken back from the log for another try.
        assert_eq!((core.take_panic(), core.position()), (None, 3));
        assert_eq!(core.fold(&records[3..], Mode::Silent, Instant::now()), Ok(0));
    }
    let (offset, why) = suspects.of(LANE, core.position()).unwrap();
    core.shun(offset, why.expect("it has had its tries"));
    assert_eq!(core.fold(&records[3..], Mode::Silent, Instant::now()), Ok(1), "not past it");
    let [set_aside] = quarantined(&mut core).try_into().unwrap();
    assert_eq!((set_aside.topic.as_str(), set_aside.partition, set_aside.offset), (INBOX, 2, 3));
    assert_eq!(set_aside.payload, applied(0).encode());
    assert!(set_aside.reason.contains("planted"), "{}", set_aside.reason);
    let held = core.state().saga(saga(0)).unwrap();
    assert_eq!(held.attention.unwrap().cause, AttentionCause::SetAside);
    assert!(held.awaits(0).is_some(), "nothing of the record has happened");
    assert!(write_checkpoint(&mut core));
    // The other saga is not harmed, and the next owner, whatever it can fold, starts behind the record.
    assert_eq!(fold(&mut core, &records[4..]), Ok(1));
    assert!(core.state().saga(saga(1)).is_none(), "it has completed");
    let mut next = load(&disk);
    assert_eq!((next.position(), suspects.of(LANE, 4)), (4, None));
    next.queue_recovery(Instant::now());
    let asked = next.emitter.take();
    let commands = asked.iter().filter(|record| &*record.topic == "stock.commands").count();
    assert_eq!(commands, 1, "the held saga is not asked for again, the other one is");
}

#[test]
fn a_suspect_that_no_longer_panics_is_folded() {
    let disk = Disk::default();
    let records = log([activate(), start(0).encode(), applied(0).encode()]);
    let mut core = load(&disk);
    core.suspect(2);
    assert_eq!(fold(&mut core, &records), Ok(3));
    assert_eq!(core.take_panic(), None);
    assert!(core.state().saga(saga(0)).is_none(), "it has completed");
}

#[test]
fn a_record_whose_saga_cannot_be_marked_either_is_passed_all_the_same() {
    let disk = Disk::default();
    let records = log([activate(), start(0).encode(), "rubbish".into()]);
    let mut core = load(&disk);
    fold(&mut core, &records[..2]).unwrap();
    core.shun(2, "planted".to_owned());
    assert_eq!(fold(&mut core, &records[2..]), Ok(1));
    assert_eq!(core.state().saga(saga(0)).unwrap().attention, None);
    assert_eq!((core.state().next_offset(), quarantined(&mut core).len()), (3, 1));
}

#[test]
fn every_record_has_its_own_count() {
    let suspects = Suspects::default();
    for _ in 1..MAX_TRIES {
        suspects.panicked(LANE, 7, "x".to_owned());
        suspects.panicked(Lane(3), 7, "x".to_owned());
    }
    assert_eq!(suspects.panicked(LANE, 8, "x".to_owned()), 1);
    assert_eq!(suspects.of(LANE, 0), Some((8, None)));
    assert_eq!(suspects.panicked(Lane(3), 7, "x".to_owned()), MAX_TRIES);
    assert_eq!(suspects.of(Lane(3), 7), Some((7, Some("x".to_owned()))));
    assert_eq!(suspects.of(Lane(3), 8), None, "the lane is past it");
}

#[test]
fn a_timer_that_was_set_aside_does_not_come_again_at_once() {
    let disk = Disk::default();
    let timer = Timer { saga: saga(0), kind: DeadlineKind::Saga, armed_by: 1 };
    let mut records =
        log([activate(), start(0).encode(), start(1).encode(), InboxEvent::Timer(timer.clone()).encode()]);
    // By now the deadline has passed.
    records[2].timestamp_ms = 30_000;
    records[3].timestamp_ms = 30_000;
    let mut core = load(&disk);
    core.shun(3, "planted".to_owned());
    assert_eq!(fold(&mut core, &records), Ok(4));
    let later = Instant::now() + Duration::from_secs(1);
    let appended = |core: &mut LaneCore, now: Instant| {
        core.emitter.take();
        core.queue_due(now);
        let events = core.emitter.take();
        events.iter().any(|record| InboxEvent::decode(&record.payload) == Ok(InboxEvent::Timer(timer.clone())))
    };
    assert!(!appended(&mut core, later), "it would panic as fast as the lane can run");
    assert!(appended(&mut core, later + crate::upkeep::TIMER_RETRY), "but the deadline stands");
}
