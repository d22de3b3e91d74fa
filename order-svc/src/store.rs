//! The order store: keys, and orders as they are stored.

use bytes::Bytes;
use proto::shop::{self, attempt, order as wire};
use proto::{DecodeError, Wire};
use saga_core::ids::SagaId;
use saga_core::record::UndoCause;
use uuid::Uuid;

use crate::order::{Attempt, Course, Line, Order, Status, Verdict};

/// The key of an order.
pub fn order_key(order_id: &str) -> String {
    format!("order:{order_id}")
}

/// The order's bytes.
pub fn encode(order: &Order) -> Bytes {
    let mut stored = shop::Order::new(order.user_id.as_str());
    stored.lines = order.lines.iter().map(write_line).collect();
    stored.total_cost = order.total_cost;
    stored.status = Some(match order.status {
        Status::Open => wire::Status::Open(wire::Open {}),
        Status::CheckingOut { saga, lane, sequence, course } => {
            let undoing = course == Course::Undoing;
            wire::Status::CheckingOut(wire::CheckingOut { saga_id: write_saga(saga), lane, sequence, undoing })
        }
        Status::Paid { saga } => wire::Status::Paid(wire::Paid { saga_id: saga.map_or_else(Bytes::new, write_saga) }),
    });
    stored.attempts = order.attempts.iter().map(write_attempt).collect();
    stored.forgotten_saga_id = order.forgotten.map_or_else(Bytes::new, write_saga);
    stored.encode()
}

/// Reads an order's bytes.
pub fn decode(bytes: &[u8]) -> Result<Order, DecodeError> {
    let stored = shop::Order::decode(bytes)?;
    let status = match stored.status.ok_or_else(|| malformed("no status"))? {
        wire::Status::Open(wire::Open {}) => Status::Open,
        wire::Status::CheckingOut(wire::CheckingOut { saga_id, lane, sequence, undoing }) => {
            let course = if undoing { Course::Undoing } else { Course::Forward };
            Status::CheckingOut { saga: read_saga(&saga_id)?, lane, sequence, course }
        }
        wire::Status::Paid(paid) if paid.saga_id.is_empty() => Status::Paid { saga: None },
        wire::Status::Paid(paid) => Status::Paid { saga: Some(read_saga(&paid.saga_id)?) },
    };
    Ok(Order {
        user_id: stored.user_id,
        lines: stored.lines.into_iter().map(read_line).collect(),
        total_cost: stored.total_cost,
        status,
        attempts: stored.attempts.into_iter().map(read_attempt).collect::<Result<_, _>>()?,
        forgotten: match &*stored.forgotten_saga_id {
            [] => None,
            id => Some(read_saga(id)?),
        },
    })
}

fn write_line(line: &Line) -> shop::OrderLine {
    shop::OrderLine { item_id: line.item_id.clone(), quantity: line.quantity, price: line.price }
}

fn read_line(line: shop::OrderLine) -> Line {
    Line { item_id: line.item_id, quantity: line.quantity, price: line.price }
}

fn write_attempt(attempt: &Attempt) -> shop::Attempt {
    let (outcome, code, reason) = match &attempt.verdict {
        Verdict::Paid => (attempt::Outcome::Paid, "", ""),
        Verdict::Undone { cause, code, reason } => (write_cause(*cause), code.as_str(), reason.as_str()),
    };
    shop::Attempt {
        saga_id: write_saga(attempt.saga),
        outcome: outcome.into(),
        code: code.to_owned(),
        reason: reason.to_owned(),
    }
}

fn write_cause(cause: UndoCause) -> attempt::Outcome {
    match cause {
        UndoCause::Refused => attempt::Outcome::Refused,
        UndoCause::TimedOut => attempt::Outcome::TimedOut,
        UndoCause::Invalid => attempt::Outcome::Invalid,
        UndoCause::Operator => attempt::Outcome::Operator,
    }
}

fn read_attempt(stored: shop::Attempt) -> Result<Attempt, DecodeError> {
    let saga = read_saga(&stored.saga_id)?;
    let cause = match attempt::Outcome::try_from(stored.outcome) {
        Ok(attempt::Outcome::Paid) => return Ok(Attempt { saga, verdict: Verdict::Paid }),
        Ok(attempt::Outcome::Refused) => UndoCause::Refused,
        Ok(attempt::Outcome::TimedOut) => UndoCause::TimedOut,
        Ok(attempt::Outcome::Invalid) => UndoCause::Invalid,
        Ok(attempt::Outcome::Operator) => UndoCause::Operator,
        Ok(attempt::Outcome::Unspecified) | Err(_) => return Err(malformed("impossible outcome of an attempt")),
    };
    Ok(Attempt { saga, verdict: Verdict::Undone { cause, code: stored.code, reason: stored.reason } })
}

fn write_saga(saga: SagaId) -> Bytes {
    Bytes::copy_from_slice(saga.0.as_bytes())
}

fn read_saga(bytes: &[u8]) -> Result<SagaId, DecodeError> {
    Uuid::from_slice(bytes).map(SagaId).map_err(|cause| malformed(format!("saga id: {cause}")))
}

fn malformed(why: impl Into<String>) -> DecodeError {
    DecodeError::Malformed { what: "order", why: why.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdicts() -> impl Strategy<Value = Verdict> {
        let causes = prop_oneof![
            Just(UndoCause::Refused),
            Just(UndoCause::TimedOut),
            Just(UndoCause::Invalid),
            Just(UndoCause::Operator)
        ];
        prop_oneof![
            Just(Verdict::Paid),
            (causes, "[a-z-]{0,12}", "[ -~]{0,40}").prop_map(|(cause, code, reason)| Verdict::Undone {
                cause,
                code,
                reason
            })
        ]
    }

    fn sagas() -> impl Strategy<Value = SagaId> {
        any::<u128>().prop_map(|number| SagaId(Uuid::from_u128(number)))
    }

    fn orders() -> impl Strategy<Value = Order> {
        let status = prop_oneof![
            Just(Status::Open),
            (sagas(), any::<u32>(), any::<u64>(), prop_oneof![Just(Course::Forward), Just(Course::Undoing)])
                .prop_map(|(saga, lane, sequence, course)| Status::CheckingOut { saga, lane, sequence, course }),
            prop::option::of(sagas()).prop_map(|saga| Status::Paid { saga }),
        ];
        let line = ("[a-z0-9-]{1,8}", any::<u64>(), any::<u64>()).prop_map(|(item_id, quantity, price)| Line {
            item_id,
            quantity,
            price,
        });
        let attempt = (sagas(), verdicts()).prop_map(|(saga, verdict)| Attempt { saga, verdict });
        let lists = (prop::collection::vec(line, 0..4), prop::collection::vec(attempt, 0..4));
        let forgotten = prop::option::of(sagas());
        ("[a-z0-9]{1,8}", any::<u64>(), status, lists, forgotten).prop_map(
            |(user_id, total_cost, status, (lines, attempts), forgotten)| Order {
                user_id,
                lines,
                total_cost,
                status,
                attempts,
                forgotten,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(order in orders()) {
            prop_assert_eq!(decode(&encode(&order)).unwrap(), order);
        }
    }

    #[test]
    fn what_is_no_order_is_an_error() {
        assert!(decode(b"").is_err());
        assert!(decode(b"\x08\x02").is_err(), "another format");
        assert!(decode(b"\x08\x01").is_err(), "no status");
    }
}
