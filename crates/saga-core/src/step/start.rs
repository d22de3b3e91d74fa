//! A starter asks for a saga: run it, park it, refuse it, or know it already.

use std::sync::Arc;

use super::{At, CODE_INVALID, Verdict};
use crate::definition::Definition;
use crate::effect::{Alarm, Effect, Ignored};
use crate::lane::{LaneState, MAX_OPEN_SAGAS, MAX_PARKED, MAX_SEQUENCE, MAX_STARTERS, PARKED_DEADLINE_MS, Parked};
use crate::record::{
    DeadlineKind, Refusal, ResultRecord, SagaOutcome, SagaResult, Start, Timer, UndoCause, results_topic,
};
use crate::saga::{Deadline, Phase, Saga, StepState};

impl LaneState {
    pub(super) fn start(&mut self, start: &Start, at: At, effects: &mut Vec<Effect>) -> Verdict {
        self.check_ordinal(start, effects)?;
        let definition = self.definitions.active(&start.definition).cloned();
        let home = results_topic(&start.ordinal.starter.name);
        if start.results_topic != home {
            // A topic that nobody reads, or that is not there, would keep the lane from sending anything.
            let reason = format!("its results topic is `{}`, not `{home}`", start.results_topic);
            self.refuse(start, UndoCause::Invalid, invalid(&reason), effects);
        } else if start.ordinal.sequence > MAX_SEQUENCE {
            self.refuse_at_limit(start, "the sequence is too high", effects);
        } else if !self.has_room_for(start) {
            self.refuse_at_limit(start, "too many starters", effects);
        } else if let Some(definition) = definition {
            self.run(start, &definition, at, effects);
        } else if self.parked.len() >= MAX_PARKED {
            self.refuse_at_limit(start, "too many starts wait for a definition", effects);
        } else {
            self.park(start, at);
        }
        Ok(())
    }

    /// Runs a start whose definition is known, or ends it as refused.
    pub(super) fn run(&mut self, start: &Start, definition: &Arc<Definition>, at: At, effects: &mut Vec<Effect>) {
        if self.sagas.len() >= MAX_OPEN_SAGAS {
            return self.refuse_at_limit(start, "too many open sagas", effects);
        }
        let saga = match new_saga(start, definition, self.fold_version, at) {
            Ok(saga) => saga,
            Err(reason) => return self.refuse(start, UndoCause::Invalid, invalid(&reason), effects),
        };
        let id = saga.id;
        self.hold(start);
        self.definitions.saga_opened(&definition.id);
        self.sagas.insert(id, Arc::new(saga));
        let begun = self.turn(id, at, effects, |turn| {
            turn.begin();
            Ok(())
        });
        debug_assert_eq!(begun, Ok(()), "the saga was just put in");
    }

    /// Ends a start that runs nothing. Every sequence ends, so this one does too.
    pub(super) fn refuse(&mut self, start: &Start, cause: UndoCause, refusal: Refusal, effects: &mut Vec<Effect>) {
        if start.ordinal.sequence <= MAX_SEQUENCE && self.has_room_for(start) {
            let starter = self.starter_mut(&start.ordinal.starter);
            starter.holders.remove(&start.ordinal.sequence);
            starter.ended.insert(start.ordinal.sequence);
        }
        let step = None;
        effects.push(Effect::Result {
            // Not what the start named: that may be the reason.
            topic: results_topic(&start.ordinal.starter.name),
            record: ResultRecord::Ended(SagaResult {
                saga: start.saga,
                ordinal: start.ordinal.clone(),
                outcome: SagaOutcome::Undone { cause, step, refusal },
                trace: start.trace.clone(),
            }),
        });
    }

    fn check_ordinal(&self, start: &Start, effects: &mut Vec<Effect>) -> Verdict {
        let saga = start.saga;
        let ordinal = || start.ordinal.clone();
        let alarm = if start.ordinal.lane == self.lane {
            let starter = self.starters.get(&start.ordinal.starter);
            if starter.is_some_and(|starter| starter.ended.contains(start.ordinal.sequence)) {
                return Err(Ignored::StartOfEnded);
            }
            match starter.and_then(|starter| starter.holders.get(&start.ordinal.sequence)) {
                Some(holder) if *holder == saga => return Err(Ignored::DuplicateStart),
                Some(holder) => Alarm::OrdinalHeld { ordinal: ordinal(), holder: *holder, saga },
                None if self.sagas.contains_key(&saga) || self.parked.contains_key(&saga) => {
                    Alarm::SagaIdReused { saga, ordinal: ordinal() }
                }
                None => return Ok(()),
            }
        } else {
            Alarm::WrongLane { saga, ordinal: ordinal() }
        };
        effects.push(Effect::Alarm(alarm));
        Err(Ignored::StartContradicts)
    }

    fn refuse_at_limit(&mut self, start: &Start, limit: &'static str, effects: &mut Vec<Effect>) {
        let saga = start.saga;
        effects.push(Effect::Alarm(Alarm::LaneFull { saga, limit }));
        self.refuse(start, UndoCause::Invalid, invalid(limit), effects);
    }

    fn has_room_for(&self, start: &Start) -> bool {
        self.starters.len() < MAX_STARTERS || self.starters.contains_key(&start.ordinal.starter)
    }

    fn park(&mut self, start: &Start, at: At) {
        self.hold(start);
        let parked = Parked {
            start: start.clone(),
            deadline: Deadline { at_ms: at.time_ms.saturating_add(PARKED_DEADLINE_MS), armed_by: at.offset },
        };
        self.deadlines.insert(parked.timer());
        self.parked.insert(start.saga, parked);
    }

    fn hold(&mut self, start: &Start) {
        let starter = self.starter_mut(&start.ordinal.starter);
        starter.holders.insert(start.ordinal.sequence, start.saga);
    }
}

impl Parked {
    /// The start's deadline, and the timer that stands for it.
    pub fn timer(&self) -> (i64, Timer) {
        let timer = Timer { saga: self.start.saga, kind: DeadlineKind::Saga, armed_by: self.deadline.armed_by };
        (self.deadline.at_ms, timer)
    }
}

/// A refusal with the code `invalid`.
pub(super) fn invalid(reason: &str) -> Refusal {
    Refusal { code: CODE_INVALID.to_owned(), reason: reason.to_owned() }
}

/// The saga before its first step; the reason if the inputs do not fit the plan.
fn new_saga(start: &Start, definition: &Arc<Definition>, fold_version: u32, at: At) -> Result<Saga, String> {
    if let Some(unknown) = start.inputs.keys().find(|name| definition.step_index(name).is_none()) {
        return Err(format!("input for `{unknown}`, which is no step of {}", definition.id));
    }
    let input_of = |name: &String| start.inputs.get(name).cloned().ok_or_else(|| format!("no input for step `{name}`"));
    let inputs = definition.steps.iter().map(|plan| input_of(&plan.name)).collect::<Result<_, _>>()?;
    Ok(Saga {
        id: start.saga,
        ordinal: start.ordinal.clone(),
        definition: definition.clone(),
        fold_version,
        inputs,
        results_topic: start.results_topic.clone(),
        trace: start.trace.clone(),
        started_ms: at.time_ms,
        changed_by: at.offset,
        phase: Phase::Forward,
        deadline: None,
        steps: vec![StepState::default(); definition.steps.len()],
        attention: None,
    })
}
