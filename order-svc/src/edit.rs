//! The REST writes that need no saga: create an order, add a line.

use redis_txn::{Transaction, Unread, View};

use crate::decide::{self, EditRefusal};
use crate::order::{Line, Order};
use crate::store::{decode, encode, order_key};

/// Writes a new order under an id that nobody else has.
pub struct Create {
    /// The order's id: a new UUID.
    pub order_id: String,
    /// Who will pay.
    pub user_id: String,
}

impl Transaction for Create {
    type Outcome = ();

    fn keys(&self, _keys: &mut Vec<String>) {}

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        view.set(order_key(&self.order_id), encode(&Order::new(self.user_id.as_str())));
        Ok(())
    }
}

/// Adds a line to an open order.
pub struct AddItem {
    /// Which order.
    pub order_id: String,
    /// With the price of this moment.
    pub line: Line,
}

/// What became of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edited {
    /// It is written.
    Done,
    /// There is no such order.
    NoOrder,
    /// The order's state does not allow it.
    Refused(EditRefusal),
    /// The stored order cannot be read.
    Unreadable(String),
}

impl Transaction for AddItem {
    type Outcome = Edited;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(order_key(&self.order_id));
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Edited, Unread> {
        let key = order_key(&self.order_id);
        let Some(bytes) = view.get(&key)? else { return Ok(Edited::NoOrder) };
        let mut order = match decode(&bytes) {
            Ok(order) => order,
            Err(error) => return Ok(Edited::Unreadable(error.to_string())),
        };
        Ok(match decide::add_item(&mut order, self.line.clone()) {
            Ok(()) => {
                view.set(key, encode(&order));
                Edited::Done
            }
            Err(refusal) => Edited::Refused(refusal),
        })
    }
}
