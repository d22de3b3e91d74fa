//! The shop's own payloads and stored values. These generated types are used by the shop's services as they are:
//! make them with `new`, which sets the format; [`Wire`] checks it.

use bytes::Bytes;
use prost::Message;

pub use self::generated::{
    Attempt, ChargeInput, Item, Order, OrderLine, ReserveInput, ReserveLine, User, attempt, order,
};
use crate::error::{non_empty, parse, required};
use crate::{DecodeError, FORMAT, Wire};

#[allow(missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/shop.v1.rs"));
}

impl ReserveInput {
    /// Asks for these lines; the same item may be listed more than once.
    pub fn new(lines: Vec<ReserveLine>) -> Self {
        Self { format: FORMAT, lines }
    }

    fn check(self) -> Result<Self, DecodeError> {
        for line in &self.lines {
            non_empty("reserve input", "item_id", line.item_id.clone())?;
        }
        Ok(self)
    }
}

impl ChargeInput {
    /// Asks for this amount of this user's credit.
    pub fn new(user_id: impl Into<String>, amount: u64) -> Self {
        Self { format: FORMAT, user_id: user_id.into(), amount }
    }

    fn check(self) -> Result<Self, DecodeError> {
        non_empty("charge input", "user_id", self.user_id.clone())?;
        Ok(self)
    }
}

impl Item {
    /// An item with this many pieces at this price each.
    pub fn new(stock: u64, price: u64) -> Self {
        Self { format: FORMAT, stock, price }
    }

    fn check(self) -> Result<Self, DecodeError> {
        Ok(self)
    }
}

impl User {
    /// A user with this credit.
    pub fn new(credit: u64) -> Self {
        Self { format: FORMAT, credit }
    }

    fn check(self) -> Result<Self, DecodeError> {
        Ok(self)
    }
}

impl Order {
    /// An open order without lines.
    pub fn new(user_id: impl Into<String>) -> Self {
        Self {
            format: FORMAT,
            user_id: user_id.into(),
            lines: Vec::new(),
            total_cost: 0,
            status: Some(order::Status::Open(order::Open {})),
            attempts: Vec::new(),
            forgotten_saga_id: Bytes::new(),
        }
    }

    fn check(self) -> Result<Self, DecodeError> {
        required("order", "status", self.status.as_ref())?;
        Ok(self)
    }
}

macro_rules! wire {
    ($type:ty, $what:literal) => {
        impl Wire for $type {
            fn encode(&self) -> Bytes {
                debug_assert_eq!(self.format, FORMAT, concat!($what, " was not made with `new`"));
                self.encode_to_vec().into()
            }

            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                parse::<Self>($what, bytes)?.check()
            }
        }
    };
}

wire!(ReserveInput, "reserve input");
wire!(ChargeInput, "charge input");
wire!(Item, "item");
wire!(User, "user");
wire!(Order, "order");
