//! One lane, from the takeover to giving it up: load, fold silently to the log's end, say again what may have been
//! lost, then fold and send.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use event_stream::{HaltReason, LaneEvent, LaneFault, LaneRunner, OwnedLane, Publisher, Receipt, Record};
use redis_txn::Store;
use service_kit::panics::MAX_TRIES;
use telemetry::stages::{self, Stage};
use tokio::sync::mpsc;

use crate::checkpoint::{self, Checkpoints};
use crate::decide::CheckpointSchedule;
use crate::definitions::Definitions;
use crate::emit::{MAX_UNACKNOWLEDGED, Outbox};
use crate::fold::{FoldFault, Mode};
use crate::homes::Homes;
use crate::lane_core::LaneCore;
use crate::pass_over::passed_over;
use crate::poison::{Probe, Suspects};
use crate::summary::SummaryRule;
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
    pub definitions: Arc<Definitions>,
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
    /// The records that made lanes of this process panic.
    pub suspects: Suspects,
    /// The topics that results go to.
    pub homes: Homes,
    /// The highest version of the fold that this program knows.
    pub supported_fold_version: u32,
    /// For tests.
    pub probe: Option<Probe>,
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
struct LaneLoop {
    shared: Arc<Shared>,
    owned: OwnedLane,
    core: LaneCore,
    outbox: Outbox<Receipt>,
    /// Whether sending was broken off: then the state is ahead of what others were told.
    is_unsent: bool,
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
        let loaded = checkpoint::load(&shared.store, lane, shared.supported_fold_version).await?;
        let position = owned.fetch_from(loaded.next).await?;
        owned.set_position(position);
        if let Some(next) = loaded.next {
            owned.set_stored(next);
        }
        let schedule = CheckpointSchedule::new(shared.epoch, shared.checkpoint_interval, shared.checkpoint_records);
        let queue = shared.store.lane_queue(lane.0);
        tracing::debug!(lane = lane.0, position, version = loaded.version, "checkpoint loaded");
        let checkpoints = Checkpoints::new(lane, queue, schedule, loaded.version);
        let definitions = shared.definitions.clone();
        let mut core =
            LaneCore::new(loaded.state, position, checkpoints, definitions, shared.summaries, Instant::now());
        core.set_probe(shared.probe.clone());
        let suspect = shared.suspects.of(lane, position);
        if let Some((offset, None)) = suspect {
            core.suspect(offset);
        }
        let outbox = Outbox::default();
        let mut loaded =
            Self { core, outbox, is_unsent: false, shared, owned, numbers, questions, _registration: registration };
        if let Some((offset, Some(why))) = suspect {
            loaded.shun(offset, why).await?;
        }
        Ok(loaded)
    }

    /// Never folds the record, unless somebody else may have done so.
    async fn shun(&mut self, offset: i64, why: String) -> Result<(), LaneFault> {
        let lane = self.core.lane;
        if !self.owned.is_ours_alone(offset) && passed_over(&self.shared.store, lane).await? != Some(offset) {
            return Err(HaltReason::Poison { offset, why }.into());
        }
        self.core.shun(offset, why);
        Ok(())
    }

    /// Folds to the log's end without a command: the same records give the same state. Break: the lane was taken away.
    async fn catch_up(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        loop {
            match self.owned.next(None).await? {
                LaneEvent::Records(records) => {
                    if self.take_in(&records, Mode::Silent).await?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    // Results are facts: when a long log gives many, they need not wait for its end.
                    if self.core.emitter.len() >= SEND_CHUNK && self.publish().await?.is_break() {
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
        let again = self.core.queue_recovery(Instant::now());
        let flow = self.publish().await?;
        self.numbers.update(&self.core.state, self.outbox.unacknowledged());
        self.numbers.live.store(true, Ordering::Relaxed);
        self.owned.set_loaded();
        let (position, open) = (self.core.state.next_offset(), self.core.state.sagas().len());
        tracing::info!(lane = self.core.lane.0, position, open, again, "lane loaded");
        Ok(flow)
    }

    async fn live(mut self) -> Result<(), LaneFault> {
        loop {
            if self.upkeep().await?.is_break() {
                return Ok(());
            }
            match self.wake().await? {
                Wake::Acknowledged => {}
                Wake::Written(written) => self.written(written),
                Wake::Asked(question) => {
                    // Whoever asked may have gone away.
                    let _ = question.answer.send(SagaView::find(&self.core.state, question.saga));
                }
                Wake::Event(LaneEvent::Records(records)) => match self.take_in(&records, Mode::Live).await {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => {
                        self.settle().await;
                        return Ok(());
                    }
                    Err(LaneFault::Halt(reason)) => {
                        if self.publish().await?.is_continue() {
                            self.settle().await;
                        }
                        return Err(reason.into());
                    }
                    Err(fault) => return Err(fault),
                },
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
            self.core.queue_due(now);
        }
        let flow = self.publish().await?;
        if flow.is_continue() {
            self.core.keep_checkpoint(self.outbox.issued(), self.outbox.acknowledged(), now);
            self.show(now);
        }
        Ok(flow)
    }

    /// Lets others see how the lane is.
    fn show(&mut self, now: Instant) {
        self.numbers.update(&self.core.state, self.outbox.unacknowledged());
        self.numbers.unsaved(self.core.checkpoints.unsaved_since());
        self.core.count_ages(&self.numbers.ages, now);
    }

    async fn wake(&mut self) -> Result<Wake, LaneFault> {
        let until = self.core.next_due();
        let folding = !self.outbox.is_full();
        let Self { owned, outbox, core, questions, .. } = self;
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
            written = core.checkpoints.written() => Ok(Wake::Written(written?)),
            Some(question) = questions.recv() => Ok(Wake::Asked(question)),
            event = event => event,
        }
    }

    /// Folds records. Whenever some of them were set aside, a checkpoint is written behind them before the next one is
    /// folded. Break: the lane was taken away.
    async fn take_in(&mut self, mut records: &[Record], mode: Mode) -> Result<ControlFlow<()>, LaneFault> {
        while !records.is_empty() {
            let outcome = {
                let _scope = stages::enter(Stage::Fold);
                self.core.fold(records, mode, Instant::now())
            };
            self.owned.set_position(self.core.position);
            let taken = outcome.map_err(|fault| self.fold_failed(fault))?;
            records = records.get(taken..).unwrap_or_default();
            if let Some((offset, why)) = self.core.take_panic()
                && self.panicked(offset, &why) >= MAX_TRIES
            {
                self.shun(offset, why).await?;
            }
            if self.core.owes_checkpoint() && self.write_owed().await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn fold_failed(&self, fault: FoldFault) -> LaneFault {
        match fault {
            FoldFault::Halt(reason) => reason.into(),
            FoldFault::Panicked { offset, why } => {
                self.panicked(offset, &why);
                LaneFault::Restart(format!("the record at offset {offset} panics: {why}"))
            }
        }
    }

    /// Says for the how manieth time.
    fn panicked(&self, offset: i64, why: &str) -> u32 {
        let lane = self.core.lane;
        let tries = self.shared.suspects.panicked(lane, offset, why.to_owned());
        tracing::error!(lane = lane.0, offset, tries, why, "an inbox record makes the fold panic");
        tries
    }

    /// Writes the checkpoint behind what was set aside, once that and all before it is acknowledged.
    async fn write_owed(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        if self.publish().await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        while self.core.owes_checkpoint() {
            self.core.keep_checkpoint(self.outbox.issued(), self.outbox.acknowledged(), Instant::now());
            tokio::select! {
                acknowledged = self.outbox.next_acknowledged() => acknowledged.map_err(unknown_delivery)?,
                written = self.core.checkpoints.written() => self.written(written?),
                () = self.owned.revoked() => return Ok(ControlFlow::Break(())),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A checkpoint is in the store.
    fn written(&mut self, written: checkpoint::Written) {
        self.numbers.checkpointed();
        self.owned.set_stored(written.next);
        self.core.checkpoint_written(written, Instant::now());
    }

    /// Sends what is queued and remembers the receipts. Break: the lane was taken away before all of it was sent.
    async fn publish(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        self.is_unsent = true;
        if self.find_homes().await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let mut records = self.core.emitter.take();
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
        self.is_unsent = false;
        Ok(ControlFlow::Continue(()))
    }

    /// Sets aside what is for topics that are not there: otherwise nothing of the lane could be sent any more.
    async fn find_homes(&mut self) -> Result<ControlFlow<()>, LaneFault> {
        while let Some((doubtful, topic)) = self.core.emitter.doubtful() {
            let (lane, topic) = (self.core.lane, topic.clone());
            let refusal = tokio::select! {
                refusal = self.shared.homes.refusal(&self.shared.publisher, &topic, lane) => refusal,
                () = self.owned.revoked() => return Ok(ControlFlow::Break(())),
            };
            match refusal.map_err(|error| LaneFault::Restart(error.to_string()))? {
                None => self.core.emitter.is_there(&topic),
                Some(why) => self.core.set_aside_news(doubtful, why),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Writes a last checkpoint before the lane is given up, if the receipts come in time. If not, the next owner folds
    /// a little more and says it all again.
    async fn settle(&mut self) {
        // A checkpoint says that all before it was sent: results are told by nobody else.
        if self.is_unsent {
            tracing::info!(lane = self.core.lane.0, "lane given up while it was sending: no last checkpoint");
            return;
        }
        let ended = tokio::time::timeout(self.shared.drain_deadline, self.write_last()).await;
        let lane = self.core.lane.0;
        match ended {
            Ok(Ok(())) => tracing::debug!(lane, "last checkpoint written"),
            Ok(Err(fault)) => tracing::warn!(lane, %fault, "lane given up without a last checkpoint"),
            Err(_) => tracing::warn!(lane, "lane given up before its last checkpoint was written"),
        }
    }

    async fn write_last(&mut self) -> Result<(), LaneFault> {
        loop {
            if self.core.keep_last_checkpoint(self.outbox.issued(), self.outbox.acknowledged(), Instant::now()) {
                return Ok(());
            }
            tokio::select! {
                acknowledged = self.outbox.next_acknowledged() => acknowledged.map_err(unknown_delivery)?,
                written = self.core.checkpoints.written() => self.owned.set_stored(written?.next),
            }
        }
    }
}

/// Whether the records are in the log is unknown: back to the checkpoint, and all is said again with the same ids.
fn unknown_delivery(error: event_stream::PublishError) -> LaneFault {
    LaneFault::Restart(error.to_string())
}
