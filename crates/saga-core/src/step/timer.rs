//! A deadline has passed, in log time.

use super::start::invalid;
use super::turn::Turn;
use super::{At, CODE_TIMED_OUT, Verdict};
use crate::definition::{OnTimeout, StepIndex};
use crate::effect::{Effect, Ignored};
use crate::ids::Direction;
use crate::lane::LaneState;
use crate::record::{DeadlineKind, Refusal, Timer, UndoCause};
use crate::saga::Deadline;

impl LaneState {
    pub(super) fn timer(&mut self, timer: &Timer, at: At, effects: &mut Vec<Effect>) -> Verdict {
        if self.parked.contains_key(&timer.saga) {
            return self.parked_timer(timer, at, effects);
        }
        self.turn(timer.saga, at, effects, |turn| match &timer.kind {
            DeadlineKind::Saga => turn.saga_overdue(timer),
            DeadlineKind::StepTimeout(step) => turn.step_overdue(timer, step),
            DeadlineKind::StepRetry(step) => turn.step_retry(timer, step),
        })
    }

    /// The definition has not come in time.
    fn parked_timer(&mut self, timer: &Timer, at: At, effects: &mut Vec<Effect>) -> Verdict {
        let Some(parked) = self.parked.get(&timer.saga) else {
            return Err(Ignored::SagaNotOpen);
        };
        if timer.kind != DeadlineKind::Saga {
            return Err(Ignored::TimerNotArmed);
        }
        check_armed(Some(parked.deadline), timer, at)?;
        if let Some(parked) = self.parked.remove(&timer.saga) {
            self.deadlines.remove(&parked.timer());
            let reason = format!("definition `{}` is not known", parked.start.definition);
            self.refuse(&parked.start, UndoCause::Invalid, invalid(&reason), effects);
        }
        Ok(())
    }
}

impl Turn<'_> {
    fn saga_overdue(&mut self, timer: &Timer) -> Verdict {
        check_armed(self.saga().deadline, timer, self.at())?;
        if !self.saga().may_start_undo() {
            self.saga_mut().deadline = None;
            return Err(Ignored::PivotIssued);
        }
        let reason = format!("the saga had {} ms", self.saga().definition.deadline_ms);
        self.begin_undo(UndoCause::TimedOut, None, timed_out(reason));
        Ok(())
    }

    fn step_overdue(&mut self, timer: &Timer, name: &str) -> Verdict {
        let step = self.step_named(name)?;
        check_armed(self.saga().steps[step].timeout, timer, self.at())?;
        let awaited = self.saga().awaits(step).ok_or(Ignored::TimerNotArmed)?;
        let Some(plan) = self.saga().definition.steps.get(step) else {
            return Err(Ignored::TimerNotArmed);
        };
        let undo = awaited == Direction::Action && plan.on_timeout == OnTimeout::Undo;
        if undo && self.saga().may_start_undo() {
            let reason = format!("step `{name}` had {} ms", plan.timeout_ms);
            self.begin_undo(UndoCause::TimedOut, Some(step), timed_out(reason));
        } else {
            self.count_failure(step);
            self.send_again(step);
        }
        Ok(())
    }

    fn step_retry(&mut self, timer: &Timer, name: &str) -> Verdict {
        let step = self.step_named(name)?;
        check_armed(self.saga().steps[step].retry, timer, self.at())?;
        self.retry(step);
        Ok(())
    }

    fn step_named(&self, name: &str) -> Result<StepIndex, Ignored> {
        self.saga().definition.step_index(name).ok_or(Ignored::TimerNotArmed)
    }
}

/// A timer counts only for the deadline that the saga has now, and only when its time has come in log time.
fn check_armed(deadline: Option<Deadline>, timer: &Timer, at: At) -> Verdict {
    match deadline {
        Some(deadline) if deadline.armed_by != timer.armed_by => Err(Ignored::TimerNotArmed),
        Some(deadline) if at.time_ms < deadline.at_ms => Err(Ignored::TimerEarly),
        Some(_) => Ok(()),
        None => Err(Ignored::TimerNotArmed),
    }
}

fn timed_out(reason: String) -> Refusal {
    Refusal { code: CODE_TIMED_OUT.to_owned(), reason }
}
