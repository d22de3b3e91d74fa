//! The bounded queue between a fetcher and one run of a lane loop.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::error::LaneFault;
use crate::lane::LaneCell;
use crate::record::Record;

/// From this many waiting records on the lane is paused at its consumer: a few transactions' worth.
const PAUSE_AT_RECORDS: usize = 1000;
/// From this many waiting bytes on the lane is paused: a hundred lanes together stay below 100 MiB.
const PAUSE_AT_BYTES: usize = 1024 * 1024;
/// A paused lane is resumed when it has this part left, so that it need not run dry.
const RESUME_PART: usize = 4;
/// Most records of one event: more would only delay the first of them.
const MAX_EVENT_RECORDS: usize = 512;

/// What a fetcher tells a lane.
pub(crate) enum Item {
    Records(Vec<Record>),
    End,
    Fault(LaneFault),
}

/// Filled by one fetcher, emptied by one lane loop. It never refuses: the fetcher pauses the lane instead, and what it
/// may still hand over after that is bounded by one round of polling.
pub(crate) struct Inbox {
    pub(crate) cell: Arc<LaneCell>,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    records: usize,
    bytes: usize,
    paused: bool,
}

/// An item for the lane, and whether its consumer may go on fetching.
pub(crate) struct Popped {
    pub(crate) item: Item,
    pub(crate) resume: bool,
}

impl Inbox {
    pub(crate) fn new(cell: Arc<LaneCell>) -> Self {
        Self { cell, state: Mutex::default(), ready: Notify::new() }
    }

    pub(crate) fn push(&self, item: Item) {
        let mut state = self.lock();
        if let Item::Records(records) = &item {
            state.records += records.len();
            state.bytes += records.iter().map(Record::weight_bytes).sum::<usize>();
        }
        if matches!((&item, state.items.back()), (Item::End, Some(Item::End))) {
            return;
        }
        state.items.push_back(item);
        if state.records >= PAUSE_AT_RECORDS || state.bytes >= PAUSE_AT_BYTES {
            state.paused = true;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Whether the consumer shall hold the lane's records back.
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// The next item; batches that wait in a row come as one.
    pub(crate) fn pop(&self) -> Option<Popped> {
        let mut state = self.lock();
        let mut item = state.items.pop_front()?;
        if let Item::Records(records) = &mut item {
            while let Some(Item::Records(more)) = state.items.front()
                && records.len() + more.len() <= MAX_EVENT_RECORDS
                && let Some(Item::Records(more)) = state.items.pop_front()
            {
                records.extend(more);
            }
            state.records -= records.len();
            state.bytes -= records.iter().map(Record::weight_bytes).sum::<usize>();
        }
        let resume = state.paused
            && state.records <= PAUSE_AT_RECORDS / RESUME_PART
            && state.bytes <= PAUSE_AT_BYTES / RESUME_PART;
        if resume {
            state.paused = false;
        }
        Some(Popped { item, resume })
    }

    /// Resolves when something may have been pushed since the last `pop`.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds an inbox")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use saga_core::ids::Lane;

    use super::*;

    fn records(offsets: std::ops::Range<i64>) -> Item {
        Item::Records(
            offsets
                .map(|offset| Record { offset, timestamp_ms: 0, payload: Bytes::from_static(b"x"), headers: vec![] })
                .collect(),
        )
    }

    fn inbox() -> Inbox {
        Inbox::new(Arc::new(LaneCell::new(Lane(0))))
    }

    fn len(popped: &Popped) -> usize {
        match &popped.item {
            Item::Records(records) => records.len(),
            Item::End | Item::Fault(_) => 0,
        }
    }

    #[test]
    fn waiting_batches_come_as_one_but_not_across_the_end() {
        let inbox = inbox();
        for item in [records(0..10), records(10..20), Item::End, Item::End, records(20..30)] {
            inbox.push(item);
        }
        let lens: Vec<usize> = std::iter::from_fn(|| inbox.pop().map(|popped| len(&popped))).collect();
        assert_eq!(lens, [20, 0, 10]);
    }

    #[test]
    fn a_full_lane_is_paused_and_resumed_when_it_has_room_again() {
        let inbox = inbox();
        for start in 0..10 {
            assert!(!inbox.is_paused());
            inbox.push(records(start * 100..start * 100 + 100));
        }
        assert!(inbox.is_paused());
        assert!(!inbox.pop().unwrap().resume, "half of it still waits");
        assert!(inbox.pop().unwrap().resume);
        assert!(!inbox.is_paused());
    }
}
