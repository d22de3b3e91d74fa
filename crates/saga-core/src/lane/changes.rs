//! What has changed since the last checkpoint, frozen as it is after one record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{LaneState, Parked};
use crate::definition::Definition;
use crate::ended::EndedSequences;
use crate::ids::{Lane, SagaId, Starter};
use crate::saga::Saga;

/// What a checkpoint writes: a snapshot at one offset.
///
/// Whoever takes it either writes it or throws the lane's state away and loads again: it is handed out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The lane's own part, whole.
    pub head: LaneHead,
    /// Open sagas that are new or changed, by id.
    pub changed: Vec<Arc<Saga>>,
    /// Sagas that have ended, by id: to be deleted even if this process never stored them.
    pub ended: Vec<SagaId>,
    /// All definitions that the lane knows, if that has changed.
    pub definitions: Option<Vec<Arc<Definition>>>,
}

/// The part of a lane's state that is written whole with every checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneHead {
    /// Which lane it is.
    pub lane: Lane,
    /// Offset of the next record to fold.
    pub next_offset: i64,
    /// Log time of the last record folded.
    pub time_ms: i64,
    /// The version of the fold.
    pub fold_version: u32,
    /// Per starter: the sequences that have ended.
    pub ended: BTreeMap<Starter, EndedSequences>,
    /// The open sagas, ascending.
    pub open: Vec<SagaId>,
    /// The starts that wait for their definition, by saga.
    pub parked: Vec<Parked>,
}

/// Which parts have changed since the last snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    changed: BTreeSet<SagaId>,
    ended: BTreeSet<SagaId>,
    definitions: Mark,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Clean,
    Changed,
}

impl Marks {
    pub(crate) fn saga_changed(&mut self, id: SagaId) {
        self.ended.remove(&id);
        self.changed.insert(id);
    }

    pub(crate) fn saga_ended(&mut self, id: SagaId) {
        self.changed.remove(&id);
        self.ended.insert(id);
    }

    pub(crate) fn definitions_changed(&mut self) {
        self.definitions = Mark::Changed;
    }
}

impl LaneState {
    /// How many sagas have changed or ended since the last snapshot.
    pub fn changes_pending(&self) -> usize {
        self.marks.changed.len() + self.marks.ended.len()
    }

    /// Freezes what has changed since the last call, as it is now: after the record before `head.next_offset`.
    pub fn take_changes(&mut self) -> Changes {
        let marks = std::mem::take(&mut self.marks);
        Changes {
            head: self.head(),
            changed: marks.changed.iter().filter_map(|id| self.sagas.get(id).cloned()).collect(),
            ended: marks.ended.into_iter().collect(),
            definitions: (marks.definitions == Mark::Changed).then(|| self.definitions.iter().cloned().collect()),
        }
    }

    /// The lane's own part, as it is now.
    pub fn head(&self) -> LaneHead {
        LaneHead {
            lane: self.lane,
            next_offset: self.next_offset,
            time_ms: self.time_ms,
            fold_version: self.fold_version,
            ended: self.starters.iter().map(|(starter, state)| (starter.clone(), state.ended.clone())).collect(),
            open: self.sagas.keys().copied().collect(),
            parked: self.parked.values().cloned().collect(),
        }
    }
}
