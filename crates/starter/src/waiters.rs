//! Requests that wait for a saga: bounded, several per saga, and a request that goes away frees its place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis_txn::CommitError;
use saga_core::ids::{Lane, SagaId};
use saga_core::record::SagaResult;
use telemetry::metrics::STARTER_WAITING;
use tokio::sync::oneshot;

use crate::start::Interest;

/// Why this process refuses to take a request; nothing has been read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// As many requests wait as may.
    #[error("too many requests wait already")]
    Waiters,
    /// The starts that came before are not yet written.
    #[error("too many starts are queued already")]
    Queue,
}

/// Why a saga may not have been started.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// No lane of the results topic is owned and loaded; nothing was read or written.
    #[error("this process owns no lane that can take a saga now")]
    NoLane,
    /// As many sagas are pending in every such lane as may; nothing was read or written.
    #[error("too many sagas are under way already")]
    Full,
    /// The window's transaction has no outcome; the variants say whether it may have happened.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The lane's value in the store cannot be read; nothing was written.
    #[error("corrupt lane value: {0}")]
    Corrupt(String),
}

/// What a waiting request is told.
#[derive(Clone, Debug)]
pub enum Heard<A> {
    /// The business answered without a saga.
    Answered(A),
    /// Another saga is at work on the subject: wait for that one.
    Joins(SagaId),
    /// The saga has ended and its result has been applied.
    Ended(Arc<SagaResult>),
    /// The answer will not come to this process (any more): read the subject.
    Elsewhere,
    /// The saga may not have been started.
    Failed(StartError),
}

/// All waiting requests of this process.
pub struct Waiters<A> {
    shared: Arc<Shared<A>>,
}

impl<A> Clone for Waiters<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<A> {
    limit: usize,
    /// Counted apart from the requests, so that whoever reads the metrics does not hold them.
    places: Arc<AtomicUsize>,
    tickets: AtomicU64,
    waiting: Mutex<HashMap<SagaId, Entry<A>>>,
}

struct Entry<A> {
    /// Known once the saga is pending.
    lane: Option<Lane>,
    places: Vec<(u64, oneshot::Sender<Heard<A>>)>,
}

impl<A> Shared<A> {
    fn waiting(&self) -> MutexGuard<'_, HashMap<SagaId, Entry<A>>> {
        // The map is only changed by single calls that cannot leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Waiters<A> {
    /// Room for `limit` requests.
    pub fn new(limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                limit,
                places: Arc::default(),
                tickets: AtomicU64::new(0),
                waiting: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// Takes a place for the request that offers to start `saga`.
    pub fn register(&self, saga: SagaId) -> Result<Waiter<A>, Shed> {
        let taken = self.shared.places.fetch_add(1, Ordering::Relaxed);
        if taken >= self.shared.limit {
            self.shared.places.fetch_sub(1, Ordering::Relaxed);
            return Err(Shed::Waiters);
        }
        let ticket = self.shared.tickets.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting().insert(saga, Entry { lane: None, places: vec![(ticket, sender)] });
        Ok(Waiter { shared: self.shared.clone(), saga, ticket, at_work: false, receiver, held: Arc::default() })
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.shared.places.load(Ordering::Relaxed)
    }

    /// Shows how many requests wait among the metrics of the process.
    pub(crate) fn show(&self) {
        STARTER_WAITING.read(&[], &self.shared.places, |places| places.load(Ordering::Relaxed) as f64);
    }

    /// Notes that the saga is pending in the lane.
    pub(crate) fn at_lane(&self, saga: SagaId, lane: Lane) {
        if let Some(entry) = self.shared.waiting().get_mut(&saga) {
            entry.lane = Some(lane);
        }
    }

    /// Tells the first request of the saga, which is its only one unless the saga has been started.
    pub(crate) fn tell(&self, saga: SagaId, heard: Heard<A>) {
        let entry = self.shared.waiting().remove(&saga);
        let mut places = entry.into_iter().flat_map(|entry| entry.places);
        if let Some((_, sender)) = places.next() {
            let _gone = sender.send(heard);
        }
        for (_, sender) in places {
            let _gone = sender.send(Heard::Elsewhere);
        }
    }

    /// Tells every request that waits for the saga how it ended; answers how many there were.
    pub(crate) fn ended(&self, result: &Arc<SagaResult>) -> usize {
        let entry = self.shared.waiting().remove(&result.saga);
        let places = entry.map_or_else(Vec::new, |entry| entry.places);
        let count = places.len();
        for (_, sender) in places {
            let _gone = sender.send(Heard::Ended(result.clone()));
        }
        count
    }

    /// Tells the requests of one saga to read instead.
    pub(crate) fn elsewhere(&self, saga: SagaId) {
        let entry = self.shared.waiting().remove(&saga);
        for (_, sender) in entry.into_iter().flat_map(|entry| entry.places) {
            let _gone = sender.send(Heard::Elsewhere);
        }
    }

    /// Tells the requests of a lane that this process has given up to read instead.
    pub(crate) fn lane_lost(&self, lane: Lane) {
        let lost: Vec<SagaId> = {
            let waiting = self.shared.waiting();
            waiting.iter().filter(|(_, entry)| entry.lane == Some(lane)).map(|(saga, _)| *saga).collect()
        };
        for saga in lost {
            self.elsewhere(saga);
        }
    }
}

/// The place of one request; dropping it frees the place.
pub struct Waiter<A> {
    shared: Arc<Shared<A>>,
    saga: SagaId,
    ticket: u64,
    /// The request has been told of a saga that runs elsewhere.
    at_work: bool,
    receiver: oneshot::Receiver<Heard<A>>,
    /// Gone with the waiter.
    held: Arc<()>,
}

impl<A> Waiter<A> {
    /// Whether this is still there.
    pub(crate) fn interest(&self) -> Interest {
        Interest::of(&self.held)
    }

    /// The saga that is waited for.
    pub fn saga(&self) -> SagaId {
        self.saga
    }

    /// The saga that is waited for, if it is known to be at work.
    pub fn at_work(&self) -> Option<SagaId> {
        let is_pending = || self.shared.waiting().get(&self.saga).is_some_and(|entry| entry.lane.is_some());
        (self.at_work || is_pending()).then_some(self.saga)
    }

    /// What became of the saga. Cancel-safe; told once per saga.
    pub async fn heard(&mut self) -> Heard<A> {
        let heard = (&mut self.receiver).await.unwrap_or(Heard::Elsewhere);
        self.at_work |= matches!(heard, Heard::Elsewhere);
        heard
    }

    /// Waits for another saga from now on. False when nobody at home waits for it, so that its end may have been told
    /// already: then read the subject.
    pub fn join(&mut self, saga: SagaId) -> bool {
        self.leave();
        let (sender, receiver) = oneshot::channel();
        self.saga = saga;
        self.at_work = true;
        self.receiver = receiver;
        match self.shared.waiting().get_mut(&saga) {
            Some(entry) => {
                entry.places.push((self.ticket, sender));
                true
            }
            None => false,
        }
    }

    fn leave(&self) {
        let mut waiting = self.shared.waiting();
        if let Some(entry) = waiting.get_mut(&self.saga) {
            entry.places.retain(|(ticket, _)| *ticket != self.ticket);
            if entry.places.is_empty() {
                waiting.remove(&self.saga);
            }
        }
    }
}

impl<A> Drop for Waiter<A> {
    fn drop(&mut self) {
        self.leave();
        self.shared.places.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use saga_core::ids::{Ordinal, Starter, TraceContext};
    use saga_core::record::SagaOutcome;
    use uuid::Uuid;

    use super::*;

    fn saga(number: u128) -> SagaId {
        SagaId(Uuid::from_u128(number))
    }

    fn result(number: u128) -> Arc<SagaResult> {
        let starter = Starter { name: "order".into(), store: Uuid::nil() };
        Arc::new(SagaResult {
            saga: saga(number),
            ordinal: Ordinal { starter, lane: Lane(0), sequence: 0 },
            outcome: SagaOutcome::Completed,
            trace: TraceContext::default(),
        })
    }

    #[tokio::test]
    async fn everyone_who_joined_hears_the_end() {
        let waiters = Waiters::<()>::new(3);
        let mut first = waiters.register(saga(1)).unwrap();
        let mut second = waiters.register(saga(2)).unwrap();
        waiters.tell(saga(2), Heard::Joins(saga(1)));
        assert!(matches!(second.heard().await, Heard::Joins(other) if other == saga(1)));
        assert!(second.join(saga(1)));
        assert_eq!(waiters.ended(&result(1)), 2);
        assert!(matches!(first.heard().await, Heard::Ended(_)));
        assert!(matches!(second.heard().await, Heard::Ended(_)));
        assert_eq!(waiters.ended(&result(1)), 0, "told once");
    }

    #[tokio::test]
    async fn a_saga_that_nobody_waits_for_cannot_be_joined() {
        let waiters = Waiters::<()>::new(3);
        let mut waiter = waiters.register(saga(1)).unwrap();
        assert!(!waiter.join(saga(9)));
        assert!(waiters.shared.waiting().is_empty());
    }

    #[test]
    fn places_are_bounded_and_a_dropped_request_frees_its_place() {
        let waiters = Waiters::<()>::new(2);
        let first = waiters.register(saga(1)).unwrap();
        let _second = waiters.register(saga(2)).unwrap();
        assert_eq!(waiters.register(saga(3)).err(), Some(Shed::Waiters));
        drop(first);
        assert_eq!(waiters.shared.waiting().len(), 1);
        assert!(waiters.register(saga(3)).is_ok());
        assert_eq!(waiters.taken(), 1, "the last one was dropped at once");
    }

    #[test]
    fn the_gauge_of_who_waits_comes_to_rest_at_zero() {
        let waiters = Waiters::<()>::new(2);
        waiters.show();
        let shown = || telemetry::metrics::render();
        let first = waiters.register(saga(1)).unwrap();
        let second = waiters.register(saga(2)).unwrap();
        assert!(shown().contains("saga_starter_waiting 2\n"), "{}", shown());
        drop((first, second));
        assert!(shown().contains("saga_starter_waiting 0\n"), "{}", shown());
    }

    #[tokio::test]
    async fn a_lost_lane_sends_its_requests_to_read() {
        let waiters = Waiters::<()>::new(4);
        let mut here = waiters.register(saga(1)).unwrap();
        let _there = waiters.register(saga(2)).unwrap();
        assert_eq!(here.at_work(), None);
        waiters.at_lane(saga(1), Lane(7));
        assert_eq!(here.at_work(), Some(saga(1)));
        waiters.at_lane(saga(2), Lane(8));
        waiters.lane_lost(Lane(7));
        assert!(matches!(here.heard().await, Heard::Elsewhere));
        assert_eq!(here.at_work(), Some(saga(1)), "it goes on elsewhere");
        assert!(waiters.shared.waiting().contains_key(&saga(2)));
    }
}
