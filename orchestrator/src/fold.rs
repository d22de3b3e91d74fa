//! Folds records into the lane's state and queues what follows from them.

use std::time::Instant;

use event_stream::{HaltReason, Record};
use proto::{DecodeError, Wire};
use saga_core::effect::{Alarm, Effect, Ignored};
use saga_core::ids::{Direction, SagaId, TraceContext};
use saga_core::lane::LaneState;
use saga_core::record::{InboxEvent, InboxRecord, ResultRecord, SagaOutcome, UndoCause};
use telemetry::{context, metrics};

use crate::emit::INBOX;
use crate::lane_loop::LaneLoop;

/// Whether effects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The log is folded again after a takeover: results are kept, commands are not sent, alarms are old.
    Silent,
    /// The loop has reached the log's end.
    Live,
}

impl LaneLoop {
    /// Folds a batch and queues its effects. On an error everything before the bad record has been folded and queued.
    pub(crate) fn fold(&mut self, records: &[Record], mode: Mode) -> Result<(), HaltReason> {
        let now = Instant::now();
        let mut outcome = Ok(());
        let mut folded = 0;
        for record in records {
            outcome = self.fold_record(record, mode);
            if outcome.is_err() {
                break;
            }
            folded += 1;
            // Ignored records tell the log's time too.
            self.clock.observe(record.timestamp_ms, now);
            self.owned.set_position(record.offset.saturating_add(1));
        }
        if folded > 0 {
            self.checkpoints.folded(folded, now);
            metrics::FOLD_BATCH_SIZE.record(folded as f64, &[]);
        }
        outcome
    }

    fn fold_record(&mut self, record: &Record, mode: Mode) -> Result<(), HaltReason> {
        let event = match InboxEvent::decode(&record.payload) {
            Ok(event) => event,
            Err(error @ DecodeError::UnknownFormat { .. }) => {
                return Err(HaltReason::UnknownFormat(format!("{INBOX} offset {}: {error}", record.offset)));
            }
            Err(error @ DecodeError::Malformed { .. }) => {
                self.ignore_malformed(record, &error, mode);
                return Ok(());
            }
        };
        let record_in = InboxRecord { offset: record.offset, time_ms: record.timestamp_ms, event };
        let times = Times::before(&self.state, &record_in);
        let step = self.state.step(&record_in);
        self.read_back(&record_in.event);
        if step.ignored == Some(Ignored::FoldVersionUnknown) {
            return Err(HaltReason::UnknownFormat(format!("{INBOX} offset {}: fold version", record.offset)));
        }
        if mode == Mode::Live {
            times.tell(&record_in, step.ignored);
        }
        // A record that leads to nothing yet, such as a parked start, has been consumed all the same.
        let cause = match mode {
            Mode::Silent => TraceContext::default(),
            Mode::Live => self.cause(record, &record_in.event),
        };
        for effect in step.effects {
            self.queue_effect(effect, mode, &cause, times.started_ms, record.timestamp_ms);
        }
        Ok(())
    }

    /// The context that effects of this record continue: of a span of its own if its trace is recorded.
    fn cause(&self, record: &Record, event: &InboxEvent) -> TraceContext {
        let parent = context::from_headers(&record.headers);
        match saga_of(event) {
            Some(saga) if context::is_recorded(&parent) => {
                let span = context::process_span(INBOX, self.lane.0, &saga, &parent);
                context::of_span(&span, &parent)
            }
            Some(_) | None => parent,
        }
    }

    fn queue_effect(&mut self, effect: Effect, mode: Mode, cause: &TraceContext, started_ms: Option<i64>, now_ms: i64) {
        match (effect, mode) {
            (Effect::Command { participant, command }, Mode::Live) => {
                self.emitter.command(&participant, command, cause);
            }
            (Effect::Command { .. }, Mode::Silent) => {}
            (Effect::Result { topic, record }, mode) => {
                if let (ResultRecord::Ended(result), Mode::Live) = (&record, mode) {
                    let outcome = [("outcome", outcome_name(&result.outcome))];
                    metrics::SAGAS_ENDED.add(1, &outcome);
                    if let Some(started_ms) = started_ms {
                        metrics::SAGA_SECONDS.record(seconds_between(started_ms, now_ms), &outcome);
                    }
                }
                self.emitter.result(topic, &record, cause);
            }
            (Effect::Alarm(alarm), Mode::Live) => {
                let (name, saga) = alarm_name(&alarm);
                metrics::FOLD_ALARMS.add(1, &[("alarm", name)]);
                let saga = saga.map(tracing::field::display);
                tracing::error!(lane = self.lane.0, alarm = name, saga, detail = %alarm, "alarm");
            }
            (Effect::Alarm(alarm), Mode::Silent) => {
                tracing::debug!(lane = self.lane.0, detail = %alarm, "alarm folded again");
            }
        }
    }

    /// Bytes that are no envelope are ignored by name. They say nothing about any saga.
    fn ignore_malformed(&self, record: &Record, error: &DecodeError, mode: Mode) {
        if mode == Mode::Live {
            metrics::FOLD_ALARMS.add(1, &[("alarm", "malformed")]);
        }
        let (lane, offset) = (self.lane.0, record.offset);
        tracing::error!(lane, offset, alarm = "malformed", detail = %error, "inbox record ignored");
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
struct Times {
    started_ms: Option<i64>,
    /// When the answered command was issued, by whom it is executed, and which it is.
    answered: Option<(i64, std::sync::Arc<str>, Direction)>,
}

impl Times {
    fn before(state: &LaneState, record: &InboxRecord) -> Self {
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
        Self { started_ms, answered }
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

fn saga_of(event: &InboxEvent) -> Option<SagaId> {
    match event {
        InboxEvent::Start(start) => Some(start.saga),
        InboxEvent::Reply(reply) => Some(reply.id.saga),
        InboxEvent::Timer(timer) => Some(timer.saga),
        InboxEvent::Operator { saga, .. } => Some(*saga),
        InboxEvent::Activate { .. } | InboxEvent::FoldVersion(_) => None,
    }
}

fn seconds_between(from_ms: i64, to_ms: i64) -> f64 {
    to_ms.saturating_sub(from_ms).max(0) as f64 / 1_000.0
}

fn outcome_name(outcome: &SagaOutcome) -> &'static str {
    match outcome {
        SagaOutcome::Completed => "completed",
        SagaOutcome::Undone { cause: UndoCause::Refused, .. } => "refused",
        SagaOutcome::Undone { cause: UndoCause::TimedOut, .. } => "timed-out",
        SagaOutcome::Undone { cause: UndoCause::Invalid, .. } => "invalid",
        SagaOutcome::Undone { cause: UndoCause::Operator, .. } => "operator",
    }
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
