//! The routes of the orders.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use redis_txn::{Queue, Store};
use rest_kit::idempotency::{IdempotencyKeys, Keyed, RequestKey};
use rest_kit::{Answer, fill, problems};
use saga_core::ids::SagaId;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use service_kit::params::{MAX_AMOUNT, id, whole_number};
use service_kit::problem::Problem;
use service_kit::traced::TracedRoutes;
use telemetry::context;
use uuid::Uuid;

use crate::answer;
use crate::batch::Batch;
use crate::checkout::Checkout;
use crate::edit::{AddItem, Create, Edited};
use crate::order::{Attempt, Course, Line, Order, Status, Verdict};
use crate::settings::BatchInit;
use crate::starting::CheckoutRequest;
use crate::stock_client::StockClient;
use crate::store::{decode, order_key};

/// What the handlers need.
pub struct Shop {
    /// Reads.
    pub store: Store,
    /// Writes.
    pub requests: Queue,
    /// Checkouts.
    pub checkout: Checkout,
    /// Prices.
    pub stock: StockClient,
    /// Whether `batch_init` is served.
    pub batch_init: BatchInit,
}

const CREATE: &str = "/orders/create/{user_id}";
const FIND: &str = "/orders/find/{order_id}";
const ADD_ITEM: &str = "/orders/addItem/{order_id}/{item_id}/{quantity}";
const CHECKOUT: &str = "/orders/checkout/{order_id}";
const BATCH_INIT: &str = "/orders/batch_init/{n}/{n_items}/{n_users}/{item_price}";

/// The routes of `gateway/src/contract.rs` that belong to orders.
pub fn router(shop: Arc<Shop>, keys: IdempotencyKeys) -> Router {
    // Inside of the trace: what is answered from the record belongs to it too.
    let once = |handlers: MethodRouter<_>| handlers.layer(from_fn_with_state(keys.clone(), IdempotencyKeys::layer));
    Router::new()
        .traced_route(CREATE, once(post(create)))
        .traced_route(FIND, get(find))
        .traced_route(ADD_ITEM, once(post(add_item)))
        .traced_route(CHECKOUT, once(post(checkout)))
        .traced_route(BATCH_INIT, once(post(batch_init)))
        .with_state(shop)
}

type Handled<T> = Result<T, Problem>;

/// The request's Idempotency-Key, if it has one.
type Key = Option<Extension<RequestKey>>;

/// Path parameters as text; bytes that are no text cannot name anything.
struct Params<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = Path::<T>::from_request_parts(parts, state).await;
        params
            .map(|Path(params)| Self(params))
            .map_err(|_rejection| Problem::new(404, "not-found", "there is no such thing"))
    }
}

async fn create(State(shop): State<Arc<Shop>>, Params(user_id): Params<String>, key: Key) -> Handled<Answer> {
    let user_id = id("user", &user_id)?;
    let order_id = Uuid::now_v7().to_string();
    let created = Answer::json(&json!({ "order_id": order_id }));
    let create = Keyed::new(Create { order_id, user_id }, key.map(|Extension(key)| key), move |()| created.clone());
    shop.requests.run(create).await.map_err(|error| problems::not_committed(&error))
}

async fn find(State(shop): State<Arc<Shop>>, Params(order_id): Params<String>) -> Handled<Json<Value>> {
    let order_id = id("order", &order_id)?;
    let values = shop.store.read(&[order_key(&order_id)]).await.map_err(|error| problems::not_committed(&error))?;
    let bytes = values.into_iter().next().flatten().ok_or_else(|| answer::no_order(&order_id))?;
    let order = decode(&bytes).map_err(|error| problems::unreadable(&error.to_string()))?;
    Ok(Json(show(&order_id, &order)))
}

async fn add_item(
    State(shop): State<Arc<Shop>>,
    Params((order_id, item_id, quantity)): Params<(String, String, String)>,
    key: Key,
) -> Handled<Answer> {
    let order_id = id("order", &order_id)?;
    let item_id = id("item", &item_id)?;
    let quantity = whole_number("quantity", &quantity, 1, MAX_AMOUNT)?;
    let price = shop.stock.price(&item_id).await?;
    let add = AddItem { order_id: order_id.clone(), line: Line { item_id, quantity, price } };
    let answer = move |edited: &_| said(&order_id, price, edited).unwrap_or_else(|problem| Answer::from(&problem));
    let add = Keyed::new(add, key.map(|Extension(key)| key), answer);
    shop.requests.run(add).await.map_err(|error| problems::not_committed(&error))
}

/// What is said of an edit.
fn said(order_id: &str, price: u64, edited: &Edited) -> Handled<Answer> {
    match edited {
        Edited::Done => Ok(Answer::text(format!("added to order {order_id} at a price of {price} each\n"))),
        Edited::NoOrder => Err(answer::no_order(order_id)),
        Edited::Refused(refusal) => Err(answer::edit_refused(*refusal)),
        Edited::Unreadable(why) => Err(problems::unreadable(why)),
    }
}

async fn checkout(State(shop): State<Arc<Shop>>, Params(order_id): Params<String>, key: Key) -> Handled<Answer> {
    let request = CheckoutRequest { order_id: id("order", &order_id)?, key: key.map(|Extension(key)| key) };
    shop.checkout.run(request, context::current()).await
}

async fn batch_init(
    State(shop): State<Arc<Shop>>,
    Params((n, n_items, n_users, item_price)): Params<(String, String, String, String)>,
    key: Key,
) -> Handled<Answer> {
    if shop.batch_init == BatchInit::Off {
        return Err(problems::batch_init_off());
    }
    let batch = Batch::new(&n, &n_items, &n_users, &item_price)?;
    let rows = batch.rows(SmallRng::from_os_rng());
    let filled = fill(&shop.store, &shop.requests, rows, ("orders", key.map(|Extension(key)| key))).await;
    filled.map_err(|error| problems::not_written(&error))
}

/// An order as clients see it.
fn show(order_id: &str, order: &Order) -> Value {
    let mut shown = json!({
        "order_id": order_id,
        "paid": matches!(order.status, Status::Paid { .. }),
        "items": order.lines.iter().map(|line| json!([line.item_id, line.quantity])).collect::<Vec<_>>(),
        "user_id": order.user_id,
        "total_cost": order.total_cost,
        "status": status_word(order.status),
        "attempts": order.attempts.iter().map(show_attempt).collect::<Vec<_>>(),
    });
    if let Some(saga) = current_saga(order) {
        shown["saga_id"] = Value::from(saga.to_string());
    }
    shown
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Open => "open",
        Status::CheckingOut { course: Course::Forward, .. } => "checking_out",
        Status::CheckingOut { course: Course::Undoing, .. } => "undoing",
        Status::Paid { .. } => "paid",
    }
}

/// The saga at work, or the one that ended last.
fn current_saga(order: &Order) -> Option<SagaId> {
    match order.status {
        Status::CheckingOut { saga, .. } => Some(saga),
        Status::Paid { saga } => saga,
        Status::Open => order.attempts.last().map(|attempt| attempt.saga),
    }
}

fn show_attempt(attempt: &Attempt) -> Value {
    let saga_id = attempt.saga.to_string();
    match &attempt.verdict {
        Verdict::Paid => json!({ "saga_id": saga_id, "outcome": "paid" }),
        Verdict::Undone { cause, code, reason } => json!({
            "saga_id": saga_id,
            "outcome": answer::cause_word(*cause),
            "code": code,
            "reason": reason,
        }),
    }
}

#[cfg(test)]
mod tests {
    use saga_core::record::UndoCause;

    use super::*;

    #[test]
    fn an_order_is_shown_as_the_contract_says() {
        let saga = SagaId(Uuid::from_u128(7));
        let mut order = Order::new("u");
        order.lines = [("b", 2), ("a", 1), ("b", 2)]
            .map(|(item_id, quantity)| Line { item_id: item_id.into(), quantity, price: 3 })
            .into();
        order.total_cost = 15;
        assert_eq!(
            show("o", &order),
            json!({"order_id": "o", "paid": false, "items": [["b", 2], ["a", 1], ["b", 2]], "user_id": "u",
                "total_cost": 15, "status": "open", "attempts": []})
        );
        let verdict = Verdict::Undone { cause: UndoCause::Refused, code: "out-of-stock".into(), reason: "no b".into() };
        order.attempts.push(Attempt { saga, verdict });
        let shown = show("o", &order);
        assert_eq!(shown["saga_id"], saga.to_string());
        assert_eq!(shown["attempts"][0]["outcome"], "refused");
        assert_eq!(shown["attempts"][0]["code"], "out-of-stock");
        order.status = Status::Paid { saga: Some(saga) };
        assert_eq!((&show("o", &order)["paid"], &show("o", &order)["status"]), (&json!(true), &json!("paid")));
    }
}
