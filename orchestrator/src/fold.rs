//! Folds records into the lane's state and queues what follows from them.

use std::sync::Arc;
use std::time::Instant;

use event_stream::{HaltReason, Record};
use proto::{DecodeError, Wire};
use saga_core::definition::Definition;
use saga_core::effect::{Alarm, Effect, Ignored};
use saga_core::ids::{Direction, SagaId, TraceContext};
use saga_core::lane::LaneState;
use saga_core::record::{InboxEvent, InboxRecord, ResultRecord};
use service_kit::panics::caught;
use telemetry::{context, metrics};

use crate::emit::INBOX;
use crate::hop::{Hop, saga_of};
use crate::lane_core::LaneCore;

/// Whether effects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The log is folded again after a takeover: results are kept, commands are not sent, alarms are old.
    Silent,
    /// The loop has reached the log's end.
    Live,
}

/// Why a batch was not folded to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum FoldFault {
    /// The lane halts. Everything before the record has been folded and queued.
    Halt(HaltReason),
    /// The record made the code panic. What has been folded may be half changed and must be thrown away.
    Panicked {
        /// The record.
        offset: i64,
        /// What the panic said.
        why: String,
    },
}

/// What became of one record.
enum Fate {
    Folded,
    SetAside,
    /// A record was set aside before it, and no checkpoint lies behind that one yet.
    MustWait,
}

impl LaneCore {
    /// Folds a batch, queues its effects, and says how many records it has taken: not all of them if one was set aside
    /// before others. Those wait until a checkpoint lies behind it ([`Self::owes_checkpoint`]). Nor if one panics that has done so
    /// before ([`Self::take_panic`]).
    pub fn fold(&mut self, records: &[Record], mode: Mode, now: Instant) -> Result<usize, FoldFault> {
        let mut outcome = Ok(());
        let mut taken = 0;
        for record in records {
            if self.panics_alone(record) {
                break;
            }
            // The state is thrown away after a panic.
            let fate = caught(|| self.fold_record(record, mode, now));
            match fate.unwrap_or_else(|why| Err(FoldFault::Panicked { offset: record.offset, why })) {
                Ok(Fate::Folded) => {}
                Ok(Fate::SetAside) => self.owed_checkpoint = Some(record.offset.saturating_add(1)),
                Ok(Fate::MustWait) => break,
                Err(fault) => {
                    outcome = Err(fault);
                    break;
                }
            }
            taken += 1;
            // Ignored records tell the log's time too.
            self.clock.observe(record.timestamp_ms, now);
            self.position = record.offset.saturating_add(1);
        }
        if taken > 0 {
            self.checkpoints.folded(taken as u64, now);
            metrics::FOLD_BATCH_SIZE.record(taken as f64, &[]);
        }
        outcome.map(|()| taken)
    }

    fn fold_record(&mut self, record: &Record, mode: Mode, now: Instant) -> Result<Fate, FoldFault> {
        if self.shunned(record.offset).is_some() {
            self.set_aside_poison(record, now);
            return Ok(Fate::SetAside);
        }
        let event = match InboxEvent::decode(&record.payload) {
            Err(error @ DecodeError::Malformed { .. }) => {
                self.set_aside_malformed(record, &error);
                return Ok(Fate::SetAside);
            }
            // Whatever it is: what was set aside before it must stay so for everybody.
            _ if self.owes_checkpoint() => return Ok(Fate::MustWait),
            Ok(event) => event,
            Err(error @ DecodeError::UnknownFormat { .. }) => {
                let reason = HaltReason::UnknownFormat(format!("{INBOX} offset {}: {error}", record.offset));
                return Err(FoldFault::Halt(reason));
            }
        };
        let record_in = InboxRecord { offset: record.offset, time_ms: record.timestamp_ms, event };
        if let Some(probe) = &self.probe {
            probe(&record_in);
        }
        let times = Times::before(&self.state, &record_in);
        // A record that leads to nothing yet, such as a parked start, has been consumed all the same.
        let hop = match mode {
            Mode::Silent => Hop::silent(),
            Mode::Live => Hop::arrived(record, &record_in.event, self.lane),
        };
        let step = self.state.step(&record_in);
        self.read_back(&record_in.event);
        if step.ignored == Some(Ignored::FoldVersionUnknown) {
            let reason = HaltReason::UnknownFormat(format!("{INBOX} offset {}: fold version", record.offset));
            return Err(FoldFault::Halt(reason));
        }
        if let Some(ignored) = step.ignored {
            hop.ignored(ignored_name(ignored));
            if is_impossible(ignored) && !self.is_known_trouble(&step.effects, record.timestamp_ms) {
                self.set_aside_impossible(record, ignored_name(ignored));
            }
        }
        let cause = hop.cause();
        if mode == Mode::Live {
            times.tell(&record_in, step.ignored);
        }
        for effect in step.effects {
            self.queue_effect(effect, mode, &cause, &times, &record_in);
        }
        Ok(Fate::Folded)
    }

    pub(crate) fn queue_effect(
        &mut self,
        effect: Effect,
        mode: Mode,
        cause: &TraceContext,
        times: &Times,
        record: &InboxRecord,
    ) {
        match (effect, mode) {
            (Effect::Command { participant, command }, Mode::Live) => {
                self.emitter.command(&participant, command, cause);
            }
            (Effect::Command { .. }, Mode::Silent) => {}
            (Effect::Result { topic, record: news }, mode) => {
                if let ResultRecord::Ended(result) = &news {
                    if mode == Mode::Live {
                        let outcome = [("outcome", context::outcome_word(&result.outcome))];
                        metrics::SAGAS_ENDED.add(1, &outcome);
                        if let Some(started_ms) = times.started_ms {
                            metrics::SAGA_SECONDS.record(seconds_between(started_ms, record.time_ms), &outcome);
                        }
                    }
                    self.summarise_end(result, times, record);
                }
                self.emitter.result(topic, &news, cause, record.offset);
            }
            (Effect::Alarm(alarm), Mode::Live) => {
                let (name, saga) = alarm_name(&alarm);
                let own = saga.and_then(|saga| self.state.saga(saga)).map_or(cause, |saga| &saga.trace);
                let _scope = context::scope(if cause.traceparent.is_empty() { own } else { cause });
                metrics::FOLD_ALARMS.add(1, &[("alarm", name)]);
                let id = saga.map(tracing::field::display);
                tracing::error!(lane = self.lane.0, alarm = name, saga.id = id, detail = %alarm, "alarm");
                if let Alarm::NeedsAttention { saga, cause, .. } = alarm {
                    self.summarise_stuck(saga, cause, record.time_ms);
                }
            }
            (Effect::Alarm(alarm), Mode::Silent) => {
                tracing::debug!(lane = self.lane.0, detail = %alarm, "alarm folded again");
            }
        }
    }

    /// Whether all that the record says is that a saga needs attention which needed it before: a step that is asked again may be
    /// answered so for ever, and only the answer that first called for somebody is kept. The others are in the log, and alarmed.
    fn is_known_trouble(&self, effects: &[Effect], time_ms: i64) -> bool {
        effects.iter().any(|effect| {
            let Effect::Alarm(Alarm::NeedsAttention { saga, .. }) = effect else { return false };
            let attention = self.state.saga(*saga).and_then(|saga| saga.attention);
            attention.is_some_and(|attention| attention.since_ms != time_ms)
        })
    }

    /// What this loop appended itself is no longer on its way.
    fn read_back(&mut self, event: &InboxEvent) {
        match event {
            InboxEvent::Timer(timer) => self.timers.returned(timer),
            InboxEvent::Activate { text } => self.activations.returned(text),
            InboxEvent::Start(_) | InboxEvent::Reply(_) | InboxEvent::Operator { .. } | InboxEvent::FoldVersion(_) => {}
        }
    }
}

/// What is known of a saga before the record that may end it.
pub(crate) struct Times {
    pub(crate) started_ms: Option<i64>,
    pub(crate) definition: Option<Arc<Definition>>,
    /// When the answered command was issued, by whom it is executed, and which it is.
    answered: Option<(i64, Arc<str>, Direction)>,
}

impl Times {
    pub(crate) fn before(state: &LaneState, record: &InboxRecord) -> Self {
        let saga = saga_of(&record.event).and_then(|id| state.saga(id));
        let answered = match (&record.event, saga) {
            (InboxEvent::Reply(reply), Some(saga)) => saga.definition.step_index(&reply.id.step).and_then(|step| {
                (saga.awaits(step) == Some(reply.id.direction)).then(|| {
                    let participant = saga.definition.steps[step].participant.clone();
                    (saga.steps[step].issued_ms, participant, reply.id.direction)
                })
            }),
            _ => None,
        };
        let started_ms = match (&record.event, saga) {
            (_, Some(saga)) => Some(saga.started_ms),
            // A start that ends at once.
            (InboxEvent::Start(_), None) => Some(record.time_ms),
            (_, None) => None,
        };
        Self { started_ms, definition: saga.map(|saga| saga.definition.clone()), answered }
    }

    /// Counts what the record came to.
    fn tell(&self, record: &InboxRecord, ignored: Option<Ignored>) {
        if let Some(ignored) = ignored {
            metrics::FOLD_IGNORED.add(1, &[("reason", ignored_name(ignored))]);
            tracing::debug!(offset = record.offset, reason = ignored_name(ignored), "ignored");
            return;
        }
        if matches!(record.event, InboxEvent::Start(_)) {
            metrics::SAGAS_STARTED.add(1, &[]);
        }
        if let Some((issued_ms, participant, direction)) = &self.answered {
            let direction = match direction {
                Direction::Action => "action",
                Direction::Undo => "undo",
            };
            let labels = [("participant", participant.as_ref()), ("direction", direction)];
            metrics::SAGA_STEP_SECONDS.record(seconds_between(*issued_ms, record.time_ms), &labels);
        }
    }
}

fn seconds_between(from_ms: i64, to_ms: i64) -> f64 {
    to_ms.saturating_sub(from_ms).max(0) as f64 / 1_000.0
}

fn alarm_name(alarm: &Alarm) -> (&'static str, Option<SagaId>) {
    match alarm {
        Alarm::OrdinalHeld { saga, .. } => ("ordinal-held", Some(*saga)),
        Alarm::SagaIdReused { saga, .. } => ("saga-id-reused", Some(*saga)),
        Alarm::WrongLane { saga, .. } => ("wrong-lane", Some(*saga)),
        Alarm::LaneFull { saga, .. } => ("lane-full", Some(*saga)),
        Alarm::Contradiction { saga, .. } => ("contradiction", Some(*saga)),
        Alarm::ImpossibleReply { saga, .. } => ("impossible-reply", Some(*saga)),
        Alarm::NeedsAttention { saga, .. } => ("needs-attention", Some(*saga)),
        Alarm::DefinitionInvalid(_) => ("definition-invalid", None),
        Alarm::DefinitionConflict(_) => ("definition-conflict", None),
        Alarm::UnknownFoldVersion(_) => ("unknown-fold-version", None),
    }
}

/// What no program that keeps to the protocol sends, whatever has crashed.
fn is_impossible(ignored: Ignored) -> bool {
    matches!(ignored, Ignored::StartContradicts | Ignored::Contradiction | Ignored::ImpossibleReply)
}

fn ignored_name(ignored: Ignored) -> &'static str {
    match ignored {
        Ignored::AlreadyFolded => "already-folded",
        Ignored::DuplicateStart => "duplicate-start",
        Ignored::StartOfEnded => "start-of-ended",
        Ignored::StartContradicts => "start-contradicts",
        Ignored::SagaNotOpen => "saga-not-open",
        Ignored::StaleOfEnded => "stale-of-ended",
        Ignored::StaleOfOpen => "stale-of-open",
        Ignored::DuplicateReply => "duplicate-reply",
        Ignored::LateReply => "late-reply",
        Ignored::LateFailure => "late-failure",
        Ignored::Contradiction => "contradiction",
        Ignored::ImpossibleReply => "impossible-reply",
        Ignored::TimerNotArmed => "timer-not-armed",
        Ignored::TimerEarly => "timer-early",
        Ignored::PivotIssued => "pivot-issued",
        Ignored::AlreadyUndoing => "already-undoing",
        Ignored::StartParked => "start-parked",
        Ignored::DefinitionNotNewer => "definition-not-newer",
        Ignored::DefinitionInvalid => "definition-invalid",
        Ignored::TooManyDefinitions => "too-many-definitions",
        Ignored::FoldVersionNotNewer => "fold-version-not-newer",
        Ignored::FoldVersionUnknown => "fold-version-unknown",
    }
}
