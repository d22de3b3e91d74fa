//! The stock in sagas: `reserve` takes what the lines ask for, its undo puts it back.

use bytes::Bytes;
use participant::{Business, Decision, Fault, UndoOutcome, Values, read, unreadable};
use proto::shop::{ReserveInput, ReserveLine};
use proto::{DecodeError, Wire};
use saga_core::record::{Command, Refusal};

use crate::decide::{Item, add_up, put_back, reserve};
use crate::store::item_key;

/// The operation of the step.
const RESERVE: &str = "reserve";
/// Refusal code: the input is no reservation and never will be.
const INVALID_INPUT: &str = "invalid-input";

/// The rule of the stock.
#[derive(Clone, Copy, Debug)]
pub struct Stock;

impl Business for Stock {
    fn keys(&self, command: &Command) -> Vec<String> {
        // What cannot be read names no keys; `action` says why.
        let lines = ReserveInput::decode(&command.input).map(|input| input.lines).unwrap_or_default();
        lines.iter().map(|line| item_key(&line.item_id)).collect()
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        if command.operation != RESERVE {
            return Ok(Decision::Fail { reason: format!("stock does not know \"{}\"", command.operation) });
        }
        let input = match ReserveInput::decode(&command.input) {
            Ok(input) => input,
            Err(cause @ DecodeError::Malformed { .. }) => return Ok(refuse(INVALID_INPUT, cause.to_string())),
            Err(cause @ DecodeError::UnknownFormat { .. }) => return Ok(Decision::Fail { reason: cause.to_string() }),
        };
        let wanted = add_up(input.lines.iter().map(|line| (line.item_id.as_str(), line.quantity)));
        let mut taken = Vec::with_capacity(wanted.len());
        for (item_id, quantity) in wanted {
            let key = item_key(item_id);
            let item = read::<Item>(values, &key)?;
            match reserve(item_id, item, quantity) {
                Ok(left) => values.set(key, left.encode()),
                Err(refusal) => return Ok(Decision::Refuse(refusal)),
            }
            taken.push(ReserveLine { item_id: item_id.to_owned(), quantity: quantity.unwrap_or_default() });
        }
        Ok(Decision::Apply { output: Bytes::new(), undo: ReserveInput::new(taken).encode() })
    }

    fn undo(&self, _command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        let taken = ReserveInput::decode(done).map_err(|cause| unreadable("what was reserved", &cause))?;
        let mut gone = Vec::new();
        for line in taken.lines {
            let key = item_key(&line.item_id);
            let Some(item) = read::<Item>(values, &key)? else {
                gone.push(line.item_id);
                continue;
            };
            match put_back(item, line.quantity) {
                Some(item) => values.set(key, item.encode()),
                None => return Ok(UndoOutcome::Fail { reason: format!("item {} is too full", line.item_id) }),
            }
        }
        Ok(if gone.is_empty() {
            UndoOutcome::Reversed
        } else {
            UndoOutcome::ObjectGone { object: format!("items {}", gone.join(", ")) }
        })
    }
}

fn refuse(code: &str, reason: String) -> Decision {
    Decision::Refuse(Refusal { code: code.to_owned(), reason })
}

#[cfg(test)]
mod tests;
