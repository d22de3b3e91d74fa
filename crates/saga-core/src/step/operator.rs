//! A person acts on a saga.

use super::turn::Turn;
use super::{At, CODE_OPERATOR, Verdict};
use crate::effect::{Effect, Ignored};
use crate::ids::SagaId;
use crate::lane::LaneState;
use crate::record::{OperatorAct, Refusal, UndoCause};
use crate::saga::Phase;

impl LaneState {
    pub(super) fn operator(&mut self, saga: SagaId, act: OperatorAct, at: At, effects: &mut Vec<Effect>) -> Verdict {
        if self.parked.contains_key(&saga) {
            return self.operator_on_parked(saga, act, effects);
        }
        self.turn(saga, at, effects, |turn| match act {
            OperatorAct::Retry => turn.operator_retry(),
            OperatorAct::Undo => turn.operator_undo(),
        })
    }

    fn operator_on_parked(&mut self, saga: SagaId, act: OperatorAct, effects: &mut Vec<Effect>) -> Verdict {
        match act {
            OperatorAct::Retry => return Err(Ignored::StartParked),
            OperatorAct::Undo => {}
        }
        if let Some(parked) = self.parked.remove(&saga) {
            self.deadlines.remove(&parked.timer());
            self.refuse(&parked.start, UndoCause::Operator, by_operator(), effects);
        }
        Ok(())
    }
}

impl Turn<'_> {
    fn operator_retry(&mut self) -> Verdict {
        self.release();
        for step in 0..self.saga().steps.len() {
            if self.saga().awaits(step).is_some() {
                if let Some(state) = self.step_mut(step) {
                    state.failures = 0;
                }
                self.send_again(step);
            }
        }
        Ok(())
    }

    fn operator_undo(&mut self) -> Verdict {
        if matches!(self.saga().phase, Phase::Undoing(_)) {
            return Err(Ignored::AlreadyUndoing);
        }
        if !self.saga().may_start_undo() {
            return Err(Ignored::PivotIssued);
        }
        self.begin_undo(UndoCause::Operator, None, by_operator());
        Ok(())
    }
}

fn by_operator() -> Refusal {
    Refusal { code: CODE_OPERATOR.to_owned(), reason: "an operator had it undone".to_owned() }
}
