//! A lane's state in the store: loaded at takeover, written as a snapshot at one offset.

mod load;
mod write;

pub use self::load::{Loaded, load, restore};
pub use self::write::{WriteCheckpoint, WriteOutcome};

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use event_stream::{HaltReason, Lane, LaneFault};
use redis_txn::{CommitError, Queue};
use saga_core::ended::EndedSequences;
use saga_core::ids::{SagaId, Starter};
use saga_core::lane::{Changes, LaneState};
use telemetry::metrics;
use uuid::Uuid;

use crate::decide::CheckpointSchedule;
use crate::emit::Ticket;

/// Key of a lane's head.
pub fn checkpoint_key(lane: Lane) -> String {
    format!("checkpoint:{lane}")
}

/// Key of the texts that a lane knows.
pub fn definitions_key(lane: Lane) -> String {
    format!("definitions:{lane}")
}

/// Key of one open saga.
pub fn saga_key(lane: Lane, saga: SagaId) -> String {
    format!("saga:{lane}:{saga}")
}

/// The checkpoints of one run of a lane loop: at most one is frozen, and at most one is being written. A later freeze
/// waits, so that changes are never taken out of the state without being written.
pub struct Checkpoints {
    lane: Lane,
    commit: Commit,
    schedule: CheckpointSchedule,
    /// Names this run of the loop in what it writes.
    writer: Uuid,
    /// The version last loaded or written.
    version: u64,
    stage: Stage,
    /// When the oldest record was folded that is only in the state.
    gathering_since: Option<Instant>,
    /// The same for the snapshot that is not written yet.
    frozen_since: Option<Instant>,
}

enum Stage {
    /// Changes gather in the state.
    Gathering,
    /// The state as it was; waits for the receipts of everything sent up to then.
    Frozen { changes: Changes, after: Ticket, at: Instant },
    /// On its way to the store.
    Writing { outcome: Write, snapshot: Written, at: Instant },
}

/// How a snapshot gets to the store.
pub type Commit = Box<dyn Fn(WriteCheckpoint) -> Write + Send + Sync>;
/// A snapshot on its way; an error means that the loop's state must be thrown away.
pub type Write = Pin<Box<dyn Future<Output = Result<WriteOutcome, CommitError>> + Send>>;

/// A checkpoint that has been written.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The offset after the last record in it.
    pub next: i64,
    /// What had ended, per starter, at its offset.
    pub ended: BTreeMap<Starter, EndedSequences>,
}

impl Checkpoints {
    /// Goes on from the version that was loaded.
    pub fn new(lane: Lane, queue: Queue, schedule: CheckpointSchedule, version: u64) -> Self {
        let commit: Commit = Box::new(move |write| Box::pin(queue.run(write)));
        Self::with_commit(lane, commit, schedule, version, Uuid::new_v4())
    }

    /// The same with another way to the store, and the name under which this run of the loop writes.
    pub fn with_commit(lane: Lane, commit: Commit, schedule: CheckpointSchedule, version: u64, writer: Uuid) -> Self {
        let stage = Stage::Gathering;
        Self { lane, commit, schedule, writer, version, stage, gathering_since: None, frozen_since: None }
    }

    /// Records have been folded.
    pub fn folded(&mut self, records: u64, now: Instant) {
        self.schedule.folded(records, now);
        self.gathering_since.get_or_insert(now);
    }

    /// When the oldest record was folded that no checkpoint holds.
    pub fn unsaved_since(&self) -> Option<Instant> {
        self.frozen_since.or(self.gathering_since)
    }

    /// When the loop should call [`Self::freeze_if_due`] although nothing else happens.
    pub fn due_at(&self) -> Option<Instant> {
        matches!(self.stage, Stage::Gathering).then(|| self.schedule.due_at()).flatten()
    }

    /// Freezes the state as it is now, if it is time and no earlier snapshot is under way. Everything that follows
    /// from the records folded must have been sent, `issued` being the last batch.
    pub fn freeze_if_due(&mut self, state: &mut LaneState, issued: Ticket, now: Instant) {
        if self.schedule.is_due(now) {
            self.freeze(state, issued, now);
        }
    }

    /// The same without waiting for the time: the lane is given up.
    pub fn freeze_now(&mut self, state: &mut LaneState, issued: Ticket, now: Instant) {
        if self.schedule.has_news() {
            self.freeze(state, issued, now);
        }
    }

    fn freeze(&mut self, state: &mut LaneState, issued: Ticket, now: Instant) {
        if matches!(self.stage, Stage::Gathering) {
            self.stage = Stage::Frozen { changes: state.take_changes(), after: issued, at: now };
            self.schedule.frozen();
            self.frozen_since = self.gathering_since.take();
        }
    }

    /// Hands the frozen snapshot to the store once every batch sent before it is acknowledged.
    pub fn write_if_acknowledged(&mut self, acknowledged: Ticket) {
        let (changes, at) = match std::mem::replace(&mut self.stage, Stage::Gathering) {
            Stage::Frozen { changes, after, at } if after <= acknowledged => (changes, at),
            other => {
                self.stage = other;
                return;
            }
        };
        let snapshot = Written { next: changes.head.next_offset, ended: changes.head.ended.clone() };
        let write = WriteCheckpoint::new(self.lane, self.version, self.writer, changes);
        self.stage = Stage::Writing { outcome: (self.commit)(write), snapshot, at };
    }

    /// Whether nothing is frozen or being written and nothing has been folded since.
    pub fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Gathering) && !self.schedule.has_news()
    }

    /// Waits until the checkpoint that is being written is there; for ever when there is none. Cancel-safe. An error
    /// means that the loop's state must be thrown away and loaded again.
    pub async fn written(&mut self) -> Result<Written, LaneFault> {
        let Stage::Writing { outcome, .. } = &mut self.stage else {
            return std::future::pending().await;
        };
        let outcome = outcome.await;
        let Stage::Writing { snapshot, at, .. } = std::mem::replace(&mut self.stage, Stage::Gathering) else {
            return Err(LaneFault::Restart("checkpoint without a write".to_owned()));
        };
        metrics::CHECKPOINTS.add(1, &[("outcome", outcome_name(&outcome))]);
        metrics::CHECKPOINT_SECONDS.record(at.elapsed().as_secs_f64(), &[]);
        match outcome {
            Ok(WriteOutcome::Written) => {
                self.version += 1;
                self.frozen_since = None;
                Ok(snapshot)
            }
            Ok(WriteOutcome::Fenced { found }) => {
                let expected = self.version;
                Err(LaneFault::Restart(format!("fenced: checkpoint version {found}, expected {expected}")))
            }
            Ok(WriteOutcome::Unreadable(reason)) => Err(reason.into()),
            Err(error) => Err(store_failed("write", error)),
        }
    }
}

/// A value that cannot be ours is not passed by, however often it is read; the rest may be better next time.
pub(crate) fn store_failed(what: &str, error: CommitError) -> LaneFault {
    match error {
        CommitError::WrongType(key) => HaltReason::Corrupt(format!("key {key} is not a plain string")).into(),
        error => LaneFault::Restart(format!("{what} checkpoint: {error}")),
    }
}

fn outcome_name(outcome: &Result<WriteOutcome, CommitError>) -> &'static str {
    match outcome {
        Ok(WriteOutcome::Written) => "written",
        Ok(WriteOutcome::Fenced { .. }) => "fenced",
        Ok(WriteOutcome::Unreadable(_)) => "unreadable",
        Err(_) => "failed",
    }
}

#[cfg(test)]
mod tests;
