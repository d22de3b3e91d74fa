//! The two transactions together, over a store in memory, with the smallest business there is: a thing that is free,
//! or taken by a saga.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use event_stream::HaltReason;
use proptest::prelude::*;
use proto::Wire;
use redis_txn::{Memory, STORE_ID_KEY, Unread, View};
use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::{MAX_INPUTS_BYTES, SagaOutcome, SagaResult, UndoNotice};
use saga_core::starter::{PendingStart, StarterLane};
use uuid::Uuid;

use crate::apply::{BatchOutcome, Fate, Ignored, Incoming, News, ResultBatch};
use crate::business::{Application, Business, Decision, Plan};
use crate::keys::{lane_key, pending_key};
use crate::lanes::Open;
use crate::start::{Decided, Interest, Member, WindowOutcome, WindowTransaction};

const LANE: Lane = Lane(7);

struct Things;

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
        let Some(value) = view.get(&key)? else { return Ok(Decision::Answer(())) };
        if !value.is_empty() {
            return Ok(Decision::Join(SagaId(Uuid::from_slice(&value).unwrap())));
        }
        view.set(key, Bytes::copy_from_slice(saga.0.as_bytes()));
        let bytes = if request == "huge" { MAX_INPUTS_BYTES + 1 } else { 0 };
        let inputs = BTreeMap::from([("take".to_owned(), vec![0; bytes].into())]);
        Ok(Decision::Start(Plan { definition: "take".into(), inputs }))
    }
    fn apply(&self, view: &mut View<'_>, subject: &str, result: &SagaResult) -> Result<Application, Unread> {
        let key = format!("thing:{subject}");
        match view.get(&key)? {
            Some(value) if value == result.saga.0.as_bytes()[..] => {
                view.set(key, Bytes::new());
                Ok(Application::Applied)
            }
            Some(value) if value == "?" => Ok(Application::Unreadable(HaltReason::UnknownFormat("?".into()))),
            Some(_) | None => Ok(Application::NotCurrent),
        }
    }
    fn undoing(&self, view: &mut View<'_>, subject: &str, _notice: &UndoNotice) -> Result<Application, Unread> {
        view.set(format!("undoing:{subject}"), "yes");
        Ok(Application::Applied)
    }
}

fn saga(number: u128) -> SagaId {
    SagaId(Uuid::from_u128(number))
}

fn starter() -> Starter {
    Starter { name: "order".into(), store: Uuid::from_u128(99) }
}

fn store(things: &[&str]) -> Memory {
    let memory = Memory::new().with(STORE_ID_KEY, Uuid::from_u128(99).to_string());
    things.iter().fold(memory, |memory, thing| memory.with(format!("thing:{thing}"), Bytes::new()))
}

fn window(members: &[(u128, &str)]) -> WindowTransaction<Things> {
    let members = members.iter().map(|(number, thing)| {
        let request = (*thing).to_owned();
        Arc::new(Member { saga: saga(*number), request, trace: TraceContext::default(), interest: Interest::default() })
    });
    WindowTransaction {
        business: Arc::new(Things),
        starter: starter(),
        results_topic: "order.results".into(),
        lane: LANE,
        members: members.collect(),
    }
}

fn result(number: u128, sequence: u64) -> SagaResult {
    let ordinal = Ordinal { starter: starter(), lane: LANE, sequence };
    SagaResult { saga: saga(number), ordinal, outcome: SagaOutcome::Completed, trace: TraceContext::default() }
}

fn batch(expected: i64, results: Vec<SagaResult>) -> ResultBatch<Things> {
    let results = (expected..)
        .zip(results)
        .map(|(offset, result)| Incoming {
            offset,
            news: News::Ended(Arc::new(result)),
            known: None,
            span: tracing::Span::none(),
        })
        .collect::<Vec<_>>();
    let next = expected + results.len() as i64;
    ResultBatch { business: Arc::new(Things), starter: starter(), lane: LANE, expected, next, results }
}

fn lane_of(store: &Memory) -> StarterLane {
    store.get(&lane_key(LANE)).map(|bytes| StarterLane::decode(bytes).unwrap()).unwrap_or_default()
}

fn committed(outcome: WindowOutcome<()>) -> (Vec<Decided<()>>, Vec<PendingStart>) {
    match outcome {
        WindowOutcome::Committed { decided, pending } => (decided, pending),
        WindowOutcome::Corrupt(why) => panic!("{why}"),
    }
}

/// Its client may have been told by another process what became of the order, and a saga that begins afterwards would make
/// that untrue.
#[test]
fn a_request_whose_client_has_gone_starts_nothing() {
    let mut store = store(&["a", "b"]);
    let (holder, gone) = (Arc::new(()), Interest::of(&Arc::new(())));
    let mut window = window(&[(1, "a"), (2, "b")]);
    for (member, interest) in window.members.iter_mut().zip([gone, Interest::of(&holder)]) {
        Arc::get_mut(member).unwrap().interest = interest;
    }
    let (decided, pending) = committed(store.run(&mut window));
    assert!(matches!(decided[..], [Decided::Abandoned, Decided::Started]), "{decided:?}");
    assert_eq!(pending.iter().map(|entry| entry.start.saga).collect::<Vec<_>>(), [saga(2)]);
    assert_eq!(lane_of(&store).next_sequence, 1);
}

#[test]
fn a_window_counts_densely_and_stores_whole_starts() {
    let mut store = store(&["a", "b", "c"]);
    let (decided, pending) = committed(store.run(&mut window(&[(1, "a"), (2, "gone"), (3, "b"), (4, "a")])));
    assert!(matches!(decided[..], [Decided::Started, Decided::Answered(()), Decided::Started, Decided::Joins(first)]
        if first == saga(1)));
    assert_eq!(lane_of(&store).next_sequence, 2, "only sagas take a sequence");
    for (sequence, entry) in pending.iter().enumerate() {
        let stored = store.get(&pending_key(LANE, sequence as u64)).unwrap();
        assert_eq!(&PendingStart::decode(stored).unwrap(), entry);
        assert_eq!(entry.start.ordinal.sequence, sequence as u64);
    }
    assert_eq!((pending[1].start.saga, pending[1].subject.as_str()), (saga(3), "b"));
    let (_, pending) = committed(store.run(&mut window(&[(5, "c")])));
    assert_eq!(pending[0].start.ordinal.sequence, 2);
}

#[test]
#[should_panic(expected = "bytes of inputs")]
fn a_start_that_fits_in_no_record_is_never_pending() {
    store(&["huge"]).run(&mut window(&[(1, "huge")]));
}

#[test]
fn a_replaced_store_starts_nothing() {
    for replaced in [Memory::new(), Memory::new().with(STORE_ID_KEY, Uuid::from_u128(1).to_string())] {
        let mut replaced = replaced.with("thing:a", Bytes::new());
        let before = replaced.clone();
        assert!(matches!(replaced.run(&mut window(&[(1, "a")])), WindowOutcome::Corrupt(_)));
        assert_eq!(replaced, before);
    }
}

#[test]
fn a_result_ends_its_sequence_once() {
    let mut store = store(&["a", "b"]);
    committed(store.run(&mut window(&[(1, "a"), (2, "b")])));
    let outcome = store.run(&mut batch(0, vec![result(2, 1), result(2, 1)]));
    let fates = vec![Fate::Applied, Fate::Ignored(Ignored::Duplicate)];
    assert_eq!(outcome, BatchOutcome::Committed { fates, halt: None });
    let lane = lane_of(&store);
    assert_eq!((lane.results_next, lane.pending().collect::<Vec<_>>()), (2, vec![0]));
    assert!(store.get(&pending_key(LANE, 1)).is_none() && store.get(&pending_key(LANE, 0)).is_some());
    assert!(store.get("thing:b").unwrap().is_empty());
}

#[test]
fn a_notice_is_told_to_the_subject_and_ends_nothing() {
    let mut store = store(&["a"]);
    committed(store.run(&mut window(&[(1, "a")])));
    let ordinal = Ordinal { starter: starter(), lane: LANE, sequence: 0 };
    let notice = UndoNotice { saga: saga(1), ordinal, trace: TraceContext::default() };
    let told = |position| {
        let mut batch = batch(position, vec![result(1, 0)]);
        batch.results[0].news = News::Undoing(Arc::new(notice.clone()));
        batch
    };
    for position in [0, 1] {
        let outcome = store.run(&mut told(position));
        assert_eq!(outcome, BatchOutcome::Committed { fates: vec![Fate::Applied], halt: None });
        let lane = lane_of(&store);
        assert_eq!((lane.results_next, lane.pending().collect::<Vec<_>>()), (position + 1, vec![0]));
        assert!(store.get(&pending_key(LANE, 0)).is_some());
        assert!(store.get("undoing:a").is_some());
    }
    store.run(&mut batch(2, vec![result(1, 0)]));
    let late = store.run(&mut told(3));
    let fates = vec![Fate::Ignored(Ignored::Duplicate)];
    assert_eq!(late, BatchOutcome::Committed { fates, halt: None });
}

#[test]
fn another_position_fences_the_batch() {
    let mut store = store(&["a"]);
    committed(store.run(&mut window(&[(1, "a")])));
    store.run(&mut batch(0, vec![result(9, 9)]));
    let before = store.clone();
    assert_eq!(store.run(&mut batch(0, vec![result(1, 0)])), BatchOutcome::Fenced { found: 1 });
    assert_eq!(store, before);
}

#[test]
fn what_cannot_be_ours_moves_the_position_and_nothing_else() {
    let mut store = store(&["a"]);
    committed(store.run(&mut window(&[(1, "a")])));
    let mut wiped = result(1, 0);
    wiped.ordinal.starter.store = Uuid::from_u128(98);
    let mut elsewhere = result(1, 0);
    elsewhere.ordinal.lane = Lane(8);
    let table = [
        (wiped, Ignored::OtherStarter),
        (elsewhere, Ignored::OtherLane),
        (result(1, 5), Ignored::NeverStarted),
        (result(2, 0), Ignored::OtherSaga),
    ];
    for (position, (result, why)) in (0..).zip(table) {
        let outcome = store.run(&mut batch(position, vec![result]));
        assert_eq!(outcome, BatchOutcome::Committed { fates: vec![Fate::Ignored(why)], halt: None });
        let lane = lane_of(&store);
        assert_eq!((lane.results_next, lane.pending().count()), (position + 1, 1));
    }
}

#[test]
fn a_subject_that_waits_for_another_saga_is_left_alone_and_the_sequence_ends() {
    let mut store = store(&["a"]);
    committed(store.run(&mut window(&[(1, "a")])));
    store = store.with("thing:a", Bytes::copy_from_slice(saga(5).0.as_bytes()));
    let outcome = store.run(&mut batch(0, vec![result(1, 0)]));
    let fates = vec![Fate::Ignored(Ignored::NotCurrent)];
    assert_eq!(outcome, BatchOutcome::Committed { fates, halt: None });
    assert_eq!(lane_of(&store).pending().count(), 0);
    assert_eq!(store.get("thing:a").unwrap()[..], saga(5).0.as_bytes()[..]);
}

#[test]
fn a_subject_that_cannot_be_read_stops_the_batch_where_it_is() {
    let mut store = store(&["a", "b", "c"]);
    committed(store.run(&mut window(&[(1, "a"), (2, "b"), (3, "c")])));
    store = store.with("thing:b", "?");
    let outcome = store.run(&mut batch(0, vec![result(1, 0), result(2, 1), result(3, 2)]));
    let halt = Some(HaltReason::UnknownFormat("?".into()));
    assert_eq!(outcome, BatchOutcome::Committed { fates: vec![Fate::Applied], halt });
    let lane = lane_of(&store);
    assert_eq!((lane.results_next, lane.pending().collect::<Vec<_>>()), (1, vec![1, 2]));
}

#[test]
fn values_of_a_later_program_are_not_called_damaged() {
    for (key, value) in [(lane_key(LANE), &b"\x08\x02"[..]), (pending_key(LANE, 0), b"\x08\x02")] {
        let mut store = store(&["a"]);
        committed(store.run(&mut window(&[(1, "a")])));
        store = store.with(&key, value);
        let BatchOutcome::Committed { halt, .. } = store.run(&mut batch(0, vec![result(1, 0)])) else {
            panic!("fenced")
        };
        assert!(matches!(&halt, Some(HaltReason::UnknownFormat(why)) if why.contains(&key)), "{halt:?}");
    }
}

#[test]
fn an_empty_batch_claims_the_lane() {
    let mut store = store(&[]);
    store.run(&mut batch(0, Vec::new()));
    assert!(store.get(&lane_key(LANE)).is_some());
}

proptest! {
    /// Whatever starts and ends in whatever order and however often: what is pending has an entry, what has ended has
    /// none, and no thing stays taken by a saga that has ended.
    #[test]
    fn every_sequence_ends_once(steps in prop::collection::vec((0_u8..4, 0_u64..12, any::<bool>()), 1..60)) {
        let names = ["a", "b", "c", "d"];
        let mut store = store(&names);
        let mut sagas: Vec<(u128, String)> = Vec::new();
        let mut position = 0;
        for (thing, sequence, starts) in steps {
            let remembered = usize::try_from(sequence).unwrap();
            if starts {
                let number = 1_000 + sagas.len() as u128;
                let (_, pending) = committed(store.run(&mut window(&[(number, names[thing as usize])])));
                sagas.extend(pending.into_iter().map(|entry| (number, entry.subject)));
            } else if let Some((number, subject)) = sagas.get(remembered) {
                let mut batch = batch(position, vec![result(*number, sequence)]);
                // With and without the memory of the process: the same.
                let open = Open { saga: saga(*number), subject: subject.as_str().into(), since: Instant::now(), is_delivered: true };
                batch.results[0].known = (thing % 2 == 0).then_some(open);
                store.run(&mut batch);
                position += 1;
            }
            let lane = lane_of(&store);
            prop_assert_eq!(lane.next_sequence, sagas.len() as u64);
            prop_assert_eq!(lane.results_next, position);
            for (sequence, (number, subject)) in (0..).zip(&sagas) {
                let is_pending = !lane.ended.contains(sequence);
                prop_assert_eq!(store.get(&pending_key(LANE, sequence)).is_some(), is_pending);
                let holder = store.get(&format!("thing:{subject}")).unwrap();
                prop_assert_eq!(holder[..] == saga(*number).0.as_bytes()[..], is_pending);
            }
        }
    }
}
