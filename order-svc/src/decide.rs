//! The order's state machine: pure, total, deterministic.
//!
//! *open* → *checking out (saga, ordinal)* → *paid*, or *open* again with the reason.

use std::collections::BTreeMap;

use saga_core::ids::{Ordinal, SagaId};
use saga_core::record::{SagaOutcome, SagaResult, UndoCause};
use service_kit::params::MAX_AMOUNT;

use crate::order::{Attempt, Course, Line, Order, Status, Verdict};

/// Most lines of an order: its value is read and written whole.
pub const MAX_LINES: usize = 1_000;

/// How many ended sagas an order remembers: what a person wants to see, and what a late request may still ask about.
pub const MAX_ATTEMPTS: usize = 8;

/// Why an order cannot be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditRefusal {
    /// It is being checked out by this saga.
    CheckingOut(SagaId),
    /// It is paid.
    Paid,
    /// It has [`MAX_LINES`] lines.
    TooManyLines,
    /// Its total, or the quantity of one item, would be larger than an amount may be.
    TooLarge,
}

/// Adds a line.
pub fn add_item(order: &mut Order, line: Line) -> Result<(), EditRefusal> {
    match order.status {
        Status::Open => {}
        Status::CheckingOut { saga, .. } => return Err(EditRefusal::CheckingOut(saga)),
        Status::Paid { .. } => return Err(EditRefusal::Paid),
    }
    if order.lines.len() >= MAX_LINES {
        return Err(EditRefusal::TooManyLines);
    }
    let total_cost = line.quantity.checked_mul(line.price).and_then(|cost| order.total_cost.checked_add(cost));
    // The quantities are added up at checkout, so their sum must be a quantity too (an item may cost nothing).
    let same_item = order.lines.iter().filter(|other| other.item_id == line.item_id);
    let quantity = same_item.fold(line.quantity, |sum, other| sum.saturating_add(other.quantity));
    match total_cost {
        Some(total_cost) if total_cost <= MAX_AMOUNT && quantity <= MAX_AMOUNT => {
            order.total_cost = total_cost;
            order.lines.push(line);
            Ok(())
        }
        _ => Err(EditRefusal::TooLarge),
    }
}

/// What a request to check out leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// The saga has been started: the order is locked.
    Started,
    /// This saga is at work already.
    Joins(SagaId),
    /// It was paid before; by this saga, unless it needed none.
    WasPaid(Option<SagaId>),
    /// It had no lines and is paid now, without a saga.
    PaidForNothing,
}

/// Checks an order out with the saga that is offered.
pub fn checkout(order: &mut Order, saga: SagaId, ordinal: &Ordinal) -> Checkout {
    match order.status {
        Status::Paid { saga } => Checkout::WasPaid(saga),
        Status::CheckingOut { saga, .. } => Checkout::Joins(saga),
        Status::Open if order.lines.is_empty() => {
            order.status = Status::Paid { saga: None };
            Checkout::PaidForNothing
        }
        Status::Open => {
            let (lane, sequence) = (ordinal.lane.0, ordinal.sequence);
            order.status = Status::CheckingOut { saga, lane, sequence, course: Course::Forward };
            Checkout::Started
        }
    }
}

/// The lines with every item once, ascending by item.
pub fn merged_lines(order: &Order) -> BTreeMap<&str, u64> {
    let mut merged = BTreeMap::new();
    for line in &order.lines {
        let quantity: &mut u64 = merged.entry(line.item_id.as_str()).or_default();
        *quantity = quantity.saturating_add(line.quantity);
    }
    merged
}

/// Whether the result changed the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is paid, or open again.
    Yes,
    /// It does not wait for this saga: nothing changed.
    NotCurrent,
}

/// Applies the end of a saga.
pub fn apply_result(order: &mut Order, result: &SagaResult) -> Applied {
    let current = match order.status {
        Status::CheckingOut { saga, .. } => saga,
        Status::Open | Status::Paid { .. } => return Applied::NotCurrent,
    };
    if current != result.saga {
        return Applied::NotCurrent;
    }
    order.status = match &result.outcome {
        SagaOutcome::Completed => Status::Paid { saga: Some(result.saga) },
        SagaOutcome::Undone { .. } => Status::Open,
    };
    if order.attempts.len() >= MAX_ATTEMPTS {
        let oldest = order.attempts.drain(..=order.attempts.len() - MAX_ATTEMPTS).next();
        order.forgotten = order.forgotten.or(oldest.map(|attempt| attempt.saga));
    }
    order.attempts.push(Attempt { saga: result.saga, verdict: verdict(&result.outcome) });
    Applied::Yes
}

/// Notes that the order's saga is being undone.
pub fn note_undo(order: &mut Order, undone: SagaId) -> Applied {
    match &mut order.status {
        Status::CheckingOut { saga, course, .. } if *saga == undone => {
            *course = Course::Undoing;
            Applied::Yes
        }
        Status::Open | Status::CheckingOut { .. } | Status::Paid { .. } => Applied::NotCurrent,
    }
}

/// A saga's outcome in the words of an order.
pub fn verdict(outcome: &SagaOutcome) -> Verdict {
    match outcome {
        SagaOutcome::Completed => Verdict::Paid,
        SagaOutcome::Undone { cause, step: _, refusal } => {
            Verdict::Undone { cause: *cause, code: refusal.code.clone(), reason: refusal.reason.clone() }
        }
    }
}

/// What an order says about one saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// It is at work.
    Running,
    /// It has ended so.
    Ended(Verdict),
    /// The order does not know it: somebody has replaced it.
    Unknown,
}

/// What the order knows of a saga. One between the first that it has forgotten and those that it remembers was refused: an
/// order is paid once, by the saga that it names. One before that belongs to an order that this one has replaced.
pub fn about(order: &Order, saga: SagaId) -> About {
    match order.status {
        Status::CheckingOut { saga: current, .. } if current == saga => return About::Running,
        Status::Paid { saga: Some(by) } if by == saga => return About::Ended(Verdict::Paid),
        Status::Open | Status::CheckingOut { .. } | Status::Paid { .. } => {}
    }
    if let Some(attempt) = order.attempts.iter().find(|attempt| attempt.saga == saga) {
        return About::Ended(attempt.verdict.clone());
    }
    // The ids begin with the time.
    let is_of_this_order = order.forgotten.is_some_and(|first| first <= saga);
    if !is_of_this_order || order.attempts.iter().any(|known| known.saga < saga) {
        return About::Unknown;
    }
    let reason = "the checkout was refused, nothing was taken; it is so long ago that the order has forgotten why";
    About::Ended(Verdict::Undone { cause: UndoCause::Refused, code: "forgotten".to_owned(), reason: reason.to_owned() })
}

#[cfg(test)]
mod tests;
