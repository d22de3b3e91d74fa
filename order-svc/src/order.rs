//! What an order is.

use saga_core::ids::SagaId;
use saga_core::record::UndoCause;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who pays.
    pub user_id: String,
    /// In the order they were added.
    pub lines: Vec<Line>,
    /// Sum of quantity times price.
    pub total_cost: u64,
    /// Where it stands.
    pub status: Status,
    /// The last few sagas that have ended, oldest first.
    pub attempts: Vec<Attempt>,
    /// The first of those that it does not remember any more.
    pub forgotten: Option<SagaId>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which item.
    pub item_id: String,
    /// How many.
    pub quantity: u64,
    /// Price of one when the line was added.
    pub price: u64,
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It may be edited and checked out.
    Open,
    /// The semantic lock: this saga is at work on it.
    CheckingOut {
        /// The saga.
        saga: SagaId,
        /// Its lane.
        lane: u32,
        /// Its sequence in the lane.
        sequence: u64,
        /// Which way the saga goes, as far as the order has been told.
        course: Course,
    },
    /// Done for ever.
    Paid {
        /// `None`: it had no lines and needed no saga.
        saga: Option<SagaId>,
    },
}

/// Which way a saga goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Its steps are being done.
    Forward,
    /// Its steps are being undone, and that takes a while.
    Undoing,
}

/// A saga that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which saga.
    pub saga: SagaId,
    /// How it ended.
    pub verdict: Verdict,
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The order is paid.
    Paid,
    /// Everything was undone.
    Undone {
        /// What started the undo.
        cause: UndoCause,
        /// Refusal code.
        code: String,
        /// A sentence for people.
        reason: String,
    },
}

impl Order {
    /// An open order without lines.
    pub fn new(user_id: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            lines: Vec::new(),
            total_cost: 0,
            status: Status::Open,
            attempts: Vec::new(),
            forgotten: None,
        }
    }
}
