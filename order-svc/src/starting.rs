//! The shop's half of the starter: which saga a checkout runs, and what its end does to the order.

use std::collections::BTreeMap;
use std::str::FromStr;

use proto::Wire;
use proto::shop::{ChargeInput, ReserveInput, ReserveLine};
use redis_txn::{Unread, View};
use rest_kit::Answer;
use rest_kit::idempotency::{self, Record, Recorded, RequestKey, recorded};
use saga_core::ids::{Ordinal, SagaId};
use saga_core::record::{SagaResult, UndoNotice};
use starter::{Application, Business, Decision, Plan, unreadable};

use crate::answer;
use crate::decide::{self, Applied, Checkout, merged_lines};
use crate::order::Order;
use crate::store::{decode, encode, order_key};

/// Looks at a result before it is applied.
pub type Probe = fn(&SagaResult);

/// Checks orders out with one definition.
pub struct Checkouts {
    /// The definition's name.
    pub definition: String,
    /// What its steps get.
    pub inputs: Inputs,
    /// Where a program with a bug panics; `None` in the product.
    pub probe: Option<Probe>,
}

/// What each step of a definition gets, by the step's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs(BTreeMap<String, Input>);

/// What a step gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The order's lines, to be reserved.
    Lines,
    /// Its user and its total cost, to be charged.
    Total,
}

impl FromStr for Inputs {
    type Err = String;

    /// `STEP=lines,STEP=total`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut inputs = BTreeMap::new();
        for part in text.split(',') {
            let (step, input) = match part.split_once('=') {
                Some((step, "lines")) if !step.is_empty() => (step, Input::Lines),
                Some((step, "total")) if !step.is_empty() => (step, Input::Total),
                _ => return Err(format!("\"{part}\" is neither STEP=lines nor STEP=total")),
            };
            if inputs.insert(step.to_owned(), input).is_some() {
                return Err(format!("the step {step} is named twice"));
            }
        }
        Ok(Self(inputs))
    }
}

/// A request to check out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutRequest {
    /// Which order.
    pub order_id: String,
    /// The request's Idempotency-Key, if it has one.
    pub key: Option<RequestKey>,
}

/// What a checkout is told that needs no saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The request has come before, or its key cannot be used.
    Recorded(Answer),
    /// The order is paid; by this saga, unless it needed none.
    Paid(Option<SagaId>),
    /// There is no such order.
    NoOrder,
    /// The stored order cannot be read.
    Unreadable(String),
}

impl Business for Checkouts {
    type Request = CheckoutRequest;
    type Answer = Decided;

    fn subject<'a>(&self, request: &'a CheckoutRequest) -> &'a str {
        &request.order_id
    }

    fn keys(&self, order_id: &str, keys: &mut Vec<String>) {
        keys.push(order_key(order_id));
    }

    fn request_keys(&self, request: &CheckoutRequest, keys: &mut Vec<String>) {
        keys.extend(request.key.iter().map(|key| key.record.clone()));
    }

    fn decide(
        &self,
        view: &mut View<'_>,
        request: &CheckoutRequest,
        saga: SagaId,
        ordinal: &Ordinal,
    ) -> Result<Decision<Decided>, Unread> {
        let Some(key) = &request.key else { return self.decide_order(view, &request.order_id, saga, ordinal) };
        match recorded(view, key)? {
            idempotency::Outcome::New => {}
            idempotency::Outcome::Recorded(Recorded::Saga(before)) => return Ok(Decision::Join(before)),
            idempotency::Outcome::Recorded(Recorded::Answer(answer)) | idempotency::Outcome::Unusable(answer) => {
                return Ok(Decision::Answer(Decided::Recorded(answer)));
            }
        }
        let decision = self.decide_order(view, &request.order_id, saga, ordinal)?;
        let decided = match &decision {
            Decision::Start(_) => Some(Recorded::Saga(saga)),
            Decision::Join(other) | Decision::Answer(Decided::Paid(Some(other))) => Some(Recorded::Saga(*other)),
            Decision::Answer(Decided::Paid(None)) => Some(Recorded::Answer(Answer::text(answer::PAID))),
            Decision::Answer(Decided::NoOrder) => {
                Some(Recorded::Answer(Answer::from(&answer::no_order(&request.order_id))))
            }
            Decision::Answer(Decided::Recorded(_) | Decided::Unreadable(_)) => None,
        };
        if let Some(decided) = decided {
            Record::new(key, decided).write(view, key);
        }
        Ok(decision)
    }

    fn apply(&self, view: &mut View<'_>, order_id: &str, result: &SagaResult) -> Result<Application, Unread> {
        if let Some(probe) = self.probe {
            probe(result);
        }
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

impl Checkouts {
    fn decide_order(
        &self,
        view: &mut View<'_>,
        order_id: &str,
        saga: SagaId,
        ordinal: &Ordinal,
    ) -> Result<Decision<Decided>, Unread> {
        let key = order_key(order_id);
        let Some(bytes) = view.get(&key)? else { return Ok(Decision::Answer(Decided::NoOrder)) };
        let mut order = match decode(&bytes) {
            Ok(order) => order,
            Err(error) => return Ok(Decision::Answer(Decided::Unreadable(error.to_string()))),
        };
        Ok(match decide::checkout(&mut order, saga, ordinal) {
            Checkout::Joins(other) => Decision::Join(other),
            Checkout::WasPaid(by) => Decision::Answer(Decided::Paid(by)),
            Checkout::PaidForNothing => {
                view.set(key, encode(&order));
                Decision::Answer(Decided::Paid(None))
            }
            Checkout::Started => {
                view.set(key, encode(&order));
                Decision::Start(self.plan(&order))
            }
        })
    }

    fn plan(&self, order: &Order) -> Plan {
        let lines = merged_lines(order).into_iter();
        let lines = lines.map(|(item_id, quantity)| ReserveLine { item_id: item_id.to_owned(), quantity }).collect();
        let lines = ReserveInput::new(lines).encode();
        let total = ChargeInput::new(order.user_id.as_str(), order.total_cost).encode();
        let encoded = |input: &Input| match input {
            Input::Lines => lines.clone(),
            Input::Total => total.clone(),
        };
        let inputs = self.inputs.0.iter().map(|(step, input)| (step.clone(), encoded(input))).collect();
        Plan { definition: self.definition.clone(), inputs }
    }
}

#[cfg(test)]
mod tests {
    use rest_kit::idempotency::Begun;

    use super::*;

    fn checkouts(inputs: &str) -> Checkouts {
        Checkouts { definition: "checkout".to_owned(), inputs: inputs.parse().unwrap(), probe: None }
    }

    #[test]
    fn each_step_gets_what_the_setting_says() {
        let order = Order { total_cost: 7, ..Order::new("u") };
        let plan = checkouts("a=lines,b=total,c=lines").plan(&order);
        let total = ChargeInput::new("u", 7).encode();
        let lines = ReserveInput::new(Vec::new()).encode();
        let expected =
            [("a", &lines), ("b", &total), ("c", &lines)].map(|(step, input)| (step.to_owned(), input.clone()));
        assert_eq!(plan.inputs, BTreeMap::from(expected));
        for bad in ["", "a", "=lines", "a=line", "a=lines,", "a=lines,a=total"] {
            assert!(bad.parse::<Inputs>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_names_the_record_of_its_key_in_advance() {
        let key = RequestKey {
            record: "idem:POST /orders/checkout/7 k".to_owned(),
            fingerprint: 1,
            hour: 2,
            begun: Begun::Nothing,
        };
        let keys_of = |key| {
            let mut keys = Vec::new();
            let request = CheckoutRequest { order_id: "7".to_owned(), key };
            checkouts("reserve=lines,charge=total").request_keys(&request, &mut keys);
            keys
        };
        assert_eq!(keys_of(Some(key.clone())), [key.record]);
        assert!(keys_of(None).is_empty());
    }
}
