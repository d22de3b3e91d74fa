//! The state of one lane: everything that the fold over its inbox has built.
//!
//! The state is also the outbox: what open sagas await can be computed from it at any time.

mod changes;
mod definitions;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::changes::{Changes, LaneHead};
pub use self::definitions::DefinitionTable;
pub use self::restore::RestoreError;

use crate::effect::Effect;
use crate::ended::EndedSequences;
use crate::ids::{Lane, SagaId, Starter};
use crate::record::{Floor, Start, Timer};
use crate::saga::{Deadline, Saga};

/// Open sagas of one lane. Starters bound what they have in flight far below this; the limit keeps a starter that
/// does not from filling the memory of every orchestrator.
pub const MAX_OPEN_SAGAS: usize = 50_000;
/// Starts that wait for a definition, per lane: a definition arrives within moments or never.
pub const MAX_PARKED: usize = 1_000;
/// Time that a start waits for its definition before it ends as refused; below the patience of a client.
pub const PARKED_DEADLINE_MS: i64 = 20_000;
/// Starters that a lane keeps apart. Every wiped or restored store of a starter counts as one more.
pub const MAX_STARTERS: usize = 1_000;
/// Versions of definitions that a lane knows at a time: the active ones and those that open sagas started with.
pub const MAX_DEFINITIONS: usize = 256;
/// The highest sequence that a start may have, so that the one above it can be written down.
pub const MAX_SEQUENCE: u64 = u64::MAX - 1;
/// The version of the fold that a new lane starts with.
pub const FIRST_FOLD_VERSION: u32 = 1;
/// The highest version of the fold that this program knows.
pub const SUPPORTED_FOLD_VERSION: u32 = 1;
/// A version that no released program knows: tests adopt it, and it differs in one transition. Under it the starter hears of
/// every undo at once, also after a refusal.
pub const TRIAL_FOLD_VERSION: u32 = u32::MAX;

/// The state of one lane after some record.
#[derive(Clone, Debug)]
pub struct LaneState {
    pub(crate) lane: Lane,
    pub(crate) next_offset: i64,
    pub(crate) time_ms: i64,
    pub(crate) fold_version: u32,
    /// Of the program, not of the log: the highest version that it may fold.
    pub(crate) supported: u32,
    pub(crate) sagas: BTreeMap<SagaId, Arc<Saga>>,
    pub(crate) starters: BTreeMap<Starter, StarterState>,
    pub(crate) definitions: DefinitionTable,
    pub(crate) parked: BTreeMap<SagaId, Parked>,
    /// Derived: every deadline in the order of its time, with the timer that stands for it.
    pub(crate) deadlines: BTreeSet<(i64, Timer)>,
    /// Since the last [`LaneState::take_changes`].
    pub(crate) marks: changes::Marks,
}

/// What a lane knows of one starter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StarterState {
    /// The sequences that have ended.
    pub ended: EndedSequences,
    /// Derived: which saga holds a sequence that has started and not ended.
    pub(crate) holders: BTreeMap<u64, SagaId>,
}

impl StarterState {
    /// Whether a sequence above the floor has started or ended: then the floor should rise one day.
    pub fn has_above_floor(&self) -> bool {
        !self.holders.is_empty() || self.ended.above().next().is_some()
    }
}

/// A start that waits for its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The start.
    pub start: Start,
    /// When it ends as refused; armed by the start's own record.
    pub deadline: Deadline,
}

impl LaneState {
    /// The state of a lane before its first record.
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            next_offset: 0,
            time_ms: 0,
            fold_version: FIRST_FOLD_VERSION,
            supported: SUPPORTED_FOLD_VERSION,
            sagas: BTreeMap::new(),
            starters: BTreeMap::new(),
            definitions: DefinitionTable::default(),
            parked: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            marks: changes::Marks::default(),
        }
    }

    /// The same in a program that knows the fold up to this version: tests play older and newer programs.
    #[must_use]
    pub fn supporting(mut self, supported: u32) -> Self {
        self.supported = supported;
        self
    }

    /// Which lane it is.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Offset of the next record to fold.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Log time of the last record folded, milliseconds since the Unix epoch; 0 before the first.
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// The version that the fold behaves like for new sagas.
    pub fn fold_version(&self) -> u32 {
        self.fold_version
    }

    /// The open sagas, by id.
    pub fn sagas(&self) -> &BTreeMap<SagaId, Arc<Saga>> {
        &self.sagas
    }

    /// One open saga.
    pub fn saga(&self, id: SagaId) -> Option<&Saga> {
        self.sagas.get(&id).map(Arc::as_ref)
    }

    /// The starts that wait for their definition, by saga.
    pub fn parked(&self) -> &BTreeMap<SagaId, Parked> {
        &self.parked
    }

    /// What the lane knows of each starter.
    pub fn starters(&self) -> &BTreeMap<Starter, StarterState> {
        &self.starters
    }

    /// The definitions that the lane knows.
    pub fn definitions(&self) -> &DefinitionTable {
        &self.definitions
    }

    /// The floors of all starters, to be told to [`DefinitionTable::participants`].
    pub fn floors(&self) -> Vec<Floor> {
        self.starters
            .iter()
            .filter(|(_, state)| state.ended != EndedSequences::default())
            .map(|(starter, state)| Floor { starter: starter.clone(), ended: state.ended.clone() })
            .collect()
    }

    /// When the next timer is due, in log time.
    pub fn next_deadline(&self) -> Option<i64> {
        self.deadlines.first().map(|(at_ms, _)| *at_ms)
    }

    /// The timers whose time has come, oldest first. Nothing changes until their records are folded, so the caller
    /// remembers which of them it has sent and not read back.
    pub fn due(&self, now_ms: i64) -> impl Iterator<Item = &Timer> + '_ {
        self.deadlines.iter().take_while(move |(at_ms, _)| *at_ms <= now_ms).map(|(_, timer)| timer)
    }

    /// The commands that all open sagas wait for an answer to, but for those that are held: to be sent again after a
    /// takeover.
    pub fn awaited(&self) -> Vec<Effect> {
        self.sagas.values().filter(|saga| !saga.is_held()).flat_map(|saga| saga.awaited()).collect()
    }

    /// The commands that one saga waits for an answer to: to be sent again by the safety net.
    pub fn awaited_of(&self, id: SagaId) -> Vec<Effect> {
        self.saga(id).map(Saga::awaited).unwrap_or_default()
    }
}

impl PartialEq for LaneState {
    /// Compares what the fold has built, not what has changed since the last checkpoint, nor what the program knows.
    fn eq(&self, other: &Self) -> bool {
        self.lane == other.lane
            && self.next_offset == other.next_offset
            && self.time_ms == other.time_ms
            && self.fold_version == other.fold_version
            && self.sagas == other.sagas
            && self.starters == other.starters
            && self.definitions == other.definitions
            && self.parked == other.parked
            && self.deadlines == other.deadlines
    }
}

impl Eq for LaneState {}
