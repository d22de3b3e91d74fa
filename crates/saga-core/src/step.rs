//! The one transition function: a record and a state give a state and effects. Live and in recovery alike.
//!
//! It is total: every record leads somewhere, at worst to a *named* ignore. It knows no clock (time is the record's),
//! no randomness and no configuration, so whoever folds the same records gets the same state and the same effects.

mod activate;
mod command;
mod operator;
mod pass;
mod reply;
mod start;
mod timer;
mod turn;

use self::turn::Turn;
use crate::effect::{Alarm, Effect, Ignored, Step};
use crate::ids::SagaId;
use crate::lane::LaneState;
use crate::record::{InboxEvent, InboxRecord, ResultRecord, SagaOutcome, SagaResult};
use crate::saga::{Phase, Saga, StepState, UndoState};

/// Refusal code of a saga that was undone because a deadline passed.
pub const CODE_TIMED_OUT: &str = "timed-out";
/// Refusal code of a start that cannot be run.
pub const CODE_INVALID: &str = "invalid";
/// Refusal code of a saga that an operator had undone.
pub const CODE_OPERATOR: &str = "operator";

/// Where in the log the fold stands.
#[derive(Clone, Copy, Debug)]
struct At {
    offset: i64,
    time_ms: i64,
}

/// What a handler says: done, or why the record changed the course of no saga.
type Verdict = Result<(), Ignored>;

impl LaneState {
    /// Folds one record into the state.
    pub fn step(&mut self, record: &InboxRecord) -> Step {
        let mut effects = Vec::new();
        let ignored = self.fold(record, &mut effects).err();
        Step { effects, ignored }
    }

    fn fold(&mut self, record: &InboxRecord, effects: &mut Vec<Effect>) -> Verdict {
        if record.offset < self.next_offset {
            return Err(Ignored::AlreadyFolded);
        }
        if let InboxEvent::FoldVersion(version) = record.event
            && version > self.supported
        {
            // Folding on would be a guess, so not even the position moves.
            effects.push(Effect::Alarm(Alarm::UnknownFoldVersion(version)));
            return Err(Ignored::FoldVersionUnknown);
        }
        let at = At { offset: record.offset, time_ms: record.time_ms };
        self.next_offset = record.offset.saturating_add(1);
        self.time_ms = record.time_ms;
        match &record.event {
            InboxEvent::Start(start) => self.start(start, at, effects),
            InboxEvent::Reply(reply) => self.reply(reply, at, effects),
            InboxEvent::Timer(timer) => self.timer(timer, at, effects),
            InboxEvent::Operator { saga, act } => self.operator(*saga, *act, at, effects),
            InboxEvent::Activate { text } => self.activate(text, at, effects),
            InboxEvent::FoldVersion(version) => self.raise_fold_version(*version),
        }
    }

    fn raise_fold_version(&mut self, version: u32) -> Verdict {
        if version <= self.fold_version {
            return Err(Ignored::FoldVersionNotNewer);
        }
        self.fold_version = version;
        Ok(())
    }

    /// Lets one open saga act on a record, and takes in what that changed.
    fn turn(
        &mut self,
        id: SagaId,
        at: At,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Turn<'_>) -> Verdict,
    ) -> Verdict {
        let saga = self.sagas.get_mut(&id).ok_or(Ignored::SagaNotOpen)?;
        let mut turn = Turn::new(saga, at, effects);
        let verdict = act(&mut turn);
        let Some(deadlines_before) = turn.finish() else {
            return verdict;
        };
        let outcome = saga.outcome();
        for deadline in &deadlines_before {
            self.deadlines.remove(deadline);
        }
        match outcome {
            None => {
                self.deadlines.extend(saga.deadlines());
                self.marks.saga_changed(id);
            }
            Some(outcome) => self.end_saga(id, outcome, effects),
        }
        verdict
    }

    /// Forgets a saga that has ended and tells its starter.
    fn end_saga(&mut self, id: SagaId, outcome: SagaOutcome, effects: &mut Vec<Effect>) {
        let Some(saga) = self.sagas.remove(&id) else { return };
        let starter = self.starter_mut(&saga.ordinal.starter);
        starter.holders.remove(&saga.ordinal.sequence);
        starter.ended.insert(saga.ordinal.sequence);
        if self.definitions.saga_ended(&saga.definition.id) {
            self.marks.definitions_changed();
        }
        self.marks.saga_ended(id);
        effects.push(Effect::Result {
            topic: saga.results_topic.clone(),
            record: ResultRecord::Ended(SagaResult {
                saga: id,
                ordinal: saga.ordinal.clone(),
                outcome,
                trace: saga.trace.clone(),
            }),
        });
    }
}

impl Saga {
    /// How the saga has ended, if it has: every step applied, or every issued step's undo acknowledged.
    fn outcome(&self) -> Option<SagaOutcome> {
        match &self.phase {
            Phase::Forward => self.steps.iter().all(StepState::is_applied).then_some(SagaOutcome::Completed),
            Phase::Undoing(undoing) => self
                .steps
                .iter()
                .all(|state| !state.is_issued() || state.undo == UndoState::Undone)
                .then(|| SagaOutcome::Undone {
                    cause: undoing.cause,
                    step: undoing.step.and_then(|step| self.definition.steps.get(step)).map(|plan| plan.name.clone()),
                    refusal: undoing.refusal.clone(),
                }),
        }
    }
}
