//! What must hold of one open saga.

use super::{Findings, Invariant};
use crate::definition::{StepIndex, StepKind, StepPlan, StepSet};
use crate::saga::{ActionState, Phase, Saga, StepState, UndoState};

pub(super) fn check(saga: &Saga, findings: &mut Findings) {
    let count = saga.definition.steps.len();
    let fits = saga.steps.len() == count && saga.inputs.len() == count;
    findings.must(Invariant::StepsFitPlan, fits, || {
        format!("{} states, {} inputs, {count} steps", saga.steps.len(), saga.inputs.len())
    });
    if !fits {
        return;
    }
    let view = View::of(saga);
    for (index, (plan, state)) in saga.plans().enumerate() {
        check_forward(&view, plan, state, findings);
        check_undo(&view, plan, state, findings);
        check_waiting(saga, index, plan, state, findings);
    }
    let awaits = (0..count).any(|step| saga.awaits(step).is_some());
    findings.must(Invariant::OpenAwaits, awaits, || "nothing is awaited".to_owned());
    let turned_at_pivot = view.undoing
        && saga.pivot_issued()
        && !saga.definition.pivot.is_some_and(|pivot| matches!(saga.steps[pivot].action, ActionState::Refused(_)));
    findings.must(Invariant::PivotDecides, !turned_at_pivot, || format!("undone because of {:?}", saga.phase));
}

/// The saga's steps as sets.
struct View {
    undoing: bool,
    issued: StepSet,
    applied: StepSet,
    undone: StepSet,
}

impl View {
    fn of(saga: &Saga) -> Self {
        let those = |test: fn(&StepState) -> bool| -> StepSet {
            let steps = saga.steps.iter().enumerate();
            steps.filter(|(_, state)| test(state)).map(|(index, _): (StepIndex, _)| index).collect()
        };
        Self {
            undoing: matches!(saga.phase, Phase::Undoing(_)),
            issued: those(StepState::is_issued),
            applied: those(StepState::is_applied),
            undone: those(|state| state.undo == UndoState::Undone),
        }
    }
}

fn check_forward(view: &View, plan: &StepPlan, state: &StepState, findings: &mut Findings) {
    let ready = plan.ancestors.iter().all(|before| view.applied.contains(before));
    findings.must(Invariant::IssuedAfterApplied, !state.is_issued() || ready, || {
        format!("step `{}` was issued too early", plan.name)
    });
    findings.must(Invariant::NothingHeldBack, view.undoing || !ready || state.is_issued(), || {
        format!("step `{}` could be issued", plan.name)
    });
    let refused = matches!(state.action, ActionState::Refused(_));
    let clean = !refused && state.undo == UndoState::NotIssued;
    findings.must(Invariant::ForwardIsClean, view.undoing || clean, || format!("step `{}` is {state:?}", plan.name));
    findings.must(Invariant::RetriableNeverRefused, plan.kind != StepKind::Retriable || !refused, || {
        format!("step `{}` is refused", plan.name)
    });
}

fn check_undo(view: &View, plan: &StepPlan, state: &StepState, findings: &mut Findings) {
    let begun = state.undo != UndoState::NotIssued;
    findings
        .must(Invariant::UndoOnlyIssued, !begun || state.is_issued(), || format!("step `{}` is {state:?}", plan.name));
    let free = plan.descendants.iter().all(|later| !view.issued.contains(later) || view.undone.contains(later));
    findings.must(Invariant::UndoInReverse, !begun || free, || format!("step `{}` is undone too early", plan.name));
    let due = view.undoing && state.is_issued() && free;
    findings.must(Invariant::NothingHeldBack, !due || begun, || format!("step `{}` could be undone", plan.name));
}

fn check_waiting(saga: &Saga, index: StepIndex, plan: &StepPlan, state: &StepState, findings: &mut Findings) {
    let waits = saga.awaits(index).is_some();
    let fits = waits == state.timeout.is_some() && (waits || state.retry.is_none());
    findings.must(Invariant::WaitingHasDeadline, fits, || format!("step `{}` is {state:?}", plan.name));
}
