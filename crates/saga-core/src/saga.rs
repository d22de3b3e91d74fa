//! The state of one saga: what was issued, what was answered, and when silence counts.
//!
//! All fields are public so that a checkpoint can write and rebuild a state without loss; what must hold between
//! them is in [`crate::invariants`], and [`crate::lane::LaneState::restore`] checks it.

use std::sync::Arc;

use bytes::Bytes;

use crate::definition::{Definition, StepIndex, StepKind, StepPlan};
use crate::ids::{Direction, Ordinal, SagaId, TraceContext};
use crate::record::{DeadlineKind, Refusal, Timer, UndoCause};

/// One open saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saga {
    /// Its id.
    pub id: SagaId,
    /// Which start of which starter it is.
    pub ordinal: Ordinal,
    /// The plan it started with and ends with.
    pub definition: Arc<Definition>,
    /// The version of the fold it started under.
    pub fold_version: u32,
    /// One opaque input per step, in the order of the definition's steps.
    pub inputs: Vec<Bytes>,
    /// Topic that carries the result home.
    pub results_topic: String,
    /// The trace that everything of this saga belongs to.
    pub trace: TraceContext,
    /// Log time of the record that started it.
    pub started_ms: i64,
    /// Offset of the last record that changed it.
    pub changed_by: i64,
    /// Forward or undoing.
    pub phase: Phase,
    /// When the whole saga is overdue; none once the undo has begun or the pivot outlasted it.
    pub deadline: Option<Deadline>,
    /// One state per step, in the order of the definition's steps.
    pub steps: Vec<StepState>,
    /// Set when a person should look.
    pub attention: Option<Attention>,
}

/// Which way the saga goes. It turns at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Steps are issued as soon as what comes before them is applied.
    Forward,
    /// Every issued step is being undone.
    Undoing(Undoing),
}

/// Why and since when a saga is being undone. The first cause in log order stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undoing {
    /// What started the undo.
    pub cause: UndoCause,
    /// The step that refused or was late, when there is one.
    pub step: Option<StepIndex>,
    /// What the starter is told.
    pub refusal: Refusal,
    /// Log time of the record that started the undo.
    pub since_ms: i64,
}

/// The state of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepState {
    /// What is known of the action.
    pub action: ActionState,
    /// What is known of the undo.
    pub undo: UndoState,
    /// Log time at which the command that is awaited was first issued.
    pub issued_ms: i64,
    /// Attempts of the awaited command that failed or stayed unanswered.
    pub failures: u32,
    /// When the awaited answer is overdue.
    pub timeout: Option<Deadline>,
    /// When the awaited command is to be sent again after a failure.
    pub retry: Option<Deadline>,
}

/// What is known of a step's action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ActionState {
    /// Never sent.
    #[default]
    NotIssued,
    /// Sent; the outcome is unknown.
    Issued,
    /// Done.
    Applied {
        /// For the steps that `uses` this one.
        output: Bytes,
    },
    /// Never to be done.
    Refused(Refusal),
}

/// What is known of a step's undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndoState {
    /// Never sent.
    #[default]
    NotIssued,
    /// Sent; not acknowledged yet.
    Issued,
    /// Acknowledged.
    Undone,
}

/// A time at which silence counts, and the record that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Log time.
    pub at_ms: i64,
    /// Offset of the record that armed it; a timer counts only if it names the same.
    pub armed_by: i64,
}

/// Why a person should look at a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// What is wrong.
    pub cause: AttentionCause,
    /// The step it is about.
    pub step: StepIndex,
    /// Log time since when.
    pub since_ms: i64,
}

/// What is wrong with a saga that needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttentionCause {
    /// A command that nothing else can end (an undo, a pivot, a retriable step) has failed often or for long.
    Unanswered,
    /// A participant says that this open saga has ended.
    Stale,
    /// A step that may not refuse was refused.
    RefusedRetriable,
    /// An action was answered as cancelled although its undo was never sent.
    CancelledWithoutUndo,
    /// A record about the saga could not be handled and was set aside.
    SetAside,
}

impl Saga {
    /// The command that a step's participant owes an answer to, if any.
    ///
    /// An action whose undo must still wait for later steps owes nothing: its answer no longer matters.
    pub fn awaits(&self, step: StepIndex) -> Option<Direction> {
        let state = self.steps.get(step)?;
        match (&self.phase, &state.action, state.undo) {
            (_, _, UndoState::Issued) => Some(Direction::Undo),
            (Phase::Forward, ActionState::Issued, UndoState::NotIssued) => Some(Direction::Action),
            (_, _, UndoState::NotIssued | UndoState::Undone) => None,
        }
    }

    /// Whether a timeout or an operator may start the undo: not once the undo has begun or the pivot is issued.
    pub fn may_start_undo(&self) -> bool {
        matches!(self.phase, Phase::Forward) && !self.pivot_issued()
    }

    /// Whether a record about the saga was set aside and nobody has looked at it yet. What a held saga awaits is not
    /// asked for again by the safety nets, because the answer would be the record that nobody can handle: only its
    /// deadlines and operators move it on.
    pub fn is_held(&self) -> bool {
        self.attention.is_some_and(|attention| attention.cause == AttentionCause::SetAside)
    }

    /// Whether the point of no return has been sent to its participant.
    pub fn pivot_issued(&self) -> bool {
        self.definition.pivot.and_then(|pivot| self.steps.get(pivot)).is_some_and(StepState::is_issued)
    }

    /// Every deadline that the saga has now, with the timer that stands for it.
    pub fn deadlines(&self) -> impl Iterator<Item = (i64, Timer)> + '_ {
        let saga = self.deadline.map(|deadline| (deadline, DeadlineKind::Saga));
        let steps = self.plans().flat_map(|(plan, state)| {
            let timeout = state.timeout.map(|deadline| (deadline, DeadlineKind::StepTimeout(plan.name.clone())));
            let retry = state.retry.map(|deadline| (deadline, DeadlineKind::StepRetry(plan.name.clone())));
            timeout.into_iter().chain(retry)
        });
        saga.into_iter().chain(steps).map(|(deadline, kind)| {
            let armed_by = deadline.armed_by;
            let saga = self.id;
            (deadline.at_ms, Timer { saga, kind, armed_by })
        })
    }

    /// Each step's plan with its state.
    pub fn plans(&self) -> impl Iterator<Item = (&StepPlan, &StepState)> + '_ {
        self.definition.steps.iter().zip(&self.steps)
    }

    /// Whether nothing but this step's own answer can end the wait for it.
    pub(crate) fn only_answer_helps(&self, step: StepIndex) -> bool {
        match self.awaits(step) {
            Some(Direction::Undo) => true,
            Some(Direction::Action) => {
                self.definition.steps.get(step).is_some_and(|plan| plan.kind != StepKind::Compensable)
            }
            None => false,
        }
    }
}

impl StepState {
    /// Whether the action was ever sent.
    pub fn is_issued(&self) -> bool {
        self.action != ActionState::NotIssued
    }

    /// Whether the action is known to be done.
    pub fn is_applied(&self) -> bool {
        matches!(self.action, ActionState::Applied { .. })
    }
}
