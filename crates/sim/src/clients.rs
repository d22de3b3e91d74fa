//! Those who ask for checkouts, and read orders when the answer does not come to them.

use order_svc::decide::{About, about};
use order_svc::order::Verdict;
use order_svc::store::{decode, order_key};
use saga_core::ids::{Lane, SagaId};

use crate::oracle::Violation;
use crate::shop::Request;
use crate::world::{STARTER, World};

/// One request after the other for one order.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it asks for.
    pub request: Request,
    /// The process that it asks.
    pub worker: usize,
    /// The saga that its request may start.
    pub offered: SagaId,
    /// Where it stands.
    pub state: ClientState,
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Nothing: it may ask (again).
    Idle,
    /// Its request lies in a queue or window, or its saga runs (then the lane is known).
    Waiting {
        /// The saga.
        saga: SagaId,
        /// Where the answer comes from.
        lane: Option<Lane>,
    },
    /// It reads the order until that tells how the saga ended.
    Polling(SagaId),
    /// It has its answer.
    Done,
}

impl Client {
    /// Whether it waits for the end of this saga.
    pub fn waits_for(&self, saga: SagaId) -> bool {
        matches!(self.state, ClientState::Waiting { saga: own, .. } if own == saga)
    }
}

/// A client asks, at some process that runs.
pub fn ask(world: &mut World, client: usize, worker: usize) {
    let saga = world.fresh_saga();
    let who = &mut world.clients[client];
    who.worker = worker;
    who.offered = saga;
    who.state = ClientState::Waiting { saga, lane: None };
    let order = who.request.order.clone();
    world.note(|| format!("client {client} asks order-{worker} to check out {order} (saga {saga})"));
    world.process(STARTER, worker).queue.push_back(client);
}

/// A client that polls reads its order. True if it learned something.
pub fn poll(world: &mut World, client: usize) -> Result<bool, Violation> {
    let ClientState::Polling(saga) = world.clients[client].state else { return Ok(false) };
    let key = order_key(&world.clients[client].request.order);
    let order = world.stores[STARTER].get(&key).and_then(|bytes| decode(bytes).ok());
    match order.map(|order| about(&order, saga)) {
        Some(About::Ended(verdict)) => {
            world.oracle.told(saga, verdict == Verdict::Paid, &world.stores[STARTER])?;
            world.clients[client].state = ClientState::Done;
            Ok(true)
        }
        Some(About::Running) => Ok(false),
        // 504: no claim is made.
        Some(About::Unknown) | None => {
            world.clients[client].state = ClientState::Done;
            Ok(true)
        }
    }
}
