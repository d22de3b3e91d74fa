//! What must hold of every state, with an id and a sentence each. `docs/invariants.md` lists the same.

use std::fmt;

use crate::ids::SagaId;
use crate::lane::LaneState;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// The saga it was found at, if one.
    pub saga: Option<SagaId>,
    /// What was found.
    pub detail: String,
}

/// The ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// placeholder until the checks are written
    OpenHasNotEnded,
}

impl fmt::Display for Invariant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("open-has-not-ended")
    }
}

/// Checks one lane's state.
pub fn check_lane(_state: &LaneState) -> Vec<Violation> {
    Vec::new()
}
