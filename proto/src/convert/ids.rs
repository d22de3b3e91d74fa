//! The parts that several messages share.

use std::collections::BTreeMap;

use bytes::Bytes;
use saga_core::ended::EndedSequences;
use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::Refusal;
use uuid::Uuid;

use crate::error::{malformed, non_empty, required, unknown_number};
use crate::{DecodeError, saga_v1 as wire};

/// Longest name of a starter, bytes: a topic is named after it.
const MAX_NAME_BYTES: usize = 249;
/// Longest header of a trace, bytes. Records carry both twice, once in their headers.
const MAX_TRACE_BYTES: usize = 512;

pub(crate) fn write_uuid(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(crate) fn read_uuid(what: &'static str, field: &'static str, bytes: &[u8]) -> Result<Uuid, DecodeError> {
    Uuid::from_slice(bytes).map_err(|_| malformed(what, format!("{field} has {} bytes instead of 16", bytes.len())))
}

pub(crate) fn read_saga(what: &'static str, bytes: &[u8]) -> Result<SagaId, DecodeError> {
    read_uuid(what, "saga", bytes).map(SagaId)
}

impl From<&Starter> for wire::Starter {
    fn from(starter: &Starter) -> Self {
        Self { name: starter.name.clone(), store: write_uuid(starter.store) }
    }
}

pub(crate) fn read_starter(what: &'static str, starter: Option<wire::Starter>) -> Result<Starter, DecodeError> {
    let starter = required(what, "starter", starter)?;
    if starter.name.len() > MAX_NAME_BYTES {
        return Err(malformed(what, "the starter's name is longer than that of a topic may be"));
    }
    Ok(Starter {
        name: non_empty(what, "starter name", starter.name)?,
        store: read_uuid(what, "starter store", &starter.store)?,
    })
}

impl From<&Ordinal> for wire::Ordinal {
    fn from(ordinal: &Ordinal) -> Self {
        Self { starter: Some((&ordinal.starter).into()), lane: ordinal.lane.0, sequence: ordinal.sequence }
    }
}

pub(crate) fn read_ordinal(what: &'static str, ordinal: Option<wire::Ordinal>) -> Result<Ordinal, DecodeError> {
    let ordinal = required(what, "ordinal", ordinal)?;
    Ok(Ordinal { starter: read_starter(what, ordinal.starter)?, lane: Lane(ordinal.lane), sequence: ordinal.sequence })
}

impl From<&CommandId> for wire::CommandId {
    fn from(id: &CommandId) -> Self {
        let direction = match id.direction {
            Direction::Action => wire::Direction::Action,
            Direction::Undo => wire::Direction::Undo,
        };
        Self { saga: write_uuid(id.saga.0), step: id.step.clone(), direction: direction.into() }
    }
}

pub(crate) fn read_command_id(what: &'static str, id: Option<wire::CommandId>) -> Result<CommandId, DecodeError> {
    let id = required(what, "command id", id)?;
    let direction = match wire::Direction::try_from(id.direction) {
        Ok(wire::Direction::Action) => Direction::Action,
        Ok(wire::Direction::Undo) => Direction::Undo,
        Ok(wire::Direction::Unspecified) | Err(_) => return Err(unknown_number("direction", id.direction)),
    };
    Ok(CommandId { saga: read_saga(what, &id.saga)?, step: non_empty(what, "step", id.step)?, direction })
}

impl From<&Refusal> for wire::Refusal {
    fn from(refusal: &Refusal) -> Self {
        Self { code: refusal.code.clone(), reason: refusal.reason.clone() }
    }
}

pub(crate) fn read_refusal(what: &'static str, refusal: wire::Refusal) -> Result<Refusal, DecodeError> {
    Ok(Refusal { code: non_empty(what, "refusal code", refusal.code)?, reason: refusal.reason })
}

/// `None` for an empty context: nothing is written.
pub(crate) fn write_trace(trace: &TraceContext) -> Option<wire::Trace> {
    let is_empty = trace.traceparent.is_empty() && trace.tracestate.is_empty();
    (!is_empty).then(|| wire::Trace { traceparent: trace.traceparent.clone(), tracestate: trace.tracestate.clone() })
}

pub(crate) fn read_trace(trace: Option<wire::Trace>) -> TraceContext {
    trace.map_or_else(TraceContext::default, |trace| TraceContext {
        traceparent: short(trace.traceparent),
        tracestate: short(trace.tracestate),
    })
}

/// Traces are for people: what is too long is left out.
fn short(text: String) -> String {
    if text.len() <= MAX_TRACE_BYTES { text } else { String::new() }
}

impl From<&EndedSequences> for wire::EndedSequences {
    fn from(ended: &EndedSequences) -> Self {
        let above = ended.above().map(|(start, end)| wire::SequenceRange { start, end }).collect();
        Self { below: ended.below(), above }
    }
}

pub(crate) fn read_ended(
    what: &'static str,
    ended: Option<wire::EndedSequences>,
) -> Result<EndedSequences, DecodeError> {
    let ended = required(what, "ended", ended)?;
    if let Some(range) = ended.above.iter().find(|range| range.end <= range.start) {
        return Err(malformed(what, format!("empty range {}..{}", range.start, range.end)));
    }
    Ok(EndedSequences::new(ended.below, ended.above.iter().map(|range| (range.start, range.end))))
}

/// A map by step name: no name may be empty.
pub(crate) fn read_step_map(
    what: &'static str,
    by_step: BTreeMap<String, Bytes>,
) -> Result<BTreeMap<String, Bytes>, DecodeError> {
    if by_step.contains_key("") {
        return Err(malformed(what, "a step name is empty"));
    }
    Ok(by_step)
}
