//! The starter's business: orders as order-svc keeps them, checked out with any definition.

use bytes::Bytes;
use order_svc::decide::{Applied, Checkout, apply_result, checkout, note_undo};
use order_svc::order::{Line, Order, Status};
use order_svc::store::{decode, encode, order_key};
use redis_txn::{Unread, View};
use saga_core::ids::{Ordinal, SagaId};
use saga_core::record::{SagaResult, UndoNotice};
use starter::{Application, Business, Decision, Plan, unreadable};

/// A request to check an order out.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which order.
    pub order: String,
    /// What its checkout runs.
    pub plan: Plan,
}

/// What a checkout is told that needs no saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Paid before, by this saga.
    Paid(Option<SagaId>),
    /// No such order, or it cannot be read.
    None,
}

/// The rule, and the mistakes that can be made in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shop {
    /// Starts a second saga for an order that is being checked out.
    pub forgetful: bool,
    /// Takes any result for that of the saga that the order waits for.
    pub credulous: bool,
}

/// An order with something in it.
pub fn new_order(number: usize) -> Bytes {
    let mut order = Order::new(format!("user-{number}"));
    order.lines.push(Line { item_id: "item".to_owned(), quantity: 1, price: 1 });
    order.total_cost = 1;
    encode(&order)
}

impl Business for Shop {
    type Request = Request;
    type Answer = Answer;

    fn subject<'a>(&self, request: &'a Request) -> &'a str {
        &request.order
    }

    fn keys(&self, order: &str, keys: &mut Vec<String>) {
        keys.push(order_key(order));
    }

    fn decide(
        &self,
        view: &mut View<'_>,
        request: &Request,
        saga: SagaId,
        ordinal: &Ordinal,
    ) -> Result<Decision<Answer>, Unread> {
        let key = order_key(&request.order);
        let Some(Ok(mut order)) = view.get(&key)?.map(|bytes| decode(&bytes)) else {
            return Ok(Decision::Answer(Answer::None));
        };
        if self.forgetful {
            order.status = Status::Open;
        }
        Ok(match checkout(&mut order, saga, ordinal) {
            Checkout::Joins(other) => Decision::Join(other),
            Checkout::WasPaid(by) => Decision::Answer(Answer::Paid(by)),
            Checkout::PaidForNothing => Decision::Answer(Answer::None),
            Checkout::Started => {
                view.set(key, encode(&order));
                Decision::Start(request.plan.clone())
            }
        })
    }

    fn apply(&self, view: &mut View<'_>, order: &str, result: &SagaResult) -> Result<Application, Unread> {
        change(view, order, |order| match order.status {
            Status::CheckingOut { saga, .. } if self.credulous => {
                apply_result(order, &SagaResult { saga, ..result.clone() })
            }
            _ => apply_result(order, result),
        })
    }

    fn undoing(&self, view: &mut View<'_>, order: &str, notice: &UndoNotice) -> Result<Application, Unread> {
        change(view, order, |order| note_undo(order, notice.saga))
    }
}

fn change(view: &mut View<'_>, order: &str, change: impl FnOnce(&mut Order) -> Applied) -> Result<Application, Unread> {
    let key = order_key(order);
    let Some(bytes) = view.get(&key)? else { return Ok(Application::NotCurrent) };
    let mut order = match decode(&bytes) {
        Ok(order) => order,
        Err(error) => return Ok(Application::Unreadable(unreadable(&key, &error))),
    };
    Ok(match change(&mut order) {
        Applied::NotCurrent => Application::NotCurrent,
        Applied::Yes => {
            view.set(key, encode(&order));
            Application::Applied
        }
    })
}
