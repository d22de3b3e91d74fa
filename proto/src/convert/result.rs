//! Records of a results topic.

use bytes::Bytes;
use prost::Message;
use saga_core::record::{ResultRecord, SagaOutcome, SagaResult, UndoCause, UndoNotice};
use wire::saga_result::{Cause, Outcome, Undone};

use super::ids::{read_ordinal, read_refusal, read_saga, read_trace, write_trace, write_uuid};
use crate::error::{non_empty, parse, required, unknown_number};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const RESULT: &str = "saga result";

impl Wire for ResultRecord {
    fn encode(&self) -> Bytes {
        let outcome = match self {
            Self::Ended(result) => write_outcome(&result.outcome),
            Self::Undoing(_) => Outcome::Undoing(wire::Empty {}),
        };
        wire::SagaResult {
            format: FORMAT,
            saga: write_uuid(self.saga().0),
            ordinal: Some(self.ordinal().into()),
            outcome: Some(outcome),
            trace: write_trace(self.trace()),
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let result: wire::SagaResult = parse(RESULT, bytes)?;
        let saga = read_saga(RESULT, &result.saga)?;
        let ordinal = read_ordinal(RESULT, result.ordinal)?;
        let trace = read_trace(result.trace);
        let outcome = match result.outcome {
            None => return Err(DecodeError::UnknownFormat { what: RESULT, number: 0 }),
            Some(Outcome::Undoing(_)) => return Ok(Self::Undoing(UndoNotice { saga, ordinal, trace })),
            Some(Outcome::Completed(_)) => SagaOutcome::Completed,
            Some(Outcome::Undone(undone)) => read_undone(undone)?,
        };
        Ok(Self::Ended(SagaResult { saga, ordinal, outcome, trace }))
    }
}

fn write_outcome(outcome: &SagaOutcome) -> Outcome {
    match outcome {
        SagaOutcome::Completed => Outcome::Completed(wire::Empty {}),
        SagaOutcome::Undone { cause, step, refusal } => {
            let cause = match cause {
                UndoCause::Refused => Cause::Refused,
                UndoCause::TimedOut => Cause::TimedOut,
                UndoCause::Invalid => Cause::Invalid,
                UndoCause::Operator => Cause::Operator,
            };
            Outcome::Undone(Undone { cause: cause.into(), step: step.clone(), refusal: Some(refusal.into()) })
        }
    }
}

fn read_undone(undone: Undone) -> Result<SagaOutcome, DecodeError> {
    let cause = match Cause::try_from(undone.cause) {
        Ok(Cause::Refused) => UndoCause::Refused,
        Ok(Cause::TimedOut) => UndoCause::TimedOut,
        Ok(Cause::Invalid) => UndoCause::Invalid,
        Ok(Cause::Operator) => UndoCause::Operator,
        Ok(Cause::Unspecified) | Err(_) => return Err(unknown_number("cause of an undo", undone.cause)),
    };
    let step = undone.step.map(|step| non_empty(RESULT, "step", step)).transpose()?;
    let refusal = read_refusal(RESULT, required(RESULT, "refusal", undone.refusal)?)?;
    Ok(SagaOutcome::Undone { cause, step, refusal })
}
