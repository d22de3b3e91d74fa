//! The shop's half of the starter: which saga a checkout runs, and what its end does to the order.

use std::collections::BTreeMap;

use proto::Wire;
use proto::shop::{ChargeInput, ReserveInput, ReserveLine};
use redis_txn::{Unread, View};
use saga_core::ids::{Ordinal, SagaId};
use saga_core::record::{SagaResult, UndoNotice};
use starter::{Application, Business, Decision, Plan};

use crate::decide::{self, Applied, Checkout, merged_lines};
use crate::order::Order;
use crate::store::{decode, encode, order_key};

/// Step of the checkout that takes the stock.
const STEP_RESERVE: &str = "reserve";

/// Step of the checkout that takes the credit.
const STEP_CHARGE: &str = "charge";

/// Checks orders out with one definition.
pub struct Checkouts {
    /// The definition's name.
    pub definition: String,
}

/// What a checkout is told that needs no saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The order is paid; by this saga, unless it needed none.
    Paid(Option<SagaId>),
    /// There is no such order.
    NoOrder,
    /// The stored order cannot be read.
    Unreadable(String),
}

impl Business for Checkouts {
    /// The order's id.
    type Request = String;
    type Answer = Answer;

    fn subject<'a>(&self, order_id: &'a String) -> &'a str {
        order_id
    }

    fn keys(&self, order_id: &str, keys: &mut Vec<String>) {
        keys.push(order_key(order_id));
    }

    fn decide(
        &self,
        view: &mut View<'_>,
        order_id: &String,
        saga: SagaId,
        ordinal: &Ordinal,
    ) -> Result<Decision<Answer>, Unread> {
        let key = order_key(order_id);
        let Some(bytes) = view.get(&key)? else { return Ok(Decision::Answer(Answer::NoOrder)) };
        let mut order = match decode(&bytes) {
            Ok(order) => order,
            Err(error) => return Ok(Decision::Answer(Answer::Unreadable(error.to_string()))),
        };
        Ok(match decide::checkout(&mut order, saga, ordinal) {
            Checkout::Joins(other) => Decision::Join(other),
            Checkout::WasPaid(by) => Decision::Answer(Answer::Paid(by)),
            Checkout::PaidForNothing => {
                view.set(key, encode(&order));
                Decision::Answer(Answer::Paid(None))
            }
            Checkout::Started => {
                view.set(key, encode(&order));
                Decision::Start(self.plan(&order))
            }
        })
    }

    fn apply(&self, view: &mut View<'_>, order_id: &str, result: &SagaResult) -> Result<Application, Unread> {
        change(view, order_id, |order| decide::apply_result(order, result))
    }

    fn undoing(&self, view: &mut View<'_>, order_id: &str, notice: &UndoNotice) -> Result<Application, Unread> {
        change(view, order_id, |order| decide::note_undo(order, notice.saga))
    }
}

/// Orders are never deleted; one that `batch_init` has replaced does not wait for the saga.
fn change(
    view: &mut View<'_>,
    order_id: &str,
    change: impl FnOnce(&mut Order) -> Applied,
) -> Result<Application, Unread> {
    let key = order_key(order_id);
    let Some(bytes) = view.get(&key)? else { return Ok(Application::NotCurrent) };
    let mut order = match decode(&bytes) {
        Ok(order) => order,
        Err(error) => return Ok(Application::Corrupt(format!("{key}: {error}"))),
    };
    Ok(match change(&mut order) {
        Applied::NotCurrent => Application::NotCurrent,
        Applied::Yes => {
            view.set(key, encode(&order));
            Application::Applied
        }
    })
}

impl Checkouts {
    fn plan(&self, order: &Order) -> Plan {
        let lines = merged_lines(order).into_iter();
        let lines = lines.map(|(item_id, quantity)| ReserveLine { item_id: item_id.to_owned(), quantity }).collect();
        let charge = ChargeInput::new(order.user_id.as_str(), order.total_cost);
        Plan {
            definition: self.definition.clone(),
            inputs: BTreeMap::from([
                (STEP_RESERVE.to_owned(), ReserveInput::new(lines).encode()),
                (STEP_CHARGE.to_owned(), charge.encode()),
            ]),
        }
    }
}
