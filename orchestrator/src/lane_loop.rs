//! One lane, from the takeover to giving it up: load, fold silently to the log's end, say again what may have been
//! lost, then fold and send.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use event_stream::{Lane, LaneEvent, LaneFault, LaneRunner, OwnedLane, Publisher, Receipt};
use redis_txn::Store;
use saga_core::effect::Effect;
use saga_core::ids::TraceContext;
use saga_core::lane::LaneState;
use saga_core::record::Timer;
use tokio::sync::mpsc;

use crate::ages::AgeScan;
use crate::checkpoint::{self, Checkpoints};
use crate::decide::{CheckpointSchedule, FloorSchedule, LogClock, ResendSchedule, Underway};
use crate::definitions::Definitions;
use crate::emit::{Emitter, MAX_UNACKNOWLEDGED, Outbox};
use crate::fold::Mode;
use crate::summary::SummaryRule;
use crate::upkeep::{ACTIVATION_RETRY, MAX_ACTIVATIONS, MAX_TIMERS, TIMER_RETRY};
use crate::view::{Numbers, Question, Registration, Registry, SagaView};

/// Records in one piece for the producer: a quarter of what may be unacknowledged.
const SEND_CHUNK: usize = MAX_UNACKNOWLEDGED / 4;

/// What all lanes of the process share.
pub struct Shared {
    /// The store of the checkpoints.
    pub store: Store,
    /// The producer.
    pub publisher: Publisher,
    /// What is to be active.
    pub definitions: Definitions,
    /// What the admin port looks at.
    pub registry: Registry,
    /// Where the ticks of the checkpoints begin.
    pub epoch: Instant,
    /// Time between two checkpoints of a lane that has news.
    pub checkpoint_interval: Duration,
    /// Records after which a checkpoint is due before its time.
    pub checkpoint_records: u64,
    /// How long a lane that is taken away may take for its last checkpoint.
    pub drain_deadline: Duration,
    /// Which sagas get a span that tells how they ended.
    pub summaries: SummaryRule,
}

/// Runs the lanes of the inbox.
pub struct Runner {
    shared: Arc<Shared>,
}

impl Runner {
    /// Lanes that share these.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl LaneRunner for Runner {
    async fn run(&self, owned: OwnedLane) -> Result<(), LaneFault> {
        let mut lane = LaneLoop::load(self.shared.clone(), owned).await?;
        if lane.catch_up().await?.is_break() || lane.recover().await?.is_break() {
            return Ok(());
        }
        lane.live().await
    }
}

/// The loop and everything it holds. It is dropped as a whole when it goes wrong: the log and the store have it all.
pub(crate) struct LaneLoop {
    pub(crate) lane: Lane,
    pub(crate) shared: Arc<Shared>,
    pub(crate) owned: OwnedLane,
    pub(crate) state: LaneState,
    pub(crate) clock: LogClock,
    pub(crate) emitter: Emitter,
    pub(crate) outbox: Outbox<Receipt>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) timers: Underway<Timer>,
    pub(crate) timers_checked: Instant,
    pub(crate) activations: Underway<String>,
    pub(crate) activations_next: Option<Instant>,
    pub(crate) resends: ResendSchedule,
    pub(crate) floors: FloorSchedule,
    pub(crate) ages: AgeScan,
    numbers: Arc<Numbers>,
    questions: mpsc::Receiver<Question>,
    _registration: Registration,
}

/// What a live loop has woken up for.
enum Wake {
    Acknowledged,
    Written(checkpoint::Written),
    Asked(Question),
    Event(LaneEvent),
    Revoked,
}

impl LaneLoop {
    async fn load(shared: Arc<Shared>, mut owned: OwnedLane) -> Result<Self, LaneFault> {
        let lane = owned.lane();
        let (registration, numbers, questions) = shared.registry.enter(lane);
        let loaded = checkpoint::load(&shared.store, lane).await?;
        let position = owned.fetch_from(loaded.next).await?;
        owned.set_position(position);
        if let Some(next) = loaded.next {
            owned.set_stored(next);
        }
        let now = Instant::now();
        let schedule = CheckpointSchedule::new(shared.epoch, shared.checkpoint_interval, shared.checkpoint_records);
        let queue = shared.store.lane_queue(lane.0);
        tracing::debug!(lane = lane.0, position, version = loaded.version, "checkpoint loaded");
        Ok(Self {
            lane,
            clock: LogClock::new(loaded.state.time_ms(), now),
            emitter: Emitter::new(lane),
            outbox: Outbox::default(),
            checkpoints: Checkpoints::new(lane, queue, schedule, loaded.version),
            timers: Underway::new(TIMER_RETRY, MAX_TIMERS),
            timers_checked: now,
            activations: Underway::new(ACTIVATION_RETRY, MAX_ACTIVATIONS),
            activations_next: Some(now),
            resends: ResendSchedule::new(now),
            floors: FloorSchedule::default(),
            ages: AgeScan::new(now),
            state: loaded.state,
            shared,
            owned,
            numbers,
            questions,
            _registration: registration,
        })
    }

    /// Folds to the log's end without a command: the same records give the same state. Break: the lane was taken away.
    async fn catch_up(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        loop {
            match self.owned.next(None).await? {
                LaneEvent::Records(records) => {
                    self.fold(&records, Mode::Silent)?;
                    // Results are facts: when a long log gives many, they need not wait for its end.
                    if self.emitter.len() >= SEND_CHUNK && self.publish().await?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                LaneEvent::End => return Ok(ControlFlow::Continue(())),
                LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(ControlFlow::Break(())),
            }
        }
    }

    /// Says again what may not have been heard: the results since the checkpoint, the floors, and every command that an
    /// open saga awaits. The receipts count before the next checkpoint.
    async fn recover(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        let floors = self.state.floors();
        let participants = self.state.definitions().participants();
        for floor in &floors {
            self.emitter.floor(participants.iter().cloned(), floor.clone());
        }
        self.floors = FloorSchedule::told(&floors, Instant::now());
        self.queue_commands(self.state.awaited());
        let again = self.emitter.len();
        let flow = self.publish().await?;
        self.numbers.update(&self.state, self.outbox.unacknowledged());
        self.numbers.live.store(true, Ordering::Relaxed);
        self.owned.set_loaded();
        let (position, open) = (self.state.next_offset(), self.state.sagas().len());
        tracing::info!(lane = self.lane.0, position, open, again, "lane loaded");
        Ok(flow)
    }

    async fn live(mut self) -> Result<(), LaneFault> {
        loop {
            if self.upkeep().await?.is_break() {
                return Ok(());
            }
            match self.wake().await? {
                Wake::Acknowledged => {}
                Wake::Written(written) => {
                    self.numbers.checkpointed();
                    self.owned.set_stored(written.next);
                    self.floors.stored(written.ended, Instant::now());
                }
                Wake::Asked(question) => {
                    // Whoever asked may have gone away.
                    let _ = question.answer.send(SagaView::find(&self.state, question.saga));
                }
                Wake::Event(LaneEvent::Records(records)) => {
                    if let Err(reason) = self.fold(&records, Mode::Live) {
                        if self.publish().await?.is_continue() {
                            self.settle().await;
                        }
                        return Err(reason.into());
                    }
                }
                Wake::Event(LaneEvent::End | LaneEvent::Tick) => {}
                Wake::Event(LaneEvent::Revoked) | Wake::Revoked => {
                    self.settle().await;
                    return Ok(());
                }
            }
        }
    }

    /// What has to be done between two events, all of it short.
    async fn upkeep(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        let now = Instant::now();
        if !self.outbox.is_full() {
            self.queue_due(now);
        }
        let flow = self.publish().await?;
        if flow.is_continue() {
            self.checkpoints.freeze_if_due(&mut self.state, self.outbox.issued(), now);
            self.checkpoints.write_if_acknowledged(self.outbox.acknowledged());
            self.show(now);
        }
        Ok(flow)
    }

    /// Lets others see how the lane is.
    fn show(&mut self, now: Instant) {
        self.numbers.update(&self.state, self.outbox.unacknowledged());
        self.numbers.unsaved(self.checkpoints.unsaved_since());
        self.ages.scan(&self.state, self.clock.estimate_ms(now), now, &self.numbers.ages);
    }

    async fn wake(&mut self) -> Result<Wake, LaneFault> {
        let until = self.next_due();
        let folding = !self.outbox.is_full();
        let Self { owned, outbox, checkpoints, questions, .. } = self;
        let event = async {
            if folding {
                return owned.next(until).await.map(Wake::Event);
            }
            owned.revoked().await;
            Ok(Wake::Revoked)
        };
        tokio::select! {
            biased;
            acknowledged = outbox.next_acknowledged() => {
                acknowledged.map_err(unknown_delivery)?;
                Ok(Wake::Acknowledged)
            }
            written = checkpoints.written() => Ok(Wake::Written(written?)),
            Some(question) = questions.recv() => Ok(Wake::Asked(question)),
            event = event => event,
        }
    }

    /// Queues commands that are sent again; they rejoin the trace of their saga.
    pub(crate) fn queue_commands(&mut self, effects: Vec<Effect>) {
        let no_cause = TraceContext::default();
        for effect in effects {
            if let Effect::Command { participant, command } = effect {
                self.emitter.command(&participant, command, &no_cause);
            }
        }
    }

    /// Sends what is queued and remembers the receipts. Break: the lane was taken away before all of it was sent.
    async fn publish(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        let mut records = self.emitter.take();
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(SEND_CHUNK));
            while self.outbox.is_full() {
                tokio::select! {
                    acknowledged = self.outbox.next_acknowledged() => acknowledged.map_err(unknown_delivery)?,
                    () = self.owned.revoked() => return Ok(ControlFlow::Break(())),
                }
            }
            let count = records.len();
            tokio::select! {
                biased;
                sent = self.shared.publisher.send(records) => {
                    self.outbox.sent(count, sent.map_err(unknown_delivery)?);
                }
                () = self.owned.revoked() => return Ok(ControlFlow::Break(())),
            }
            records = rest;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Writes a last checkpoint before the lane is given up, if the receipts come in time. If not, the next owner folds
    /// a little more and says it all again.
    async fn settle(&mut self) {
        let ended = tokio::time::timeout(self.shared.drain_deadline, self.write_last()).await;
        let lane = self.lane.0;
        match ended {
            Ok(Ok(())) => tracing::debug!(lane, "last checkpoint written"),
            Ok(Err(fault)) => tracing::warn!(lane, %fault, "lane given up without a last checkpoint"),
            Err(_) => tracing::warn!(lane, "lane given up before its last checkpoint was written"),
        }
    }

    async fn write_last(&mut self) -> Result<(), LaneFault> {
        loop {
            self.checkpoints.freeze_now(&mut self.state, self.outbox.issued(), Instant::now());
            self.checkpoints.write_if_acknowledged(self.outbox.acknowledged());
            if self.checkpoints.is_settled() {
                return Ok(());
            }
            tokio::select! {
                acknowledged = self.outbox.next_acknowledged() => acknowledged.map_err(unknown_delivery)?,
                written = self.checkpoints.written() => self.owned.set_stored(written?.next),
            }
        }
    }
}

/// Whether the records are in the log is unknown: back to the checkpoint, and all is said again with the same ids.
fn unknown_delivery(error: event_stream::PublishError) -> LaneFault {
    LaneFault::Restart(error.to_string())
}
