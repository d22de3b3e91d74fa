//! One lane without its surroundings: what has been folded, what is to be sent, what is due. Nothing in here waits: the
//! lane loop brings records and instants and carries the results out, and so does the simulation.

use std::sync::Arc;
use std::time::Instant;

use event_stream::Lane;
use saga_core::effect::Effect;
use saga_core::ids::TraceContext;
use saga_core::lane::LaneState;
use saga_core::record::Timer;

use crate::ages::{AgeScan, Ages};
use crate::checkpoint::{Checkpoints, Written};
use crate::decide::{FloorSchedule, LogClock, ResendSchedule, Underway};
use crate::definitions::Definitions;
use crate::emit::{Emitter, Ticket};
use crate::poison::Probe;
use crate::summary::SummaryRule;
use crate::upkeep::{ACTIVATION_RETRY, MAX_ACTIVATIONS, MAX_TIMERS, TIMER_RETRY};

/// Everything that a lane's loop knows, but for receipts and whoever asks.
pub struct LaneCore {
    pub(crate) lane: Lane,
    pub(crate) state: LaneState,
    pub(crate) position: i64,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) clock: LogClock,
    pub(crate) emitter: Emitter,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) timers: Underway<Timer>,
    pub(crate) timers_checked: Instant,
    pub(crate) activations: Underway<String>,
    pub(crate) activations_next: Option<Instant>,
    pub(crate) resends: ResendSchedule,
    pub(crate) floors: FloorSchedule,
    pub(crate) ages: AgeScan,
    pub(crate) summaries: SummaryRule,
    /// What is not folded any more, and why.
    pub(crate) shunned: Option<(i64, String)>,
    /// What is tried alone before it is folded, and what it said if it has panicked again.
    pub(crate) suspect: Option<(i64, Option<String>)>,
    /// The offset behind a record that was set aside, until a checkpoint has it.
    pub(crate) owed_checkpoint: Option<i64>,
    pub(crate) probe: Option<Probe>,
}

impl LaneCore {
    /// A lane whose state has been loaded and that reads from `position`.
    pub fn new(
        state: LaneState,
        position: i64,
        checkpoints: Checkpoints,
        definitions: Arc<Definitions>,
        summaries: SummaryRule,
        now: Instant,
    ) -> Self {
        let lane = state.lane();
        Self {
            lane,
            position,
            definitions,
            clock: LogClock::new(state.time_ms(), now),
            emitter: Emitter::new(lane),
            checkpoints,
            timers: Underway::new(TIMER_RETRY, MAX_TIMERS),
            timers_checked: now,
            activations: Underway::new(ACTIVATION_RETRY, MAX_ACTIVATIONS),
            activations_next: Some(now),
            resends: ResendSchedule::new(now),
            floors: FloorSchedule::default(),
            ages: AgeScan::new(now),
            summaries,
            shunned: None,
            suspect: None,
            owed_checkpoint: None,
            probe: None,
            state,
        }
    }

    /// What has been folded.
    pub fn state(&self) -> &LaneState {
        &self.state
    }

    /// Next offset to read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// What is to be sent.
    pub fn emitter(&mut self) -> &mut Emitter {
        &mut self.emitter
    }

    /// The lane's snapshots.
    pub fn checkpoints(&mut self) -> &mut Checkpoints {
        &mut self.checkpoints
    }

    /// Queues what may not have been heard: the floors, and every command that an open saga awaits. (The results since
    /// the checkpoint are queued already.) Returns how many records are queued now.
    pub fn queue_recovery(&mut self, now: Instant) -> usize {
        let floors = self.state.floors();
        let participants = self.state.definitions().participants();
        for floor in &floors {
            self.emitter.floor(participants.iter().cloned(), floor.clone());
        }
        self.floors = FloorSchedule::told(&floors, now);
        self.queue_commands(self.state.awaited());
        self.emitter.len()
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

    /// Everything queued has been sent, `issued` being the last batch: freezes a snapshot if one is due or owed, and hands the
    /// frozen one to the store once all that was sent before it is acknowledged.
    pub fn keep_checkpoint(&mut self, issued: Ticket, acknowledged: Ticket, now: Instant) {
        match self.owed_checkpoint {
            None => self.checkpoints.freeze_if_due(&mut self.state, issued, now),
            Some(_) => self.checkpoints.freeze_now(&mut self.state, issued, now),
        }
        self.checkpoints.write_if_acknowledged(acknowledged);
    }

    /// The same for a lane that is given up: does not wait for the time. True when nothing is left to be written.
    pub fn keep_last_checkpoint(&mut self, issued: Ticket, acknowledged: Ticket, now: Instant) -> bool {
        self.checkpoints.freeze_now(&mut self.state, issued, now);
        self.checkpoints.write_if_acknowledged(acknowledged);
        self.checkpoints.is_settled()
    }

    /// Counts how old the open sagas are, if it is time.
    pub fn count_ages(&mut self, ages: &Ages, now: Instant) {
        self.ages.scan(&self.state, self.clock.estimate_ms(now), now, ages);
    }

    /// A snapshot is in the store: what had ended in it may be forgotten.
    pub fn checkpoint_written(&mut self, written: Written, now: Instant) {
        if self.owed_checkpoint.is_some_and(|owed| owed <= written.next) {
            self.owed_checkpoint = None;
        }
        self.floors.stored(written.ended, now);
    }
}
