//! Records of `saga.inbox`, and the starter's stored `Start`.

use bytes::Bytes;
use prost::Message;
use saga_core::record::{DeadlineKind, InboxEvent, OperatorAct, Outcome, Reply, Start, Timer};
use saga_core::starter::PendingStart;
use wire::inbox_record::Event;
use wire::operator_act::Act;
use wire::reply::{self, Outcome as WireOutcome};
use wire::timer::Kind;

use super::ids::{
    read_command_id, read_ordinal, read_refusal, read_saga, read_step_map, read_trace, write_trace, write_uuid,
};
use crate::error::{check_format, malformed, non_empty, parse, position, required, unknown_number, unknown_type};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const RECORD: &str = "inbox record";
const START: &str = "start";
const REPLY: &str = "reply";
const TIMER: &str = "timer";
const OPERATOR: &str = "operator's act";

impl Wire for InboxEvent {
    fn encode(&self) -> Bytes {
        let event = match self {
            Self::Start(start) => Event::Start(start.into()),
            Self::Reply(reply) => Event::Reply(reply.into()),
            Self::Timer(timer) => Event::Timer(timer.into()),
            Self::Operator { saga, act } => {
                let act = match act {
                    OperatorAct::Retry => Act::Retry,
                    OperatorAct::Undo => Act::Undo,
                };
                Event::Operator(wire::OperatorAct { saga: write_uuid(saga.0), act: act.into() })
            }
            Self::Activate { text } => Event::Activate(wire::Activate { text: text.clone() }),
            Self::FoldVersion(version) => Event::FoldVersion(*version),
        };
        wire::InboxRecord { format: FORMAT, event: Some(event) }.encode_to_vec().into()
    }

    /// A start whose saga id and ordinal can be read is never malformed, because every sequence must end: what else
    /// is wrong with it turns into an empty `definition`, with which no saga can be run (it ends as *invalid*).
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_format(RECORD, bytes)?;
        let record = match wire::InboxRecord::decode(bytes) {
            Ok(record) => record,
            Err(cause) => return read_damaged_start(bytes).ok_or_else(|| malformed(RECORD, cause.to_string())),
        };
        match record.event {
            None => Err(unknown_type(RECORD, bytes)),
            Some(Event::Start(start)) => read_start(start).map(Self::Start),
            Some(Event::Reply(reply)) => read_reply(reply).map(Self::Reply),
            Some(Event::Timer(timer)) => read_timer(timer).map(Self::Timer),
            Some(Event::Operator(operator)) => {
                let act = match Act::try_from(operator.act) {
                    Ok(Act::Retry) => OperatorAct::Retry,
                    Ok(Act::Undo) => OperatorAct::Undo,
                    Ok(Act::Unspecified) | Err(_) => return Err(unknown_number(OPERATOR, operator.act)),
                };
                Ok(Self::Operator { saga: read_saga(OPERATOR, &operator.saga)?, act })
            }
            Some(Event::Activate(activate)) => Ok(Self::Activate { text: activate.text }),
            Some(Event::FoldVersion(version)) => Ok(Self::FoldVersion(version)),
        }
    }
}

/// As a starter stores it (`pending:<lane>:<sequence>`), not as it travels: that is [`InboxEvent::Start`].
impl Wire for Start {
    fn encode(&self) -> Bytes {
        wire::PendingStart { format: FORMAT, start: Some(self.into()), subject: String::new() }.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let pending: wire::PendingStart = parse(START, bytes)?;
        read_start(required(START, "start", pending.start)?)
    }
}

/// A [`Start`] with the starter's own name for what it is about.
impl Wire for PendingStart {
    fn encode(&self) -> Bytes {
        let start = Some((&self.start).into());
        wire::PendingStart { format: FORMAT, start, subject: self.subject.clone() }.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let pending: wire::PendingStart = parse(START, bytes)?;
        let start = read_start(required(START, "start", pending.start)?)?;
        Ok(Self { start, subject: pending.subject })
    }
}

impl From<&Start> for wire::Start {
    fn from(start: &Start) -> Self {
        Self {
            saga: write_uuid(start.saga.0),
            ordinal: Some((&start.ordinal).into()),
            results_topic: start.results_topic.clone(),
            definition: start.definition.clone(),
            inputs: start.inputs.clone(),
            trace: write_trace(&start.trace),
        }
    }
}

pub(crate) fn read_start(start: wire::Start) -> Result<Start, DecodeError> {
    let saga = read_saga(START, &start.saga)?;
    let ordinal = read_ordinal(START, start.ordinal)?;
    let results_topic = match start.results_topic {
        topic if topic.is_empty() => format!("{}.results", ordinal.starter.name),
        topic => topic,
    };
    let (definition, inputs) = match read_step_map(START, start.inputs) {
        Ok(inputs) => (start.definition, inputs),
        Err(_) => Default::default(),
    };
    Ok(Start { saga, ordinal, definition, inputs, results_topic, trace: read_trace(start.trace) })
}

/// The start in a record that cannot be read as a whole, if its saga id and ordinal can.
fn read_damaged_start(bytes: &[u8]) -> Option<InboxEvent> {
    /// The record with its start left unread.
    #[derive(Clone, PartialEq, Message)]
    struct Envelope {
        #[prost(bytes = "bytes", optional, tag = "2")]
        start: Option<Bytes>,
    }
    let body = Envelope::decode(bytes).ok()?.start?;
    // What comes before the damage is kept by `merge`; the ids come first.
    let mut start = wire::Start::default();
    let _ = start.merge(body);
    start.definition.clear();
    start.inputs.clear();
    read_start(start).ok().map(InboxEvent::Start)
}

impl From<&Reply> for wire::Reply {
    fn from(reply: &Reply) -> Self {
        let outcome = match &reply.outcome {
            Outcome::Applied { output } => WireOutcome::Applied(reply::Applied { output: output.clone() }),
            Outcome::Refused(refusal) => WireOutcome::Refused(refusal.into()),
            Outcome::Undone => WireOutcome::Undone(wire::Empty {}),
            Outcome::Cancelled => WireOutcome::Cancelled(wire::Empty {}),
            Outcome::Failed { reason } => WireOutcome::Failed(reply::Failed { reason: reason.clone() }),
            Outcome::Stale => WireOutcome::Stale(wire::Empty {}),
        };
        Self { id: Some((&reply.id).into()), ordinal: Some((&reply.ordinal).into()), outcome: Some(outcome) }
    }
}

fn read_reply(reply: wire::Reply) -> Result<Reply, DecodeError> {
    let outcome = match reply.outcome {
        None => return Err(DecodeError::UnknownFormat { what: REPLY, number: 0 }),
        Some(WireOutcome::Applied(applied)) => Outcome::Applied { output: applied.output },
        Some(WireOutcome::Refused(refusal)) => Outcome::Refused(read_refusal(REPLY, refusal)?),
        Some(WireOutcome::Undone(_)) => Outcome::Undone,
        Some(WireOutcome::Cancelled(_)) => Outcome::Cancelled,
        Some(WireOutcome::Failed(failed)) => Outcome::Failed { reason: failed.reason },
        Some(WireOutcome::Stale(_)) => Outcome::Stale,
    };
    Ok(Reply { id: read_command_id(REPLY, reply.id)?, ordinal: read_ordinal(REPLY, reply.ordinal)?, outcome })
}

impl From<&Timer> for wire::Timer {
    fn from(timer: &Timer) -> Self {
        let kind = match &timer.kind {
            DeadlineKind::StepTimeout(step) => Kind::StepTimeout(step.clone()),
            DeadlineKind::StepRetry(step) => Kind::StepRetry(step.clone()),
            DeadlineKind::Saga => Kind::SagaDeadline(wire::Empty {}),
        };
        Self { saga: write_uuid(timer.saga.0), armed_by: timer.armed_by, kind: Some(kind) }
    }
}

fn read_timer(timer: wire::Timer) -> Result<Timer, DecodeError> {
    let kind = match timer.kind {
        None => return Err(DecodeError::UnknownFormat { what: TIMER, number: 0 }),
        Some(Kind::StepTimeout(step)) => DeadlineKind::StepTimeout(non_empty(TIMER, "step", step)?),
        Some(Kind::StepRetry(step)) => DeadlineKind::StepRetry(non_empty(TIMER, "step", step)?),
        Some(Kind::SagaDeadline(_)) => DeadlineKind::Saga,
    };
    Ok(Timer { saga: read_saga(TIMER, &timer.saga)?, kind, armed_by: position(TIMER, "armed_by", timer.armed_by)? })
}

#[cfg(test)]
mod tests;
