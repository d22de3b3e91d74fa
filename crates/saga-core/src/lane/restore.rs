//! A lane's state rebuilt from a checkpoint, or the reason why the checkpoint is corrupt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{FIRST_FOLD_VERSION, LaneHead, LaneState, Parked, SUPPORTED_FOLD_VERSION, StarterState};
use crate::definition::{Definition, DefinitionId};
use crate::ids::{Lane, Ordinal, SagaId, Starter};
use crate::invariants::{self, Violation};
use crate::saga::Saga;

/// Why a checkpoint is no state of this lane: the lane must halt, nothing may be guessed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by a program that folds differently.
    #[error("the checkpoint has fold version {0}, which this program does not know")]
    FoldVersion(u32),
    /// The checkpoint counts the saga as open, its state is missing.
    #[error("open saga {0} has no state")]
    SagaMissing(SagaId),
    /// A state of a saga that the checkpoint does not count as open.
    #[error("saga {0} has a state, but is not open")]
    SagaNotOpen(SagaId),
    /// An open saga whose sequence has ended.
    #[error("saga {0} has ended, but has a state")]
    SagaHasEnded(SagaId),
    /// Two sagas with one ordinal.
    #[error("sagas {first} and {second} hold the same ordinal")]
    OrdinalTwice {
        /// One of them.
        first: SagaId,
        /// The other.
        second: SagaId,
    },
    /// A saga of another lane.
    #[error("saga {saga} belongs to lane {lane}")]
    WrongLane {
        /// The saga.
        saga: SagaId,
        /// Its lane.
        lane: Lane,
    },
    /// A saga whose definition the checkpoint does not hold.
    #[error("saga {saga} runs {definition}, which is not in the checkpoint")]
    DefinitionMissing {
        /// The saga.
        saga: SagaId,
        /// Its definition.
        definition: DefinitionId,
    },
    /// A state that no fold can have built, such as one that is ahead of the checkpoint's offset.
    #[error("the state breaks an invariant: {0}")]
    Broken(Violation),
}

impl LaneState {
    /// Rebuilds the state that a checkpoint froze.
    ///
    /// `definitions` are all that the lane knew, `sagas` the states of the open ones, in any order; each saga's
    /// `definition` is one of `definitions`.
    pub fn restore(
        head: LaneHead,
        definitions: impl IntoIterator<Item = Arc<Definition>>,
        sagas: impl IntoIterator<Item = Arc<Saga>>,
    ) -> Result<Self, RestoreError> {
        Self::restore_supporting(SUPPORTED_FOLD_VERSION, head, definitions, sagas)
    }

    /// The same in a program that knows the fold up to version `supported`; see [`LaneState::supporting`].
    pub fn restore_supporting(
        supported: u32,
        head: LaneHead,
        definitions: impl IntoIterator<Item = Arc<Definition>>,
        sagas: impl IntoIterator<Item = Arc<Saga>>,
    ) -> Result<Self, RestoreError> {
        if !(FIRST_FOLD_VERSION..=supported).contains(&head.fold_version) {
            return Err(RestoreError::FoldVersion(head.fold_version));
        }
        let mut state = Self::new(head.lane).supporting(supported);
        state.next_offset = head.next_offset;
        state.time_ms = head.time_ms;
        state.fold_version = head.fold_version;
        for (starter, ended) in head.ended {
            let holders = BTreeMap::new();
            state.starters.insert(starter, StarterState { ended, holders });
        }
        for definition in definitions {
            state.definitions.restore(definition);
        }
        let open: BTreeSet<SagaId> = head.open.into_iter().collect();
        for saga in sagas {
            state.restore_saga(saga, &open)?;
        }
        if let Some(missing) = open.iter().find(|id| !state.sagas.contains_key(id)) {
            return Err(RestoreError::SagaMissing(*missing));
        }
        for parked in head.parked {
            state.restore_parked(parked)?;
        }
        match invariants::check_lane(&state).into_iter().next() {
            None => Ok(state),
            Some(violation) => Err(RestoreError::Broken(violation)),
        }
    }

    fn restore_saga(&mut self, saga: Arc<Saga>, open: &BTreeSet<SagaId>) -> Result<(), RestoreError> {
        self.hold_ordinal(saga.id, &saga.ordinal)?;
        if !open.contains(&saga.id) {
            return Err(RestoreError::SagaNotOpen(saga.id));
        }
        if self.definitions.get(&saga.definition.id) != Some(&saga.definition) {
            return Err(RestoreError::DefinitionMissing { saga: saga.id, definition: saga.definition.id.clone() });
        }
        self.definitions.saga_opened(&saga.definition.id);
        self.deadlines.extend(saga.deadlines());
        self.sagas.insert(saga.id, saga);
        Ok(())
    }

    fn restore_parked(&mut self, parked: Parked) -> Result<(), RestoreError> {
        let id = parked.start.saga;
        self.hold_ordinal(id, &parked.start.ordinal)?;
        self.deadlines.insert(parked.timer());
        self.parked.insert(id, parked);
        Ok(())
    }

    fn hold_ordinal(&mut self, saga: SagaId, ordinal: &Ordinal) -> Result<(), RestoreError> {
        if ordinal.lane != self.lane {
            let lane = ordinal.lane;
            return Err(RestoreError::WrongLane { saga, lane });
        }
        let starter: &mut StarterState = self.starter_mut(&ordinal.starter);
        if starter.ended.contains(ordinal.sequence) {
            return Err(RestoreError::SagaHasEnded(saga));
        }
        match starter.holders.insert(ordinal.sequence, saga) {
            None => Ok(()),
            Some(first) => Err(RestoreError::OrdinalTwice { first, second: saga }),
        }
    }

    /// What the lane knows of a starter, from its first start on.
    pub(crate) fn starter_mut(&mut self, starter: &Starter) -> &mut StarterState {
        self.starters.entry(starter.clone()).or_default()
    }
}
