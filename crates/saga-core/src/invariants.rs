//! What must hold of every state and every end, with an id and a sentence each. `docs/invariants.md` lists the same.
//!
//! The checks are pure and complete rather than fast: tests and the simulation run them after every record, a lane's
//! owner after loading a checkpoint.

mod lane;
mod saga;

use std::collections::BTreeMap;
use std::fmt;

use crate::definition::Definition;
use crate::ids::SagaId;
use crate::lane::LaneState;
use crate::participant::StepRecord;
use crate::record::SagaOutcome;
use crate::saga::Saga;

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

macro_rules! invariants {
    ($($name:ident $id:literal $sentence:literal)*) => {
        /// What must hold. The id is stable: alarms, tests and documents name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Invariant {
            $(#[doc = $sentence] $name,)*
        }

        impl Invariant {
            /// Every invariant, in the order of the document.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable name.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// What must hold, in a sentence.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

invariants! {
    AllOrNothing "all-or-nothing"
        "When a saga has completed, every step is applied; when it was undone, no step is applied and none can be any more."
    EndedOnlyGrows "ended-only-grows"
        "What has ended stays ended, and the position in the inbox never goes back."
    OpenHasNotEnded "open-has-not-ended"
        "The sequence of an open or parked saga is not among the ended ones."
    OrdinalHeldOnce "ordinal-held-once"
        "Every ordinal that has started and not ended is held by exactly one open or parked saga."
    OwnLane "own-lane"
        "Every saga in a lane's state has an ordinal of this lane."
    StepsFitPlan "steps-fit-plan"
        "An open saga has one state and one input for each step of its definition."
    IssuedAfterApplied "issued-after-applied"
        "A step is issued only when every step before it is applied."
    NothingHeldBack "nothing-held-back"
        "A step whose turn has come is issued, and so is an undo whose turn has come."
    ForwardIsClean "forward-is-clean"
        "A saga that goes forward has no refused step and no undo."
    UndoOnlyIssued "undo-only-issued"
        "Only a step that was issued is undone."
    UndoInReverse "undo-in-reverse"
        "The undo of a step is issued only when every issued step after it is undone."
    PivotDecides "pivot-decides"
        "A saga whose pivot was issued is undone only if the pivot was refused."
    RetriableNeverRefused "retriable-never-refused"
        "No retriable step is refused."
    OpenAwaits "open-awaits"
        "An open saga awaits at least one answer."
    WaitingHasDeadline "waiting-has-deadline"
        "Every awaited answer has a timeout, and nothing else has one."
    StateNotAhead "state-not-ahead"
        "No state names a record that is not folded yet."
    FoldVersionKnown "fold-version-known"
        "No open saga has a fold version above its lane's."
    DefinitionsCounted "definitions-counted"
        "A lane knows the definition of every open saga, and besides those only the highest version of each name."
    ParkedIsUnknown "parked-is-unknown"
        "A parked start names a definition that the lane does not know."
    DeadlinesIndexed "deadlines-indexed"
        "The ordered deadlines are exactly those of the open and parked sagas."
    WithinLimits "within-limits"
        "No part of a lane's state is larger than its limit."
}

impl fmt::Display for Invariant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.id())
    }
}

/// Collects what is broken.
#[derive(Default)]
struct Findings {
    saga: Option<SagaId>,
    found: Vec<Violation>,
}

impl Findings {
    fn must(&mut self, invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation { invariant, saga: self.saga, detail: detail() });
        }
    }
}

/// Checks one lane's state and every saga in it.
pub fn check_lane(state: &LaneState) -> Vec<Violation> {
    let mut findings = Findings::default();
    lane::check(state, &mut findings);
    for saga in state.sagas.values() {
        findings.saga = Some(saga.id);
        saga::check(saga, &mut findings);
    }
    findings.found
}

/// Checks one open saga by itself.
pub fn check_saga(saga: &Saga) -> Vec<Violation> {
    let mut findings = Findings { saga: Some(saga.id), ..Findings::default() };
    saga::check(saga, &mut findings);
    findings.found
}

/// Checks a state against an earlier one of the same lane.
pub fn check_growth(before: &LaneState, after: &LaneState) -> Vec<Violation> {
    let mut findings = Findings::default();
    findings.must(Invariant::EndedOnlyGrows, before.next_offset <= after.next_offset, || {
        format!("next offset went from {} to {}", before.next_offset, after.next_offset)
    });
    for (starter, was) in &before.starters {
        let is = after.starters.get(starter);
        let mut both = was.ended.clone();
        if let Some(is) = is {
            both.union(&is.ended);
        }
        findings.must(Invariant::EndedOnlyGrows, is.is_some_and(|is| is.ended == both), || {
            format!("ended sequences of {starter} are gone")
        });
    }
    findings.found
}

/// Checks the end of a saga against what its participants have recorded, by step name.
pub fn check_end(
    saga: SagaId,
    definition: &Definition,
    outcome: &SagaOutcome,
    records: &BTreeMap<String, StepRecord>,
) -> Vec<Violation> {
    let mut findings = Findings { saga: Some(saga), ..Findings::default() };
    for plan in &definition.steps {
        let record = records.get(&plan.name);
        let fits = match outcome {
            SagaOutcome::Completed => matches!(record, Some(StepRecord::Applied { .. })),
            // Without a record the step was never issued; a refused one that is not undone was never acknowledged.
            SagaOutcome::Undone { .. } => matches!(record, None | Some(StepRecord::Undone | StepRecord::Cancelled)),
        };
        findings
            .must(Invariant::AllOrNothing, fits, || format!("step `{}` is {record:?} after {outcome:?}", plan.name));
    }
    findings.found
}

#[cfg(test)]
mod tests;
