//! The payment in sagas: `charge` takes the amount from the user's credit, its undo gives it back.

use bytes::Bytes;
use participant::{Business, Decision, Fault, UndoOutcome, Values, read, unreadable};
use proto::shop::ChargeInput;
use proto::{DecodeError, Wire};
use saga_core::record::{Command, Refusal};

use crate::decide::{User, charge, give_back};
use crate::store::user_key;

/// The operation of the step.
const CHARGE: &str = "charge";
/// Refusal code: the input is no charge and never will be.
const INVALID_INPUT: &str = "invalid-input";

/// The rule of payment.
#[derive(Clone, Copy, Debug)]
pub struct Payment;

impl Business for Payment {
    fn keys(&self, command: &Command) -> Vec<String> {
        // What cannot be read names no keys; `action` says why.
        ChargeInput::decode(&command.input).map(|input| vec![user_key(&input.user_id)]).unwrap_or_default()
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        if command.operation != CHARGE {
            return Ok(Decision::Fail { reason: format!("payment does not know \"{}\"", command.operation) });
        }
        let input = match ChargeInput::decode(&command.input) {
            Ok(input) => input,
            Err(cause @ DecodeError::Malformed { .. }) => {
                return Ok(Decision::Refuse(Refusal { code: INVALID_INPUT.to_owned(), reason: cause.to_string() }));
            }
            Err(cause @ DecodeError::UnknownFormat { .. }) => return Ok(Decision::Fail { reason: cause.to_string() }),
        };
        let key = user_key(&input.user_id);
        let user = read::<User>(values, &key)?;
        match charge(&input.user_id, user, input.amount) {
            Ok(left) => values.set(key, left.encode()),
            Err(refusal) => return Ok(Decision::Refuse(refusal)),
        }
        Ok(Decision::Apply { output: Bytes::new(), undo: input.encode() })
    }

    fn undo(&self, _command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        let taken = ChargeInput::decode(done).map_err(|cause| unreadable("what was charged", &cause))?;
        let key = user_key(&taken.user_id);
        let Some(user) = read::<User>(values, &key)? else {
            return Ok(UndoOutcome::ObjectGone { object: format!("user {}", taken.user_id) });
        };
        match give_back(user, taken.amount) {
            Some(user) => values.set(key, user.encode()),
            None => return Ok(UndoOutcome::Fail { reason: format!("user {} has too much credit", taken.user_id) }),
        }
        Ok(UndoOutcome::Reversed)
    }
}

#[cfg(test)]
mod tests;
