//! One bounded queue per lane and one for REST, and the order in which the committer takes from them.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use telemetry::context::RedisServer;
use telemetry::metrics::REDIS_QUEUE_DEPTH;
use tokio::sync::{Notify, Semaphore, watch};

use crate::error::CommitError;
use crate::events;
use crate::spans::Spans;
use crate::transaction::{Entry, Origin, Transaction};

/// Transactions of one lane that wait for the committer. A lane loop hands in batches and has few of them on the way;
/// more than this and the lane is to be held back.
const LANE_QUEUE: usize = 64;

/// Transactions of all REST requests that wait for the committer: about 50 ms of work. A request that finds the queue
/// full is told at once.
const REST_QUEUE: usize = 4_096;

/// Lanes that are nearly full go first, but this part of a batch (one in so many) is left to waiting REST requests.
const REST_SHARE: usize = 8;

/// The place of the REST queue among the queues.
const REST: usize = 0;

/// How much the committer takes for one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) transactions: usize,
    pub(crate) watched_keys: usize,
}

/// A bounded queue of the committer, served round-robin with its siblings. Cloning shares the queue.
#[derive(Clone)]
pub struct Queue {
    handles: Arc<Handles>,
    origin: Origin,
    line: Line,
}

/// How one gets into a queue.
#[derive(Clone)]
struct Line {
    /// Free places.
    room: Arc<Semaphore>,
    /// Held by whoever is next: with it, callers get in strictly in the order of their first poll, also when places
    /// become free faster than the callers wake up.
    head: Arc<tokio::sync::Mutex<()>>,
}

/// What the handles and the committer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    healthy: AtomicBool,
    address: String,
    server: RedisServer,
    ended: watch::Sender<bool>,
}

struct State {
    queues: Vec<Waiting>,
    lanes: HashMap<u32, usize>,
    /// The queue that is served first next time.
    turn: usize,
    waiting: usize,
    closed_at: Option<Instant>,
}

struct Waiting {
    entries: VecDeque<Entry>,
    capacity: usize,
    line: Line,
}

/// Held by every `Store` and `Queue`: when the last one is gone, the committer finishes what it has and ends.
pub(crate) struct Handles {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Queue {
    pub(crate) fn rest(handles: Arc<Handles>) -> Self {
        let line = handles.shared.lock().queues[REST].line.clone();
        Self { handles, origin: Origin::Rest, line }
    }

    pub(crate) fn lane(handles: Arc<Handles>, lane: u32) -> Self {
        let mut state = handles.shared.lock();
        let next = state.queues.len();
        let place = *state.lanes.entry(lane).or_insert(next);
        if place == next {
            state.queues.push(Waiting::new(LANE_QUEUE));
        }
        let line = state.queues[place].line.clone();
        drop(state);
        Self { handles, origin: Origin::Lane(place), line }
    }

    /// Hands a transaction in and waits for its outcome. Dropping the future does not cancel the transaction.
    ///
    /// The transaction is in the queue when the first poll returns pending, so calls keep their order. When a lane's
    /// queue is full, the call waits in line before it (in order too); only a future that is dropped while it stands
    /// there has handed nothing in. A full REST queue is answered at once with [`CommitError::Full`].
    pub fn run<T: Transaction>(
        &self,
        transaction: T,
    ) -> impl Future<Output = Result<T::Outcome, CommitError>> + Send + 'static {
        let queue = self.clone();
        async move {
            let spans = Spans::begin(&transaction, queue.handles.shared.server());
            let (mut entry, reply) = Entry::new(transaction, queue.origin);
            entry.spans = spans;
            if !entry.is_answered() {
                queue.hand_in(entry).await?;
            }
            // The committer answers every entry, unless its task was ended with the runtime: then nobody knows.
            reply.await.unwrap_or(Err(CommitError::OutcomeUnknown))
        }
    }

    async fn hand_in(&self, entry: Entry) -> Result<(), CommitError> {
        let shared = &self.handles.shared;
        let place = match self.origin {
            Origin::Rest => {
                let permit = self.line.room.try_acquire().map_err(|_| shared.no_room())?;
                permit.forget();
                REST
            }
            Origin::Lane(place) => {
                let head = self.line.head.lock().await;
                let permit = self.line.room.acquire().await.map_err(|_| CommitError::Closed)?;
                permit.forget();
                shared.push(place, entry)?;
                drop(head);
                return Ok(());
            }
        };
        shared.push(place, entry)
    }
}

impl Waiting {
    fn new(capacity: usize) -> Self {
        let line = Line { room: Arc::new(Semaphore::new(capacity)), head: Arc::default() };
        Self { entries: VecDeque::new(), capacity, line }
    }
}

impl Shared {
    /// For the Redis at `host:port`.
    pub(crate) fn new(address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        Self {
            server: RedisServer::new(host, port.parse().unwrap_or_default()),
            address: address.to_owned(),
            state: Mutex::new(State {
                queues: vec![Waiting::new(REST_QUEUE)],
                lanes: HashMap::new(),
                turn: 0,
                waiting: 0,
                closed_at: None,
            }),
            arrived: Notify::new(),
            healthy: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// The store is of use.
    pub(crate) fn set_healthy(&self) {
        if !self.healthy.swap(true, Ordering::Relaxed) {
            events::came(&self.address);
        }
    }

    /// The store is away, silent or refuses.
    pub(crate) fn set_unhealthy(&self, cause: &str) {
        if self.healthy.swap(false, Ordering::Relaxed) {
            events::went(&self.address, cause);
        }
    }

    /// The server, as spans name it.
    pub(crate) fn server(&self) -> &RedisServer {
        &self.server
    }

    /// Takes nothing in from now on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.closed_at.is_none() {
            state.closed_at = Some(Instant::now());
        }
        state.queues.iter().for_each(|queue| queue.line.room.close());
        drop(state);
        self.arrived.notify_one();
    }

    pub(crate) fn closed_at(&self) -> Option<Instant> {
        self.lock().closed_at
    }

    /// Waits until there is something to do: transactions, or the end.
    pub(crate) async fn arrival(&self) {
        loop {
            {
                let state = self.lock();
                if state.waiting > 0 || state.closed_at.is_some() {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Whether all that was handed in has been taken and nothing more will come.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.lock();
        state.closed_at.is_some() && state.waiting == 0
    }

    /// Takes transactions for one batch: of each queue the oldest ones, so an EXEC holds a prefix of it and never a
    /// gap.
    pub(crate) fn take(&self, batch: &mut Vec<Entry>, room: Room) {
        self.lock().take(batch, room);
    }

    /// Answers REST transactions that have waited too long (those of the lanes too, if so asked).
    pub(crate) fn expire(&self, patience: Duration, lanes_too: bool) {
        let mut state = self.lock();
        let mut expired = 0;
        for (place, queue) in state.queues.iter_mut().enumerate() {
            if place != REST && !lanes_too {
                break;
            }
            let mut answered = 0;
            while queue.entries.front().is_some_and(|entry| lanes_too || entry.handed_in.elapsed() > patience) {
                if let Some(mut entry) = queue.entries.pop_front() {
                    entry.fail(CommitError::Unavailable(format!("waited {} ms to be sent", patience.as_millis())));
                }
                answered += 1;
            }
            queue.line.room.add_permits(answered);
            expired += answered;
        }
        state.waiting -= expired;
    }

    /// Shows how many transactions wait, once per batch.
    pub(crate) fn show_depth(&self) {
        let (rest, all) = {
            let state = self.lock();
            (state.queues[REST].entries.len(), state.waiting)
        };
        REDIS_QUEUE_DEPTH.set(rest as f64, &[("queue", "rest")]);
        REDIS_QUEUE_DEPTH.set((all - rest) as f64, &[("queue", "lane")]);
    }

    /// The committer has ended, in order or not. Whoever still waits in a queue is answered.
    pub(crate) fn end(&self) {
        self.close();
        self.healthy.store(false, Ordering::Relaxed);
        let left: Vec<Entry> = {
            let mut state = self.lock();
            state.waiting = 0;
            state.queues.iter_mut().flat_map(|queue| std::mem::take(&mut queue.entries)).collect()
        };
        left.into_iter().for_each(|mut entry| entry.fail(CommitError::Closed));
        self.ended.send_replace(true);
    }

    pub(crate) async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn push(&self, place: usize, entry: Entry) -> Result<(), CommitError> {
        let mut state = self.lock();
        if state.closed_at.is_some() {
            return Err(CommitError::Closed);
        }
        state.queues[place].entries.push_back(entry);
        state.waiting += 1;
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    fn no_room(&self) -> CommitError {
        if self.lock().closed_at.is_some() { CommitError::Closed } else { CommitError::Full }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, batch: &mut Vec<Entry>, room: Room) {
        let before = batch.len();
        let count = self.queues.len();
        let rest_share = self.queues[REST].entries.len().min(room.transactions / REST_SHARE);
        let mut left = Left { room, batch };
        // Lanes that are more than half full first, down to half; then what was kept for requests meanwhile.
        let rest_keys = if rest_share > 0 { room.watched_keys / REST_SHARE } else { 0 };
        left.room.transactions -= rest_share;
        left.room.watched_keys -= rest_keys;
        let mut hurried = 0;
        for step in 0..count {
            let place = (self.turn + step) % count;
            let queue = &mut self.queues[place];
            if place != REST {
                hurried += left.take(queue, queue.entries.len().saturating_sub(queue.capacity / 2));
            }
        }
        left.room.transactions += rest_share;
        left.room.watched_keys += rest_keys;
        if hurried > 0 {
            left.take(&mut self.queues[REST], rest_share);
        }
        // Then all in turn, with equal shares. The next batch begins behind the one that came first in this one: so everybody
        // comes first some time, also those for whose keys there was no room.
        let mut first = None;
        loop {
            let active = self.queues.iter().filter(|queue| !queue.entries.is_empty()).count();
            if active == 0 || left.room.transactions == 0 {
                break;
            }
            let share = left.room.transactions.div_ceil(active);
            let mut taken = 0;
            for step in 0..count {
                let place = (self.turn + step) % count;
                let got = left.take(&mut self.queues[place], share);
                if got > 0 {
                    first.get_or_insert(place);
                }
                taken += got;
            }
            if taken == 0 {
                break;
            }
        }
        self.turn = first.map_or(self.turn, |place| place + 1) % count;
        self.waiting -= batch.len() - before;
    }
}

/// What a batch still has room for.
struct Left<'a> {
    room: Room,
    batch: &'a mut Vec<Entry>,
}

impl Left<'_> {
    /// Moves up to `most` entries of the queue into the batch, and says how many it were.
    fn take(&mut self, queue: &mut Waiting, most: usize) -> usize {
        let mut taken = 0;
        while taken < most.min(self.room.transactions) {
            let Some(entry) = queue.entries.front() else { break };
            // A transaction that alone has more keys than a batch may have goes alone.
            if entry.watched > self.room.watched_keys && !self.batch.is_empty() {
                break;
            }
            self.room.watched_keys = self.room.watched_keys.saturating_sub(entry.watched);
            self.batch.extend(queue.entries.pop_front());
            taken += 1;
        }
        self.room.transactions -= taken;
        queue.line.room.add_permits(taken);
        taken
    }
}

#[cfg(test)]
mod tests;
