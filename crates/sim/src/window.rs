//! A starter's windows. Their transaction and the choice of the lane are the real ones; the way from the queue to the
//! acknowledgement of the starts is that of `crates/starter/src/collect.rs`, modelled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use event_stream::Outgoing;
use proto::Wire;
use redis_txn::CommitError;
use saga_core::ids::{Lane, SagaId, TraceContext};
use saga_core::record::{InboxEvent, Start};
use saga_core::starter::{PendingStart, StarterLane};
use starter::lanes::{Open, Tenure};
use starter::start::{Decided, Interest, Member, WindowOutcome, WindowTransaction};

use crate::clients::ClientState;
use crate::faults::Point;
use crate::mistakes::Mistake;
use crate::network::{Acknowledged, SimReceipt};
use crate::orchestrate::look;
use crate::shop::{Answer, Request, Shop};
use crate::task::{Did, Loop, Task};
use crate::world::{STARTER, Stop, World};

/// Most requests in one window.
const MAX_WINDOW: usize = 5;

type Commit = Pin<Box<dyn Future<Output = Result<WindowOutcome<Answer>, CommitError>>>>;

/// Closes windows.
pub struct Collector {
    worker: usize,
    /// The window that was closed last, to be run.
    pub closed: Option<Box<Task>>,
}

impl Collector {
    /// For one process.
    pub fn new(worker: usize) -> Self {
        Self { worker, closed: None }
    }

    /// Closes a window, if requests wait and a lane takes starts.
    pub fn step(&mut self, world: &mut World) -> Result<Did, Stop> {
        let now = world.instant();
        let process = world.process(STARTER, self.worker);
        if process.queue.is_empty() {
            return Ok(Did::Nothing);
        }
        let Some(choice) = process.lanes.choose(now) else {
            // As in the service: the requests are told that no lane takes them, and their clients come again.
            let state = if world.faults.is_quiet() { ClientState::Done } else { ClientState::Idle };
            let refused: Vec<usize> = world.process(STARTER, self.worker).queue.drain(..).collect();
            refused.into_iter().for_each(|client| world.clients[client].state = state);
            return Ok(Did::Something);
        };
        let count = 1 + world.rng.below(MAX_WINDOW);
        let process = world.process(STARTER, self.worker);
        let lane = choice.probe.unwrap_or(choice.lane);
        let count = if choice.probe.is_some() { 1 } else { count.min(process.queue.len()) };
        let clients: Vec<usize> = process.queue.drain(..count).collect();
        world.point(Point::WindowChosen)?;
        let window = Window { worker: self.worker, lane, clients, tenure: None, stage: Stage::New };
        self.closed = Some(Box::new(Task::other(STARTER, self.worker, Loop::Window(Box::new(window)))));
        Ok(Did::Something)
    }
}

enum Stage {
    New,
    Committing(Commit, Vec<SagaId>),
    Sending(Vec<Start>, Option<SimReceipt>),
}

/// One window from its EXEC to the acknowledgement of its starts.
pub struct Window {
    worker: usize,
    lane: Lane,
    clients: Vec<usize>,
    /// That of the lane when its transaction was handed in.
    tenure: Option<Tenure>,
    stage: Stage,
}

impl Window {
    /// One thing.
    pub fn step(&mut self, world: &mut World) -> Result<Did, Stop> {
        match std::mem::replace(&mut self.stage, Stage::New) {
            Stage::New => self.hand_in(world),
            Stage::Committing(mut commit, sagas) => match look(&mut commit) {
                Poll::Pending => {
                    self.stage = Stage::Committing(commit, sagas);
                    Ok(Did::Nothing)
                }
                Poll::Ready(Ok(WindowOutcome::Committed { decided, pending })) => {
                    self.committed(world, &sagas, decided, pending)
                }
                Poll::Ready(Ok(WindowOutcome::Corrupt(why))) => Err(Stop::Halt(why)),
                Poll::Ready(Err(_)) => Ok(Did::Ended),
            },
            Stage::Sending(starts, receipt) => self.deliver(world, starts, receipt),
        }
    }

    fn hand_in(&mut self, world: &mut World) -> Result<Did, Stop> {
        let members: Vec<Arc<Member<Request>>> = self
            .clients
            .iter()
            .map(|client| {
                let client = &world.clients[*client];
                let (saga, request) = (client.offered, client.request.clone());
                Arc::new(Member { saga, request, trace: TraceContext::default(), interest: Interest::default() })
            })
            .collect();
        let sagas: Vec<SagaId> = members.iter().map(|member| member.saga).collect();
        self.tenure = world.process(STARTER, self.worker).lanes.tenure(self.lane);
        let transaction = WindowTransaction {
            business: Arc::new(world.shop()),
            starter: world.starter.clone(),
            results_topic: Arc::from("order.results"),
            lane: self.lane,
            members,
        };
        if world.makes(Mistake::StartBeforeExec) {
            let sequence = |world: &World| {
                let stored = world.stores[STARTER].get(&starter::keys::lane_key(self.lane));
                stored.and_then(|bytes| StarterLane::decode(bytes).ok()).map_or(0, |lane| lane.next_sequence)
            };
            let first = sequence(world);
            let starts = transaction.members.iter().zip(first..).map(|(member, sequence)| Start {
                saga: member.saga,
                ordinal: saga_core::ids::Ordinal { starter: world.starter.clone(), lane: self.lane, sequence },
                definition: member.request.plan.definition.clone(),
                inputs: member.request.plan.inputs.clone(),
                results_topic: "order.results".to_owned(),
                trace: TraceContext::default(),
            });
            let records = starts.map(record).collect();
            world.send(records)?;
        }
        let offline = world.process(STARTER, self.worker).offline.clone();
        let commit: Commit = if world.makes(Mistake::SequenceInMemory) {
            Box::pin(offline.run(self.lane.0, crate::stale::Remembering::new(transaction, self.lane)))
        } else {
            Box::pin(offline.run(self.lane.0, transaction))
        };
        self.stage = Stage::Committing(commit, sagas);
        world.point(Point::WindowHandedIn)?;
        Ok(Did::Something)
    }

    fn committed(
        &mut self,
        world: &mut World,
        sagas: &[SagaId],
        decided: Vec<Decided<Answer>>,
        pending: Vec<PendingStart>,
    ) -> Result<Did, Stop> {
        world.point(Point::WindowCommitted)?;
        world.coverage.count("sagas started", pending.len() as u64);
        let since = world.instant();
        let lanes = world.process(STARTER, self.worker).lanes.clone();
        let mut elsewhere = Vec::new();
        for entry in &pending {
            let open =
                Open { saga: entry.start.saga, subject: entry.subject.as_str().into(), since, is_delivered: false };
            if !lanes.remember(self.lane, self.tenure, entry.start.ordinal.sequence, open) {
                elsewhere.push(entry.start.saga);
            }
        }
        for ((client, saga), decided) in self.clients.iter().zip(sagas).zip(decided) {
            if !world.clients[*client].waits_for(*saga) {
                continue;
            }
            let state = match decided {
                Decided::Started if elsewhere.contains(saga) => ClientState::Polling(*saga),
                Decided::Started => ClientState::Waiting { saga: *saga, lane: Some(self.lane) },
                Decided::Joins(other) => ClientState::Polling(other),
                Decided::Answered(Answer::Paid(by)) => {
                    if let Some(saga) = by {
                        world.oracle.told(saga, true, &world.stores[STARTER])?;
                    }
                    ClientState::Done
                }
                Decided::Answered(Answer::None) | Decided::Abandoned => ClientState::Done,
            };
            world.clients[*client].state = state;
        }
        if pending.is_empty() {
            return Ok(Did::Ended);
        }
        let starts = pending.into_iter().map(|entry| entry.start).collect();
        self.stage = Stage::Sending(starts, None);
        Ok(Did::Something)
    }

    /// Sends until all is acknowledged.
    fn deliver(&mut self, world: &mut World, starts: Vec<Start>, receipt: Option<SimReceipt>) -> Result<Did, Stop> {
        match receipt.as_ref().map(SimReceipt::look) {
            Some(Acknowledged::Yes) => return Ok(Did::Ended),
            Some(Acknowledged::NotYet) => {
                self.stage = Stage::Sending(starts, receipt);
                return Ok(Did::Nothing);
            }
            Some(Acknowledged::Failed) if world.makes(Mistake::StartsSentOnce) => return Ok(Did::Ended),
            Some(Acknowledged::Failed) | None => {}
        }
        let sent = world.send(starts.iter().cloned().map(record).collect())?;
        self.stage = Stage::Sending(starts, Some(sent));
        world.point(Point::WindowSent)?;
        Ok(Did::Something)
    }
}

/// The record of a start.
pub fn record(start: Start) -> Outgoing {
    let lane = start.ordinal.lane;
    Outgoing { topic: Arc::from("saga.inbox"), lane, payload: InboxEvent::Start(start).encode(), headers: Vec::new() }
}

/// A window's transaction.
pub type ShopWindow = WindowTransaction<Shop>;
