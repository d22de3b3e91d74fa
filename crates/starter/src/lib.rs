//! Starts sagas and hears how they end: what a service needs besides its own rule.
//!
//! A request is handed in with [`Starter::start`] and waits with its [`Waiter`]. Requests are collected into a window;
//! one EXEC makes the window's sagas pending, then their starts are sent to one lane of the inbox. The results come
//! home through [`ResultsRunner`], which applies them in one EXEC per batch and then answers.
//!
//! Deliberately not in it: any particular business (that is a [`Business`]), HTTP, deadlines of requests.

pub mod apply;
pub mod business;
mod collect;
mod events;
pub mod keys;
pub mod lanes;
mod poison;
mod publish;
mod results;
pub mod start;
#[cfg(test)]
mod tests;
pub mod waiters;
pub mod window;

use std::sync::Arc;
use std::time::Duration;

use event_stream::Publisher;
use redis_txn::Store;
use saga_core::ids::{SagaId, TraceContext};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::business::{Application, Business, Decision, Plan, unreadable};
use crate::lanes::Lanes;
pub use crate::results::ResultsRunner;
use crate::start::Member;
use crate::waiters::Waiters;
pub use crate::waiters::{Heard, Shed, StartError, Waiter};
use crate::window::Placement;

/// Requests that wait to be collected into a window: a few windows' worth. When it is full, requests are shed.
const MAX_QUEUED: usize = 1_024;

/// Windows between their close and the acknowledgement of their starts. With 64 sagas each this is several times what
/// is in flight at full speed; when Redis or Kafka stand still, it bounds what waits for them.
const MAX_WINDOWS_IN_FLIGHT: usize = 64;

/// Who starts sagas, and through which topics.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The starter's name in ordinals (`order`).
    pub name: String,
    /// Topic that starts go to (`saga.inbox`).
    pub inbox_topic: String,
    /// Topic that results come from (`order.results`).
    pub results_topic: String,
    /// Most requests that wait at once.
    pub max_waiters: usize,
    /// Whether the sagas of a window stay together.
    pub placement: Placement,
}

/// Time between two looks at what is pending, for the metrics.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// Never ends.
async fn show_pending<B: Business>(shared: &Shared<B>) {
    let mut ticks = tokio::time::interval(SHOW_INTERVAL);
    loop {
        ticks.tick().await;
        let oldest = shared.lanes.oldest().map(|since| since.elapsed()).unwrap_or_default();
        events::pending(shared.lanes.pending(), oldest);
    }
}

pub(crate) struct Shared<B: Business> {
    business: Arc<B>,
    starter: saga_core::ids::Starter,
    inbox: Arc<str>,
    results_topic: Arc<str>,
    store: Store,
    publisher: Publisher,
    placement: Placement,
    lanes: Lanes,
    waiters: Waiters<B::Answer>,
    windows: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Cheap handle to the starter of this process.
pub struct Starter<B: Business> {
    shared: Arc<Shared<B>>,
    queue: mpsc::Sender<Member<B::Request>>,
}

impl<B: Business> Clone for Starter<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), queue: self.queue.clone() }
    }
}

impl<B: Business> Starter<B> {
    /// Starts collecting. `store_id` is the id of the store (`Store::id`): part of every ordinal.
    pub fn new(settings: Settings, business: Arc<B>, store: Store, store_id: uuid::Uuid, publisher: Publisher) -> Self {
        let shared = Arc::new(Shared {
            business,
            starter: saga_core::ids::Starter { name: settings.name, store: store_id },
            inbox: settings.inbox_topic.into(),
            results_topic: settings.results_topic.into(),
            store,
            publisher,
            placement: settings.placement,
            lanes: Lanes::default(),
            waiters: Waiters::new(settings.max_waiters),
            windows: Arc::new(Semaphore::new(MAX_WINDOWS_IN_FLIGHT)),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        shared.waiters.show();
        let (queue, requests) = mpsc::channel(MAX_QUEUED);
        shared.tasks.spawn(collect::collect(shared.clone(), requests));
        let showing = shared.clone();
        shared.tasks.spawn(async move { showing.shutdown.run_until_cancelled(show_pending(&showing)).await });
        Self { shared, queue }
    }

    /// Hands a request in, together with the id of the saga that it may start. The waiter is registered before
    /// anything is read, so no answer can be missed.
    pub fn start(&self, saga: SagaId, request: B::Request, trace: TraceContext) -> Result<Waiter<B::Answer>, Shed> {
        let handed_in = self.shared.waiters.register(saga).and_then(|waiter| {
            let member = Member { saga, request, trace, interest: waiter.interest() };
            self.queue.try_send(member).map_err(|_full_or_closed| Shed::Queue)?;
            Ok(waiter)
        });
        if handed_in.is_err() {
            events::shed();
        }
        handed_in
    }

    /// What the consumer of the results topic runs.
    pub fn runner(&self) -> Arc<ResultsRunner<B>> {
        Arc::new(ResultsRunner { shared: self.shared.clone() })
    }

    /// How many sagas this process knows to be pending in its lanes.
    pub fn pending(&self) -> usize {
        self.shared.lanes.pending()
    }

    /// Takes no more requests, and waits until what was collected is sent, at most until the deadline: what is left
    /// is pending in the store and sent by the lanes' next owners.
    pub async fn shutdown(&self, deadline: Duration) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        let _late = tokio::time::timeout(deadline, self.shared.tasks.wait()).await;
    }
}
