//! The value `saga:<lane>:<saga id>`: one open saga.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use saga_core::definition::{Definition, DefinitionHash, DefinitionId, StepIndex};
use saga_core::record::UndoCause;
use saga_core::saga::{ActionState, Attention, AttentionCause, Deadline, Phase, Saga, StepState, UndoState, Undoing};
use wire::stored_saga as parts;
use wire::stored_saga::step::Action;

use crate::convert::ids::{read_ordinal, read_refusal, read_saga as read_saga_id, read_trace, write_trace, write_uuid};
use crate::error::{malformed, non_empty, parse, position, required, unknown_number};
use crate::{DecodeError, FORMAT, saga_v1 as wire};

const SAGA: &str = "stored saga";

/// Which text a saga runs by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefinitionRef {
    /// Name and version.
    pub id: DefinitionId,
    /// Hash of the text.
    pub hash: DefinitionHash,
}

impl DefinitionRef {
    /// What stands for this definition in a stored saga.
    pub fn of(definition: &Definition) -> Self {
        Self { id: definition.id.clone(), hash: definition.hash }
    }
}

/// The bytes of an open saga. The definition is named, not written: its text is in `definitions:<lane>`.
pub fn encode_saga(saga: &Saga) -> Bytes {
    wire::StoredSaga {
        format: FORMAT,
        saga: write_uuid(saga.id.0),
        ordinal: Some((&saga.ordinal).into()),
        definition: Some(write_definition(&DefinitionRef::of(&saga.definition))),
        fold_version: saga.fold_version,
        inputs: saga.inputs.clone(),
        results_topic: saga.results_topic.clone(),
        trace: write_trace(&saga.trace),
        started_ms: saga.started_ms,
        changed_by: saga.changed_by,
        undoing: write_phase(&saga.phase),
        deadline: saga.deadline.map(write_deadline),
        steps: saga.steps.iter().map(write_step).collect(),
        attention: saga.attention.map(write_attention),
    }
    .encode_to_vec()
    .into()
}

/// Reads an open saga back; `find` gives the definition that it names.
pub fn decode_saga(
    bytes: &[u8],
    find: impl Fn(&DefinitionRef) -> Option<Arc<Definition>>,
) -> Result<Saga, DecodeError> {
    let saga: wire::StoredSaga = parse(SAGA, bytes)?;
    let named = read_definition(SAGA, saga.definition)?;
    let Some(definition) = find(&named) else {
        return Err(malformed(SAGA, format!("its definition {} ({}) is not stored", named.id, named.hash)));
    };
    let steps = saga.steps.into_iter().map(read_step).collect::<Result<Vec<_>, _>>()?;
    for (name, count) in [("steps", steps.len()), ("inputs", saga.inputs.len())] {
        if count != definition.steps.len() {
            let expected = definition.steps.len();
            return Err(malformed(SAGA, format!("{count} {name} where its definition has {expected} steps")));
        }
    }
    let limit = steps.len();
    Ok(Saga {
        id: read_saga_id(SAGA, &saga.saga)?,
        ordinal: read_ordinal(SAGA, saga.ordinal)?,
        fold_version: saga.fold_version,
        inputs: saga.inputs,
        results_topic: non_empty(SAGA, "results_topic", saga.results_topic)?,
        trace: read_trace(saga.trace),
        started_ms: saga.started_ms,
        changed_by: position(SAGA, "changed_by", saga.changed_by)?,
        phase: read_phase(saga.undoing, limit)?,
        deadline: saga.deadline.map(read_deadline).transpose()?,
        attention: saga.attention.map(|attention| read_attention(attention, limit)).transpose()?,
        definition,
        steps,
    })
}

fn write_definition(definition: &DefinitionRef) -> wire::DefinitionRef {
    wire::DefinitionRef {
        name: definition.id.name.clone(),
        version: definition.id.version,
        hash: Bytes::copy_from_slice(&definition.hash.0.to_be_bytes()),
    }
}

fn read_definition(what: &'static str, definition: Option<wire::DefinitionRef>) -> Result<DefinitionRef, DecodeError> {
    let definition = required(what, "definition", definition)?;
    let hash: [u8; 16] =
        definition.hash.as_ref().try_into().map_err(|_| {
            malformed(what, format!("definition hash has {} bytes instead of 16", definition.hash.len()))
        })?;
    Ok(DefinitionRef {
        id: DefinitionId { name: non_empty(what, "definition name", definition.name)?, version: definition.version },
        hash: DefinitionHash(u128::from_be_bytes(hash)),
    })
}

fn write_phase(phase: &Phase) -> Option<parts::Undoing> {
    match phase {
        Phase::Forward => None,
        Phase::Undoing(undoing) => Some(parts::Undoing {
            cause: match undoing.cause {
                UndoCause::Refused => parts::Cause::Refused,
                UndoCause::TimedOut => parts::Cause::TimedOut,
                UndoCause::Invalid => parts::Cause::Invalid,
                UndoCause::Operator => parts::Cause::Operator,
            }
            .into(),
            step: undoing.step.map(write_index),
            refusal: Some((&undoing.refusal).into()),
            since_ms: undoing.since_ms,
        }),
    }
}

fn read_phase(undoing: Option<parts::Undoing>, steps: usize) -> Result<Phase, DecodeError> {
    let Some(undoing) = undoing else { return Ok(Phase::Forward) };
    let cause = match parts::Cause::try_from(undoing.cause) {
        Ok(parts::Cause::Refused) => UndoCause::Refused,
        Ok(parts::Cause::TimedOut) => UndoCause::TimedOut,
        Ok(parts::Cause::Invalid) => UndoCause::Invalid,
        Ok(parts::Cause::Operator) => UndoCause::Operator,
        Ok(parts::Cause::Unspecified) | Err(_) => return Err(unknown_number("cause of an undo", undoing.cause)),
    };
    Ok(Phase::Undoing(Undoing {
        cause,
        step: undoing.step.map(|step| read_index(step, steps)).transpose()?,
        refusal: read_refusal(SAGA, required(SAGA, "refusal", undoing.refusal)?)?,
        since_ms: undoing.since_ms,
    }))
}

fn write_step(step: &StepState) -> parts::Step {
    let action = match &step.action {
        ActionState::NotIssued => Action::NotIssued(wire::Empty {}),
        ActionState::Issued => Action::Issued(wire::Empty {}),
        ActionState::Applied { output } => Action::Applied(output.clone()),
        ActionState::Refused(refusal) => Action::Refused(refusal.into()),
    };
    let undo = match step.undo {
        UndoState::NotIssued => parts::Undo::NotIssued,
        UndoState::Issued => parts::Undo::Issued,
        UndoState::Undone => parts::Undo::Undone,
    };
    parts::Step {
        action: Some(action),
        undo: undo.into(),
        issued_ms: step.issued_ms,
        failures: step.failures,
        timeout: step.timeout.map(write_deadline),
        retry: step.retry.map(write_deadline),
    }
}

fn read_step(step: parts::Step) -> Result<StepState, DecodeError> {
    let action = match step.action {
        None => return Err(DecodeError::UnknownFormat { what: SAGA, number: 0 }),
        Some(Action::NotIssued(_)) => ActionState::NotIssued,
        Some(Action::Issued(_)) => ActionState::Issued,
        Some(Action::Applied(output)) => ActionState::Applied { output },
        Some(Action::Refused(refusal)) => ActionState::Refused(read_refusal(SAGA, refusal)?),
    };
    let undo = match parts::Undo::try_from(step.undo) {
        Ok(parts::Undo::NotIssued) => UndoState::NotIssued,
        Ok(parts::Undo::Issued) => UndoState::Issued,
        Ok(parts::Undo::Undone) => UndoState::Undone,
        Ok(parts::Undo::Unspecified) | Err(_) => return Err(unknown_number("state of an undo", step.undo)),
    };
    Ok(StepState {
        action,
        undo,
        issued_ms: step.issued_ms,
        failures: step.failures,
        timeout: step.timeout.map(read_deadline).transpose()?,
        retry: step.retry.map(read_deadline).transpose()?,
    })
}

pub(super) fn write_deadline(deadline: Deadline) -> wire::Deadline {
    wire::Deadline { at_ms: deadline.at_ms, armed_by: deadline.armed_by }
}

pub(super) fn read_deadline(deadline: wire::Deadline) -> Result<Deadline, DecodeError> {
    Ok(Deadline { at_ms: deadline.at_ms, armed_by: position(SAGA, "armed_by", deadline.armed_by)? })
}

fn write_attention(attention: Attention) -> parts::Attention {
    let cause = match attention.cause {
        AttentionCause::Unanswered => parts::AttentionCause::Unanswered,
        AttentionCause::Stale => parts::AttentionCause::Stale,
        AttentionCause::RefusedRetriable => parts::AttentionCause::RefusedRetriable,
        AttentionCause::CancelledWithoutUndo => parts::AttentionCause::CancelledWithoutUndo,
        AttentionCause::SetAside => parts::AttentionCause::SetAside,
    };
    parts::Attention { cause: cause.into(), step: write_index(attention.step), since_ms: attention.since_ms }
}

fn read_attention(attention: parts::Attention, steps: usize) -> Result<Attention, DecodeError> {
    let cause = match parts::AttentionCause::try_from(attention.cause) {
        Ok(parts::AttentionCause::Unanswered) => AttentionCause::Unanswered,
        Ok(parts::AttentionCause::Stale) => AttentionCause::Stale,
        Ok(parts::AttentionCause::RefusedRetriable) => AttentionCause::RefusedRetriable,
        Ok(parts::AttentionCause::CancelledWithoutUndo) => AttentionCause::CancelledWithoutUndo,
        Ok(parts::AttentionCause::SetAside) => AttentionCause::SetAside,
        Ok(parts::AttentionCause::Unspecified) | Err(_) => {
            return Err(unknown_number("cause of attention", attention.cause));
        }
    };
    Ok(Attention { cause, step: read_index(attention.step, steps)?, since_ms: attention.since_ms })
}

/// A definition has at most 64 steps, so no position is cut off.
fn write_index(step: StepIndex) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}

fn read_index(step: u32, steps: usize) -> Result<StepIndex, DecodeError> {
    usize::try_from(step)
        .ok()
        .filter(|index| *index < steps)
        .ok_or_else(|| malformed(SAGA, format!("step {step} of {steps}")))
}
