use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::transaction::{Unread, View};

/// Says which lane it came from (`None`: REST) and the how-manieth it was.
struct Numbered(u32);

impl Transaction for Numbered {
    type Outcome = u32;
    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(format!("key:{}", self.0));
    }
    fn apply(&mut self, _view: &mut View<'_>) -> Result<u32, Unread> {
        Ok(self.0)
    }
}

const MANY_KEYS: usize = 100_000;

fn handles() -> Arc<Handles> {
    Arc::new(Handles { shared: Arc::new(Shared::new("127.0.0.1:1")) })
}

type Run = std::pin::Pin<Box<dyn Future<Output = Result<u32, CommitError>> + Send>>;

/// Hands in and polls once.
fn hand_in(queue: &Queue, number: u32) -> (Run, Poll<Result<u32, CommitError>>) {
    let mut run: Run = Box::pin(queue.run(Numbered(number)));
    let polled = poll(&mut run);
    (run, polled)
}

fn poll(run: &mut Run) -> Poll<Result<u32, CommitError>> {
    run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn take(shared: &Shared, transactions: usize) -> Vec<Entry> {
    let mut batch = Vec::new();
    shared.take(&mut batch, Room { transactions, watched_keys: MANY_KEYS });
    batch
}

fn count(batch: &[Entry], origin: Origin) -> usize {
    batch.iter().filter(|entry| entry.origin == origin).count()
}

/// Applies the batch to nothing and answers it.
fn commit(mut batch: Vec<Entry>) {
    crate::plan::apply_in_order(&mut crate::plan::Overlay::default(), &mut batch);
    batch.iter_mut().for_each(Entry::commit);
}

#[test]
fn queues_are_served_in_equal_shares() {
    let handles = handles();
    let (rest, one, two) =
        (Queue::rest(handles.clone()), Queue::lane(handles.clone(), 1), Queue::lane(handles.clone(), 2));
    let mut runs = Vec::new();
    for number in 0..30 {
        for queue in [&rest, &one, &two] {
            runs.push(hand_in(queue, number));
        }
    }
    let batch = take(&handles.shared, 30);
    for origin in [rest.origin, one.origin, two.origin] {
        assert_eq!(count(&batch, origin), 10, "{origin:?}");
    }
}

#[test]
fn lanes_that_are_nearly_full_go_first_and_leave_a_share_to_rest() {
    let handles = handles();
    let (rest, lane) = (Queue::rest(handles.clone()), Queue::lane(handles.clone(), 1));
    let mut runs = Vec::new();
    for number in 0..u32::try_from(LANE_QUEUE).unwrap() {
        runs.push(hand_in(&rest, number));
        runs.push(hand_in(&lane, number));
    }
    let batch = take(&handles.shared, 32);
    assert_eq!(count(&batch, Origin::Rest), 32 / REST_SHARE);
    assert_eq!(count(&batch, lane.origin), 32 - 32 / REST_SHARE);
}

#[test]
fn a_batch_has_room_for_so_many_keys_and_for_one_transaction_with_more() {
    let handles = handles();
    let lane = Queue::lane(handles.clone(), 1);
    let _runs: Vec<_> = (0..5).map(|number| hand_in(&lane, number)).collect();
    let mut batch = Vec::new();
    handles.shared.take(&mut batch, Room { transactions: 9, watched_keys: 3 });
    assert_eq!(batch.len(), 3);
    let mut batch = Vec::new();
    handles.shared.take(&mut batch, Room { transactions: 9, watched_keys: 0 });
    assert_eq!(batch.len(), 1);
}

#[test]
fn a_full_rest_queue_is_answered_at_once() {
    let handles = handles();
    let rest = Queue::rest(handles.clone());
    let _runs: Vec<_> = (0..u32::try_from(REST_QUEUE).unwrap()).map(|number| hand_in(&rest, number)).collect();
    assert!(matches!(hand_in(&rest, 0).1, Poll::Ready(Err(CommitError::Full))));
    take(&handles.shared, 1);
    assert!(hand_in(&rest, 0).1.is_pending());
}

#[test]
fn a_full_lane_queue_holds_back_and_keeps_the_order() {
    let handles = handles();
    let lane = Queue::lane(handles.clone(), 1);
    let capacity = u32::try_from(LANE_QUEUE).unwrap();
    let mut runs: Vec<_> = (0..capacity + 3).map(|number| hand_in(&lane, number).0).collect();
    assert_eq!(take(&handles.shared, 1_000).len(), LANE_QUEUE, "the last three stand in line");
    // There is room for all three now; the last one is polled first and may not overtake.
    let mut last = Vec::new();
    for _ in 0..3 {
        runs[LANE_QUEUE..].iter_mut().rev().for_each(|run| assert!(poll(run).is_pending()));
        last.extend(take(&handles.shared, 1_000));
    }
    let order: Vec<_> = last.iter().map(|entry| entry.handed_in).collect();
    assert_eq!(order.len(), 3);
    commit(last);
    for (run, number) in runs[LANE_QUEUE..].iter_mut().zip(capacity..) {
        assert!(matches!(poll(run), Poll::Ready(Ok(outcome)) if outcome == number));
    }
    assert!(order.is_sorted());
}

#[test]
fn a_dropped_caller_does_not_take_its_transaction_away() {
    let handles = handles();
    let lane = Queue::lane(handles.clone(), 1);
    drop(hand_in(&lane, 1));
    assert_eq!(take(&handles.shared, 10).len(), 1);
}

#[test]
fn nothing_is_handed_in_before_the_first_poll() {
    let handles = handles();
    let lane = Queue::lane(handles.clone(), 1);
    let run = lane.run(Numbered(1));
    assert!(take(&handles.shared, 10).is_empty());
    let mut run = pin!(run);
    assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(take(&handles.shared, 10).len(), 1);
}

#[test]
fn after_the_end_everybody_is_answered() {
    let handles = handles();
    let (lane, rest) = (Queue::lane(handles.clone(), 1), Queue::rest(handles.clone()));
    let mut waiting = hand_in(&lane, 1).0;
    handles.shared.end();
    assert!(matches!(poll(&mut waiting), Poll::Ready(Err(CommitError::Closed))));
    assert!(matches!(hand_in(&lane, 2).1, Poll::Ready(Err(CommitError::Closed))));
    assert!(matches!(hand_in(&rest, 2).1, Poll::Ready(Err(CommitError::Closed))));
}

#[test]
fn only_rest_requests_lose_patience() {
    let handles = handles();
    let (lane, rest) = (Queue::lane(handles.clone(), 1), Queue::rest(handles.clone()));
    let (mut of_lane, mut of_rest) = (hand_in(&lane, 1).0, hand_in(&rest, 1).0);
    handles.shared.expire(Duration::from_secs(60), false);
    assert!(poll(&mut of_rest).is_pending());
    handles.shared.expire(Duration::ZERO, false);
    assert!(matches!(poll(&mut of_rest), Poll::Ready(Err(CommitError::Unavailable(_)))));
    assert!(poll(&mut of_lane).is_pending());
    handles.shared.expire(Duration::ZERO, true);
    assert!(matches!(poll(&mut of_lane), Poll::Ready(Err(CommitError::Unavailable(_)))));
    assert!(take(&handles.shared, 10).is_empty());
}

/// Reads so many keys.
struct Wide(u32);

impl Transaction for Wide {
    type Outcome = ();
    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend((0..self.0).map(|key| format!("key:{key}")));
    }
    fn apply(&mut self, _view: &mut View<'_>) -> Result<(), Unread> {
        Ok(())
    }
}

/// Two of them do not fit into one batch, and requests are in every batch.
#[test]
fn no_lane_starves_for_its_keys() {
    let handles = handles();
    let rest = Queue::rest(handles.clone());
    let lanes = [1, 2, 3].map(|lane| Queue::lane(handles.clone(), lane));
    let mut waiting = [false; 3];
    let (mut served, mut runs) = ([0; 3], Vec::new());
    for round in 0..30 {
        // Whoever was served in the last batch hands in again only after the next one was taken.
        for (lane, queue) in lanes.iter().enumerate().filter(|(lane, _)| round % 2 == 0 || *lane != 0) {
            if !std::mem::replace(&mut waiting[lane], true) {
                let mut run = Box::pin(queue.run(Wide(65)));
                assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                runs.push(run);
            }
        }
        runs.push({
            let mut run = Box::pin(rest.run(Wide(1)));
            assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            run
        });
        let mut batch = Vec::new();
        handles.shared.take(&mut batch, Room { transactions: 256, watched_keys: 128 });
        for (lane, number) in [1, 2, 3].into_iter().enumerate() {
            if count(&batch, Origin::Lane(number)) > 0 {
                waiting[lane] = false;
                served[lane] += 1;
            }
        }
        assert_eq!(count(&batch, Origin::Rest), 1);
    }
    assert!(served.iter().all(|times| *times >= 7), "{served:?}");
}
