//! One saga's turn: the moves that a record can make it do.

use std::sync::Arc;

use super::At;
use crate::definition::StepIndex;
use crate::effect::{Alarm, Effect};
use crate::lane::TRIAL_FOLD_VERSION;
use crate::record::{Refusal, ResultRecord, Timer, UndoCause, UndoNotice};
use crate::saga::{ActionState, Attention, AttentionCause, Deadline, Phase, Saga, StepState, UndoState, Undoing};

/// Failed or unanswered attempts after which a person should look at a command that nothing else can end.
pub(super) const ATTENTION_FAILURES: u32 = 5;
/// Time after which a person should look at it, however few attempts that was.
pub(super) const ATTENTION_AFTER_MS: i64 = 60_000;

/// A saga, the record that it acts on, and the effects so far.
pub(super) struct Turn<'a> {
    saga: &'a mut Arc<Saga>,
    at: At,
    effects: &'a mut Vec<Effect>,
    /// The deadlines before the first change; none while nothing has changed.
    before: Option<Vec<(i64, Timer)>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(saga: &'a mut Arc<Saga>, at: At, effects: &'a mut Vec<Effect>) -> Self {
        let before = None;
        Self { saga, at, effects, before }
    }

    /// The deadlines that the saga had, if anything has changed.
    pub(super) fn finish(self) -> Option<Vec<(i64, Timer)>> {
        self.before
    }

    pub(super) fn saga(&self) -> &Saga {
        self.saga
    }

    pub(super) fn at(&self) -> At {
        self.at
    }

    /// The saga, to be changed. A copy that a checkpoint holds stays as it is.
    pub(super) fn saga_mut(&mut self) -> &mut Saga {
        if self.before.is_none() {
            self.before = Some(self.saga.deadlines().collect());
        }
        let saga = Arc::make_mut(self.saga);
        saga.changed_by = self.at.offset;
        saga
    }

    pub(super) fn step_mut(&mut self, step: StepIndex) -> Option<&mut StepState> {
        self.saga_mut().steps.get_mut(step)
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        self.effects.push(Effect::Alarm(alarm));
    }

    /// Begins: the saga's deadline, and the steps that wait for nothing.
    pub(super) fn begin(&mut self) {
        let deadline = self.deadline_in(self.saga.definition.deadline_ms);
        self.saga_mut().deadline = Some(deadline);
        self.issue_ready();
    }

    /// Issues every step whose predecessors are all applied.
    pub(super) fn issue_ready(&mut self) {
        for step in 0..self.saga.steps.len() {
            let ready = self.saga.steps[step].action == ActionState::NotIssued
                && self
                    .saga
                    .definition
                    .steps
                    .get(step)
                    .is_some_and(|plan| plan.after.iter().all(|before| self.is_applied(before)));
            if ready {
                self.set_issued(step, |state| state.action = ActionState::Issued);
            }
        }
    }

    /// Turns the saga round: every issued step is to be undone. The first cause stays.
    pub(super) fn begin_undo(&mut self, cause: UndoCause, step: Option<StepIndex>, refusal: Refusal) {
        if matches!(self.saga.phase, Phase::Undoing(_)) {
            return;
        }
        let since_ms = self.at.time_ms;
        let saga = self.saga_mut();
        saga.phase = Phase::Undoing(Undoing { cause, step, refusal, since_ms });
        saga.deadline = None;
        for state in &mut saga.steps {
            state.stop_waiting();
        }
        if cause != UndoCause::Refused || self.saga.fold_version == TRIAL_FOLD_VERSION {
            self.notify_of_undo();
        }
        self.issue_undos();
    }

    /// Tells the starter that the saga is being undone: at once, but after a refusal only when an undo has failed.
    /// Until then the result is so near that a second record for each refused saga would cost more than it tells.
    fn notify_of_undo(&mut self) {
        let saga = &self.saga;
        let notice = UndoNotice { saga: saga.id, ordinal: saga.ordinal.clone(), trace: saga.trace.clone() };
        let topic = saga.results_topic.clone();
        self.effects.push(Effect::Result { topic, record: ResultRecord::Undoing(notice) });
    }

    /// Issues the undo of every issued step that no issued and not yet undone step comes after.
    pub(super) fn issue_undos(&mut self) {
        // Backwards, so that the commands lie in the log in the order in which people read an undo.
        for step in (0..self.saga.steps.len()).rev() {
            let state = &self.saga.steps[step];
            if !state.is_issued() || state.undo != UndoState::NotIssued {
                continue;
            }
            let free = self.saga.definition.steps.get(step).is_some_and(|plan| {
                plan.descendants.iter().all(|later| !self.is_issued(later) || self.is_undone(later))
            });
            if free {
                self.set_issued(step, |state| state.undo = UndoState::Issued);
            }
        }
    }

    /// Sends the awaited command of a step again, now, and gives its participant a whole timeout to answer.
    pub(super) fn send_again(&mut self, step: StepIndex) {
        let timeout = self.timeout_of(step);
        if let Some(state) = self.step_mut(step) {
            state.retry = None;
            state.timeout = timeout;
        }
        self.send(step);
    }

    /// Sends the awaited command of a step again; its timeout goes on.
    pub(super) fn retry(&mut self, step: StepIndex) {
        if let Some(state) = self.step_mut(step) {
            state.retry = None;
        }
        self.send(step);
    }

    /// Counts a failed or unanswered attempt, and asks for a person when nothing but an answer can help.
    pub(super) fn count_failure(&mut self, step: StepIndex) {
        let now_ms = self.at.time_ms;
        let Some(state) = self.step_mut(step) else { return };
        state.failures = state.failures.saturating_add(1);
        let first = state.failures == 1;
        let often = state.failures >= ATTENTION_FAILURES;
        let long = now_ms.saturating_sub(state.issued_ms) >= ATTENTION_AFTER_MS;
        let untold = matches!(&self.saga.phase, Phase::Undoing(undoing) if undoing.cause == UndoCause::Refused);
        if first && untold {
            self.notify_of_undo();
        }
        if (often || long) && self.saga.attention.is_none() && self.saga.only_answer_helps(step) {
            self.need_attention(step, AttentionCause::Unanswered);
        }
    }

    /// The pause before the next attempt of a step that has failed.
    pub(super) fn arm_retry(&mut self, step: StepIndex) {
        let Some(plan) = self.saga.definition.steps.get(step) else {
            return;
        };
        let pause_ms = plan.backoff.pause_ms(self.saga.steps[step].failures);
        let deadline = self.deadline_in(pause_ms);
        if let Some(state) = self.step_mut(step) {
            state.retry = Some(deadline);
        }
    }

    /// Takes an answer in: nothing is awaited of the step any more.
    pub(super) fn answered(&mut self, step: StepIndex, change: impl FnOnce(&mut StepState)) {
        if let Some(state) = self.step_mut(step) {
            change(state);
            state.stop_waiting();
        }
        let ends = |cause| matches!(cause, AttentionCause::Unanswered | AttentionCause::SetAside);
        let waited = |attention: Attention| attention.step == step && ends(attention.cause);
        if self.saga.attention.is_some_and(waited) {
            self.saga_mut().attention = None;
        }
    }

    /// Flags the saga for a person, and alarms. A broken promise outranks silence.
    pub(super) fn need_attention(&mut self, step: StepIndex, cause: AttentionCause) {
        let since_ms = self.at.time_ms;
        let outranks = |held: Attention| held.cause == AttentionCause::Unanswered && cause != held.cause;
        if self.saga.attention.is_none_or(outranks) {
            self.saga_mut().attention = Some(Attention { cause, step, since_ms });
        }
        let saga = self.saga.id;
        let step = self.step_name(step);
        self.alarm(Alarm::NeedsAttention { saga, step, cause });
    }

    /// Somebody has looked at a held saga: it is asked for again like any other.
    pub(super) fn release(&mut self) {
        if self.saga.is_held() {
            self.saga_mut().attention = None;
        }
    }

    pub(super) fn step_name(&self, step: StepIndex) -> String {
        self.saga.definition.steps.get(step).map(|plan| plan.name.clone()).unwrap_or_default()
    }

    fn set_issued(&mut self, step: StepIndex, change: impl FnOnce(&mut StepState)) {
        let issued_ms = self.at.time_ms;
        let timeout = self.timeout_of(step);
        if let Some(state) = self.step_mut(step) {
            change(state);
            state.issued_ms = issued_ms;
            state.failures = 0;
            state.timeout = timeout;
            state.retry = None;
        }
        self.send(step);
    }

    fn send(&mut self, step: StepIndex) {
        if let Some(command) = self.saga.awaited_command(step) {
            self.effects.push(command);
        }
    }

    fn timeout_of(&self, step: StepIndex) -> Option<Deadline> {
        let plan = self.saga.definition.steps.get(step)?;
        Some(self.deadline_in(plan.timeout_ms))
    }

    fn deadline_in(&self, wait_ms: u64) -> Deadline {
        Deadline { at_ms: self.at.time_ms.saturating_add_unsigned(wait_ms), armed_by: self.at.offset }
    }

    fn is_applied(&self, step: StepIndex) -> bool {
        self.saga.steps.get(step).is_some_and(StepState::is_applied)
    }

    fn is_issued(&self, step: StepIndex) -> bool {
        self.saga.steps.get(step).is_some_and(StepState::is_issued)
    }

    fn is_undone(&self, step: StepIndex) -> bool {
        self.saga.steps.get(step).is_some_and(|state| state.undo == UndoState::Undone)
    }
}

impl StepState {
    fn stop_waiting(&mut self) {
        self.failures = 0;
        self.timeout = None;
        self.retry = None;
    }
}
