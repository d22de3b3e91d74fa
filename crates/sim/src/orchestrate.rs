//! One lane of the orchestrator. Fold, emitter, outbox, checkpoints and schedules are the real ones ([`LaneCore`],
//! [`Outbox`]); the order in which the loop calls them is that of `orchestrator/src/lane_loop.rs`, modelled.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use event_stream::{LaneFault, Outgoing, Record};
use orchestrator::ages::Ages;
use orchestrator::checkpoint::{Checkpoints, WriteCheckpoint, checkpoint_key, definitions_key, restore, saga_key};
use orchestrator::decide::CheckpointSchedule;
use orchestrator::emit::Outbox;
use orchestrator::fold::Mode;
use orchestrator::lane_core::LaneCore;
use orchestrator::summary::{Summaries, SummaryRule};
use proto::Wire;
use proto::checkpoint::Checkpoint;
use saga_core::ids::Lane;
use saga_core::lane::{LaneState, SUPPORTED_FOLD_VERSION};

use crate::faults::Point;
use crate::log::Topic;
use crate::mistakes::{Defence, Mistake};
use crate::mutate;
use crate::network::SimReceipt;
use crate::plans::definitions;
use crate::task::Did;
use crate::world::{ORCHESTRATOR, Stop, World};

/// Time between two checkpoints of a lane, and records after which one is due before its time: small, so that a short
/// run has many.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(700);
const CHECKPOINT_RECORDS: u64 = 9;
/// Most records that one fold takes.
const MAX_FOLD: usize = 6;
/// A lane that is given up waits so many looks for its last checkpoint.
const SETTLE_LOOKS: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Load,
    CatchUp,
    Recover,
    Live,
}

/// One lane from load to revocation or fault.
pub struct OrchestratorLane {
    worker: usize,
    lane: Lane,
    phase: Phase,
    core: Option<LaneCore>,
    outbox: Outbox<SimReceipt>,
    settle_looks: u32,
    frozen_at: i64,
    ages: Ages,
}

impl OrchestratorLane {
    /// Nothing is loaded yet.
    pub fn new(worker: usize, lane: Lane) -> Self {
        let outbox = Outbox::default();
        Self {
            worker,
            lane,
            phase: Phase::Load,
            core: None,
            outbox,
            settle_looks: 0,
            frozen_at: 0,
            ages: Ages::default(),
        }
    }

    /// One thing.
    pub fn step(&mut self, world: &mut World, revoked: bool) -> Result<Did, Stop> {
        match self.phase {
            Phase::Load => {
                world.point(Point::OrchestratorLoad)?;
                self.core = Some(self.load(world)?);
                self.phase = Phase::CatchUp;
                world.point(Point::OrchestratorLoaded)?;
                Ok(Did::Something)
            }
            _ if revoked && self.phase != Phase::Live => Ok(Did::Ended),
            Phase::CatchUp => self.catch_up(world),
            Phase::Recover => self.recover(world),
            Phase::Live if revoked => self.settle(world),
            Phase::Live => self.live(world),
        }
    }

    /// When something is due.
    pub fn due_ms(&self, world: &World) -> Option<i64> {
        let core = self.core.as_ref()?;
        core.next_due().map(|due| world.log_ms(due))
    }

    fn load(&self, world: &mut World) -> Result<LaneCore, Stop> {
        let (lane, store) = (self.lane, &world.stores[ORCHESTRATOR]);
        let halt = |why: String| Stop::Halt(format!("orchestrator lane {lane}: {why}"));
        let (state, version, position) = match store.get(&checkpoint_key(lane)) {
            None => (LaneState::new(lane), 0, world.start_of_new_lane(ORCHESTRATOR, lane)?),
            Some(head) => {
                let checkpoint = Checkpoint::decode(head).map_err(|error| halt(error.to_string()))?;
                let saga = |id| store.get(&saga_key(lane, id)).cloned();
                let sagas = checkpoint.head.open.iter().map(|id| saga(*id)).collect();
                let loaded =
                    restore(SUPPORTED_FOLD_VERSION, lane, checkpoint, store.get(&definitions_key(lane)), sagas);
                let loaded = loaded.map_err(|reason| halt(reason.to_string()))?;
                (loaded.state, loaded.version, loaded.next.unwrap_or(0))
            }
        };
        if version > 0 {
            world.stands(ORCHESTRATOR, lane, position);
        }
        let (now, writer) = (world.instant(), world.fresh_id());
        let schedule = CheckpointSchedule::new(world.base(), CHECKPOINT_INTERVAL, CHECKPOINT_RECORDS);
        let process = world.process(ORCHESTRATOR, self.worker);
        let (offline, generation) = (process.offline.clone(), process.generation);
        let slip = mutate::checkpoint_slip(world, lane);
        let commit = move |write: WriteCheckpoint| -> orchestrator::checkpoint::Write {
            match slip {
                None => Box::pin(offline.run(lane.0, write)),
                Some(mistake) => Box::pin(offline.run(lane.0, mutate::SlippedCheckpoint { write, mistake, lane })),
            }
        };
        let checkpoints = Checkpoints::with_commit(lane, Box::new(commit), schedule, version, writer);
        let wanted = definitions(&world.names, generation, world.makes(Mistake::PivotUndone));
        world.note(|| format!("orchestrator-{}[{lane}]: loaded version {version} at {position}", self.worker));
        let summaries = SummaryRule { which: Summaries::Off, slow_ms: 0 };
        Ok(LaneCore::new(state, position, checkpoints, Arc::new(wanted), summaries, now))
    }

    fn fold(&mut self, world: &mut World, records: &[Record], mode: Mode) -> Result<(), Stop> {
        let now = world.instant();
        let Some(core) = &mut self.core else { return Ok(()) };
        let altered = mutate::records(world, self.worker, self.lane, records, core.state())?;
        let taken = core.fold(altered.as_deref().unwrap_or(records), mode, now);
        let taken = taken.map_err(|fault| Stop::Halt(format!("{fault:?}")))?;
        let position = core.position();
        world.oracle.folded(self.lane, position, core.state())?;
        if world.makes(Mistake::OffsetBeforeCheckpoint) {
            world.stands(ORCHESTRATOR, self.lane, position);
        }
        world.coverage.count("records folded", taken as u64);
        if core.owes_checkpoint() {
            world.coverage.count("checkpoints owed", 1);
        }
        Ok(())
    }

    fn next_records(&self, world: &mut World) -> Vec<Record> {
        let position = self.core.as_ref().map_or(0, LaneCore::position);
        let count = 1 + world.rng.below(MAX_FOLD);
        world.read(Topic::Inbox, self.lane, position, count)
    }

    /// Folds to the log's end without a command.
    fn catch_up(&mut self, world: &mut World) -> Result<Did, Stop> {
        if self.core.as_ref().is_some_and(LaneCore::owes_checkpoint) {
            return self.write_owed(world);
        }
        let records = self.next_records(world);
        if records.is_empty() {
            self.phase = Phase::Recover;
            return Ok(Did::Something);
        }
        self.fold(world, &records, Mode::Silent)?;
        if world.makes(Mistake::ResultsNotRepeated)
            && let Some(core) = &mut self.core
        {
            core.emitter().take();
        }
        world.point(Point::OrchestratorCaughtUp)?;
        Ok(Did::Something)
    }

    /// A record was set aside: nothing is folded before a checkpoint lies behind it.
    fn write_owed(&mut self, world: &mut World) -> Result<Did, Stop> {
        let outgoing = self.core.as_mut().map(|core| core.emitter().take()).unwrap_or_default();
        self.publish(world, outgoing)?;
        let (issued, acknowledged) = self.tickets(world);
        let now = world.instant();
        if let Some(core) = &mut self.core {
            core.keep_checkpoint(issued, acknowledged, now);
        }
        Ok(self.wake(world)?.unwrap_or(Did::Nothing))
    }

    /// Says again what may not have been heard.
    fn recover(&mut self, world: &mut World) -> Result<Did, Stop> {
        world.point(Point::OrchestratorRecovery)?;
        let now = world.instant();
        if let Some(core) = &mut self.core {
            let mut before = core.emitter().take();
            core.queue_recovery(now);
            if !world.makes(Mistake::AwaitedNotRepeated) {
                before.extend(core.emitter().take());
            } else {
                before.extend(core.emitter().take().into_iter().filter(mutate::is_floor));
            }
            self.publish(world, before)?;
        }
        self.phase = Phase::Live;
        world.point(Point::OrchestratorRecovered)?;
        Ok(Did::Something)
    }

    fn live(&mut self, world: &mut World) -> Result<Did, Stop> {
        self.upkeep(world)?;
        if let Some(did) = self.wake(world)? {
            return Ok(did);
        }
        let owes_checkpoint = self.core.as_ref().is_some_and(LaneCore::owes_checkpoint);
        let records = self.next_records(world);
        if records.is_empty() || self.outbox.is_full() || owes_checkpoint {
            return Ok(Did::Nothing);
        }
        self.fold(world, &records, Mode::Live)?;
        world.point(Point::OrchestratorFolded)?;
        Ok(Did::Something)
    }

    /// What is done between two events: queue what is due, send, keep the checkpoint.
    fn upkeep(&mut self, world: &mut World) -> Result<(), Stop> {
        let now = world.instant();
        let Some(core) = &mut self.core else { return Ok(()) };
        let mut outgoing = Vec::new();
        if !self.outbox.is_full() {
            let without_resends = world.lacks(Defence::Resends);
            if without_resends {
                outgoing = core.emitter().take();
            }
            core.queue_due(now);
            let mut due = core.emitter().take();
            due.retain(|record| !mutate::is_cut_off(world, record, without_resends));
            outgoing.extend(due);
        }
        if mutate::acts_locally(world, core, &mut outgoing) {
            world.note(|| "a deadline is acted on without a record".to_owned());
        }
        if !outgoing.is_empty() {
            world.point(Point::OrchestratorDue)?;
            self.publish(world, outgoing)?;
            world.point(Point::OrchestratorSent)?;
        }
        let (issued, acknowledged) = self.tickets(world);
        let Some(core) = &mut self.core else { return Ok(()) };
        let settled = core.checkpoints().is_settled();
        core.keep_checkpoint(issued, acknowledged, now);
        core.count_ages(&self.ages, now);
        if !settled && self.frozen_at != core.position() && core.checkpoints().due_at().is_none() {
            self.frozen_at = core.position();
            world.point(Point::OrchestratorFrozen)?;
        }
        Ok(())
    }

    fn tickets(&self, world: &World) -> (u64, u64) {
        let issued = self.outbox.issued();
        let hasty = world.makes(Mistake::CheckpointBeforeAcks);
        (issued, if hasty { issued } else { self.outbox.acknowledged() })
    }

    /// Receipts and written checkpoints that have come.
    fn wake(&mut self, world: &mut World) -> Result<Option<Did>, Stop> {
        match look(self.outbox.next_acknowledged()) {
            Poll::Ready(Ok(())) => return Ok(Some(Did::Something)),
            Poll::Ready(Err(error)) => return Err(Stop::Restart(error.to_string())),
            Poll::Pending => {}
        }
        let now = world.instant();
        let Some(core) = &mut self.core else { return Ok(None) };
        match look(core.checkpoints().written()) {
            Poll::Ready(Ok(written)) => {
                world.coverage.count("checkpoints written", 1);
                // What is committed follows what is stored: a lane with a committed offset and no checkpoint halts.
                world.stands(ORCHESTRATOR, self.lane, written.next);
                if !world.makes(Mistake::FloorsNotRepeated) {
                    core.checkpoint_written(written, now);
                }
                world.point(Point::OrchestratorWritten)?;
                Ok(Some(Did::Something))
            }
            Poll::Ready(Err(LaneFault::Restart(why))) => {
                world.coverage.count("checkpoints fenced", 1);
                Err(Stop::Restart(why))
            }
            Poll::Ready(Err(LaneFault::Halt(reason))) => Err(Stop::Halt(reason.to_string())),
            Poll::Pending => Ok(None),
        }
    }

    /// A last checkpoint before the lane is given up, if the receipts come in time.
    fn settle(&mut self, world: &mut World) -> Result<Did, Stop> {
        self.settle_looks += 1;
        if self.settle_looks > SETTLE_LOOKS {
            return Ok(Did::Ended);
        }
        if self.settle_looks == 1 {
            self.upkeep(world)?;
        }
        let now = world.instant();
        let (issued, acknowledged) = self.tickets(world);
        let Some(core) = &mut self.core else { return Ok(Did::Ended) };
        if core.keep_last_checkpoint(issued, acknowledged, now) {
            return Ok(Did::Ended);
        }
        world.point(Point::OrchestratorWriting)?;
        self.wake(world)?;
        Ok(Did::Something)
    }

    fn publish(&mut self, world: &mut World, records: Vec<Outgoing>) -> Result<(), Stop> {
        let state = self.core.as_ref().map(LaneCore::state);
        let records = mutate::outgoing(world, self.lane, records, state);
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len();
        let receipt = world.send(records)?;
        self.outbox.sent(count, receipt);
        Ok(())
    }
}

/// Looks at a future once.
pub fn look<F: Future>(future: F) -> Poll<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut context)
}
