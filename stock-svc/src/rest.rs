//! The routes of the stock.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use participant::host::BatchInit;
use proto::Wire;
use redis_txn::{Queue, Store};
use rest_kit::idempotency::{IdempotencyKeys, Keyed, RequestKey};
use rest_kit::object::{Change, Changed, Create, Rule};
use rest_kit::{Answer, fill, problems};
use serde_json::{Value, json};
use service_kit::params::{MAX_AMOUNT, MAX_BATCH_ROWS, id, not_found, whole_number};
use service_kit::problem::Problem;
use service_kit::traced::TracedRoutes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::decide::{Item, OUT_OF_STOCK, Refused, add, subtract};
use crate::store::item_key;

/// What the handlers need.
struct Shelf {
    store: Store,
    requests: Queue,
    batch_init: BatchInit,
}

/// The routes of `gateway/src/contract.rs` that belong to items.
pub fn router(store: Store, shutdown: CancellationToken, batch_init: BatchInit) -> Router {
    let keys = IdempotencyKeys::start(store.clone(), shutdown);
    let requests = store.rest_queue();
    // Inside of the trace: what is answered from the record belongs to it too.
    let once = |handlers: MethodRouter<_>| handlers.layer(from_fn_with_state(keys.clone(), IdempotencyKeys::layer));
    Router::new()
        .traced_route("/stock/item/create/{price}", once(post(create)))
        .traced_route("/stock/find/{item_id}", get(find))
        .traced_route("/stock/add/{item_id}/{amount}", once(post(put_in)))
        .traced_route("/stock/subtract/{item_id}/{amount}", once(post(take_out)))
        .traced_route("/stock/batch_init/{n}/{starting_stock}/{item_price}", once(post(batch_init_items)))
        .with_state(Arc::new(Shelf { store, requests, batch_init }))
}

type Handled<T> = Result<T, Problem>;

/// The request's Idempotency-Key, if it has one.
type Key = Option<Extension<RequestKey>>;

async fn create(State(shelf): State<Arc<Shelf>>, Path(price): Path<String>, key: Key) -> Handled<Answer> {
    let price = whole_number("price", &price, 0, MAX_AMOUNT)?;
    let item_id = Uuid::now_v7().to_string();
    let create = Create { key: item_key(&item_id), object: Item { stock: 0, price } };
    let created = Answer::json(&json!({ "item_id": item_id }));
    let create = Keyed::new(create, key.map(|Extension(key)| key), move |()| created.clone());
    shelf.requests.run(create).await.map_err(|error| problems::not_committed(&error))
}

async fn find(State(shelf): State<Arc<Shelf>>, Path(item_id): Path<String>) -> Handled<Json<Value>> {
    let item_id = id("item", &item_id)?;
    let values = shelf.store.read(&[item_key(&item_id)]).await.map_err(|error| problems::not_committed(&error))?;
    let bytes = values.into_iter().next().flatten().ok_or_else(|| not_found("item", &item_id))?;
    let item = Item::decode(&bytes).map_err(|error| problems::unreadable(&error.to_string()))?;
    Ok(Json(json!({ "stock": item.stock, "price": item.price })))
}

async fn put_in(
    State(shelf): State<Arc<Shelf>>,
    Path((item_id, amount)): Path<(String, String)>,
    key: Key,
) -> Handled<Answer> {
    change(&shelf, &item_id, &amount, add, key).await
}

async fn take_out(
    State(shelf): State<Arc<Shelf>>,
    Path((item_id, amount)): Path<(String, String)>,
    key: Key,
) -> Handled<Answer> {
    change(&shelf, &item_id, &amount, subtract, key).await
}

async fn change(shelf: &Shelf, item_id: &str, amount: &str, rule: Rule<Item, Refused>, key: Key) -> Handled<Answer> {
    let item_id = id("item", item_id)?;
    let amount = whole_number("amount", amount, 0, MAX_AMOUNT)?;
    let change = Change { key: item_key(&item_id), amount, rule };
    let answer = move |changed: &_| said(&item_id, amount, changed).unwrap_or_else(|problem| Answer::from(&problem));
    let change = Keyed::new(change, key.map(|Extension(key)| key), answer);
    shelf.requests.run(change).await.map_err(|error| problems::not_committed(&error))
}

/// What is said of a change.
fn said(item_id: &str, amount: u64, changed: &Changed<Item, Refused>) -> Handled<Answer> {
    match changed {
        Changed::Done(Item { stock, .. }) => Ok(Answer::text(format!("item {item_id} now has a stock of {stock}\n"))),
        Changed::Missing => Err(not_found("item", item_id)),
        Changed::Refused(Refused::TooMany) => Err(problems::too_large("the stock")),
        Changed::Refused(Refused::OutOfStock) => {
            Err(Problem::new(409, OUT_OF_STOCK, format!("item {item_id} has less than {amount} in stock")))
        }
        Changed::Unreadable(why) => Err(problems::unreadable(why)),
    }
}

async fn batch_init_items(
    State(shelf): State<Arc<Shelf>>,
    Path((n, starting_stock, item_price)): Path<(String, String, String)>,
    key: Key,
) -> Handled<Answer> {
    if shelf.batch_init == BatchInit::Off {
        return Err(problems::batch_init_off());
    }
    let n = whole_number("n", &n, 0, MAX_BATCH_ROWS)?;
    let stock = whole_number("starting_stock", &starting_stock, 0, MAX_AMOUNT)?;
    let price = whole_number("item_price", &item_price, 0, MAX_AMOUNT)?;
    let item = Item { stock, price }.encode();
    let rows = (0..n).map(move |number| (item_key(&number.to_string()), item.clone()));
    let filled = fill(&shelf.store, &shelf.requests, rows, ("items", key.map(|Extension(key)| key))).await;
    filled.map_err(|error| problems::not_written(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_answered_by_what_became_of_it() {
        let table = [
            (Changed::Done(Item { stock: 1, price: 2 }), 200),
            (Changed::Missing, 404),
            (Changed::Refused(Refused::TooMany), 422),
            (Changed::Refused(Refused::OutOfStock), 409),
            (Changed::Unreadable("?".to_owned()), 500),
        ];
        for (changed, status) in table {
            let answer = said("a", 3, &changed);
            assert_eq!(answer.map_or_else(|problem| problem.status, |answer| answer.status), status, "{changed:?}");
        }
    }
}
