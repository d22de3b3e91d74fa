//! A participant answers.

use bytes::Bytes;

use super::turn::Turn;
use super::{At, Verdict};
use crate::definition::StepIndex;
use crate::effect::{Alarm, Effect, Ignored};
use crate::ids::Direction;
use crate::lane::LaneState;
use crate::record::{Outcome, Refusal, Reply, UndoCause};
use crate::saga::{ActionState, AttentionCause, UndoState};

impl LaneState {
    pub(super) fn reply(&mut self, reply: &Reply, at: At, effects: &mut Vec<Effect>) -> Verdict {
        let verdict = self.turn(reply.id.saga, at, effects, |turn| turn.reply(reply));
        match (verdict, &reply.outcome) {
            // An answer below the floor for a saga that has ended is what the floor is for.
            (Err(Ignored::SagaNotOpen), Outcome::Stale) => Err(Ignored::StaleOfEnded),
            (verdict, _) => verdict,
        }
    }
}

impl Turn<'_> {
    fn reply(&mut self, reply: &Reply) -> Verdict {
        if reply.ordinal != self.saga().ordinal {
            return self.impossible(&reply.id.step, "it has another ordinal");
        }
        let Some(step) = self.saga().definition.step_index(&reply.id.step) else {
            return self.impossible(&reply.id.step, "the definition has no such step");
        };
        if reply.outcome == Outcome::Stale {
            self.need_attention(step, AttentionCause::Stale);
            return Err(Ignored::StaleOfOpen);
        }
        match reply.id.direction {
            Direction::Action => self.action_reply(step, &reply.outcome),
            Direction::Undo => self.undo_reply(step, &reply.outcome),
        }
    }

    fn action_reply(&mut self, step: StepIndex, outcome: &Outcome) -> Verdict {
        let state = &self.saga().steps[step];
        let undo = state.undo;
        match (&state.action, outcome) {
            (ActionState::NotIssued, _) => self.impossible_at(step, "its action was never sent"),
            (_, Outcome::Undone | Outcome::Stale) => self.impossible_at(step, "an action cannot be undone or stale"),
            (_, Outcome::Cancelled) if undo != UndoState::NotIssued => Err(Ignored::LateReply),
            (_, Outcome::Cancelled) => {
                self.need_attention(step, AttentionCause::CancelledWithoutUndo);
                Err(Ignored::ImpossibleReply)
            }
            (ActionState::Issued, Outcome::Applied { output }) => self.applied(step, output),
            (ActionState::Issued, Outcome::Refused(refusal)) => self.refused(step, refusal),
            (ActionState::Issued, Outcome::Failed { .. }) => self.failed(step, Direction::Action),
            (ActionState::Applied { output: known }, Outcome::Applied { output }) if known == output => {
                Err(Ignored::DuplicateReply)
            }
            (ActionState::Refused(known), Outcome::Refused(refusal)) if known == refusal => {
                Err(Ignored::DuplicateReply)
            }
            (ActionState::Applied { .. } | ActionState::Refused(_), Outcome::Failed { .. }) => {
                Err(Ignored::LateFailure)
            }
            (ActionState::Applied { .. }, Outcome::Applied { .. }) => {
                self.contradicts(step, "applied", "applied, with another output")
            }
            (ActionState::Applied { .. }, Outcome::Refused(_)) => self.contradicts(step, "applied", "refused"),
            (ActionState::Refused(_), Outcome::Applied { .. }) => self.contradicts(step, "refused", "applied"),
            (ActionState::Refused(_), Outcome::Refused(_)) => self.contradicts(step, "refused", "refused otherwise"),
        }
    }

    fn undo_reply(&mut self, step: StepIndex, outcome: &Outcome) -> Verdict {
        match (self.saga().steps[step].undo, outcome) {
            (UndoState::NotIssued, _) => self.impossible_at(step, "its undo was never sent"),
            (UndoState::Issued, Outcome::Undone) => {
                self.answered(step, |state| state.undo = UndoState::Undone);
                self.issue_undos();
                Ok(())
            }
            (UndoState::Issued, Outcome::Failed { .. }) => self.failed(step, Direction::Undo),
            (UndoState::Undone, Outcome::Undone) => Err(Ignored::DuplicateReply),
            (UndoState::Undone, Outcome::Failed { .. }) => Err(Ignored::LateFailure),
            (_, Outcome::Applied { .. } | Outcome::Refused(_) | Outcome::Cancelled | Outcome::Stale) => {
                self.impossible_at(step, "an undo is undone or fails")
            }
        }
    }

    fn applied(&mut self, step: StepIndex, output: &Bytes) -> Verdict {
        let output = output.clone();
        let awaited = self.saga().awaits(step) == Some(Direction::Action);
        if !awaited {
            return self.note(step, ActionState::Applied { output });
        }
        self.answered(step, |state| state.action = ActionState::Applied { output });
        self.issue_ready();
        Ok(())
    }

    fn refused(&mut self, step: StepIndex, refusal: &Refusal) -> Verdict {
        if self.saga().definition.steps.get(step).is_some_and(|plan| !plan.may_refuse()) {
            self.need_attention(step, AttentionCause::RefusedRetriable);
            return Err(Ignored::ImpossibleReply);
        }
        let awaited = self.saga().awaits(step) == Some(Direction::Action);
        if !awaited {
            return self.note(step, ActionState::Refused(refusal.clone()));
        }
        self.answered(step, |state| state.action = ActionState::Refused(refusal.clone()));
        self.begin_undo(UndoCause::Refused, Some(step), refusal.clone());
        Ok(())
    }

    /// The outcome is still unknown: the same command again, after a pause.
    fn failed(&mut self, step: StepIndex, direction: Direction) -> Verdict {
        if self.saga().awaits(step) != Some(direction) {
            return Err(Ignored::LateReply);
        }
        if self.saga().steps[step].retry.is_some() {
            // The failure of this attempt is known already; counting it twice would only lengthen the pause.
            return Err(Ignored::LateFailure);
        }
        self.count_failure(step);
        self.arm_retry(step);
        Ok(())
    }

    /// Keeps an answer that no longer matters, so that one which contradicts it is noticed.
    fn note(&mut self, step: StepIndex, action: ActionState) -> Verdict {
        if let Some(state) = self.step_mut(step) {
            state.action = action;
        }
        Err(Ignored::LateReply)
    }

    fn contradicts(&mut self, step: StepIndex, known: &'static str, answered: &'static str) -> Verdict {
        let saga = self.saga().id;
        let step = self.step_name(step);
        let direction = Direction::Action;
        self.alarm(Alarm::Contradiction { saga, step, direction, known, answered });
        Err(Ignored::Contradiction)
    }

    fn impossible_at(&mut self, step: StepIndex, why: &'static str) -> Verdict {
        let step = self.step_name(step);
        self.impossible(&step, why)
    }

    fn impossible(&mut self, step: &str, why: &'static str) -> Verdict {
        let saga = self.saga().id;
        let step = step.to_owned();
        self.alarm(Alarm::ImpossibleReply { saga, step, why });
        Err(Ignored::ImpossibleReply)
    }
}
