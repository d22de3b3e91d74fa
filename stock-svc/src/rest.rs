//! The routes of the stock.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use participant::answer;
use participant::host::BatchInit;
use redis_txn::{Queue, Store, Transaction, Unread, View};
use serde_json::{Value, json};
use service_kit::params::{MAX_AMOUNT, id, not_found, whole_number};
use service_kit::problem::Problem;
use uuid::Uuid;

use crate::decide::{Item, OUT_OF_STOCK, Refused, add, subtract};
use crate::store::{decode, encode, item_key};

/// Most items of one `batch_init`: some gigabytes of Redis.
const MAX_BATCH_ITEMS: u64 = 10_000_000;

/// What the handlers need.
struct Shelf {
    store: Store,
    requests: Queue,
    batch_init: BatchInit,
}

/// The routes of API.md that belong to items.
pub fn router(store: Store, batch_init: BatchInit) -> Router {
    let requests = store.rest_queue();
    Router::new()
        .route("/stock/item/create/{price}", post(create))
        .route("/stock/find/{item_id}", get(find))
        .route("/stock/add/{item_id}/{amount}", post(put_in))
        .route("/stock/subtract/{item_id}/{amount}", post(take_out))
        .route("/stock/batch_init/{n}/{starting_stock}/{item_price}", post(batch_init_items))
        .with_state(Arc::new(Shelf { store, requests, batch_init }))
}

type Handled<T> = Result<T, Problem>;

async fn create(State(shelf): State<Arc<Shelf>>, Path(price): Path<String>) -> Handled<Json<Value>> {
    let price = whole_number("price", &price, 0, MAX_AMOUNT)?;
    let item_id = Uuid::now_v7().to_string();
    let create = Create { key: item_key(&item_id), item: Item { stock: 0, price } };
    shelf.requests.run(create).await.map_err(|error| answer::not_committed(&error))?;
    Ok(Json(json!({ "item_id": item_id })))
}

async fn find(State(shelf): State<Arc<Shelf>>, Path(item_id): Path<String>) -> Handled<Json<Value>> {
    let item_id = id("item", &item_id)?;
    let values = shelf.store.read(&[item_key(&item_id)]).await.map_err(|error| answer::not_committed(&error))?;
    let bytes = values.into_iter().next().flatten().ok_or_else(|| not_found("item", &item_id))?;
    let item = decode(&bytes).map_err(|error| answer::unreadable(&error.to_string()))?;
    Ok(Json(json!({ "stock": item.stock, "price": item.price })))
}

async fn put_in(State(shelf): State<Arc<Shelf>>, Path((item_id, amount)): Path<(String, String)>) -> Handled<String> {
    change(&shelf, &item_id, &amount, add).await
}

async fn take_out(State(shelf): State<Arc<Shelf>>, Path((item_id, amount)): Path<(String, String)>) -> Handled<String> {
    change(&shelf, &item_id, &amount, subtract).await
}

async fn change(shelf: &Shelf, item_id: &str, amount: &str, rule: Rule) -> Handled<String> {
    let item_id = id("item", item_id)?;
    let amount = whole_number("amount", amount, 0, MAX_AMOUNT)?;
    let change = Change { key: item_key(&item_id), amount, rule };
    match shelf.requests.run(change).await.map_err(|error| answer::not_committed(&error))? {
        Changed::Done { stock } => Ok(format!("item {item_id} now has a stock of {stock}\n")),
        Changed::NoItem => Err(not_found("item", &item_id)),
        Changed::Refused(Refused::TooMany) => Err(answer::too_large("the stock")),
        Changed::Refused(Refused::OutOfStock) => {
            Err(Problem::new(409, OUT_OF_STOCK, format!("item {item_id} has less than {amount} in stock")))
        }
        Changed::Unreadable(why) => Err(answer::unreadable(&why)),
    }
}

async fn batch_init_items(
    State(shelf): State<Arc<Shelf>>,
    Path((n, starting_stock, item_price)): Path<(String, String, String)>,
) -> Handled<Json<Value>> {
    if shelf.batch_init == BatchInit::Off {
        return Err(answer::batch_init_off());
    }
    let n = whole_number("n", &n, 0, MAX_BATCH_ITEMS)?;
    let stock = whole_number("starting_stock", &starting_stock, 0, MAX_AMOUNT)?;
    let price = whole_number("item_price", &item_price, 0, MAX_AMOUNT)?;
    let item = encode(Item { stock, price });
    let rows = (0..n).map(move |number| (item_key(&number.to_string()), item.clone()));
    let written = shelf.store.bulk_set(rows).await.map_err(|error| answer::not_written(&error))?;
    Ok(Json(json!({ "msg": format!("{written} items written") })))
}

/// A new item.
struct Create {
    key: String,
    item: Item,
}

impl Transaction for Create {
    type Outcome = ();

    fn keys(&self, _keys: &mut Vec<String>) {}

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        view.set(self.key.clone(), encode(self.item));
        Ok(())
    }
}

type Rule = fn(Item, u64) -> Result<Item, Refused>;

/// Another stock of an item.
struct Change {
    key: String,
    amount: u64,
    rule: Rule,
}

/// What became of a change.
enum Changed {
    Done { stock: u64 },
    NoItem,
    Refused(Refused),
    Unreadable(String),
}

impl Transaction for Change {
    type Outcome = Changed;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.key.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Changed, Unread> {
        let Some(bytes) = view.get(&self.key)? else { return Ok(Changed::NoItem) };
        let item = match decode(&bytes) {
            Ok(item) => item,
            Err(cause) => return Ok(Changed::Unreadable(cause.to_string())),
        };
        Ok(match (self.rule)(item, self.amount) {
            Ok(item) => {
                view.set(self.key.clone(), encode(item));
                Changed::Done { stock: item.stock }
            }
            Err(refused) => Changed::Refused(refused),
        })
    }
}

#[cfg(test)]
mod tests {
    use redis_txn::Memory;

    use super::*;

    #[test]
    fn a_change_is_made_or_leaves_everything() {
        let mut memory = Memory::new().with("item:a", encode(Item { stock: 4, price: 2 }));
        let mut run = |key: &str, amount, rule: Rule| {
            let outcome = memory.run(&mut Change { key: key.to_owned(), amount, rule });
            let stock = decode(memory.get("item:a").expect("the item")).expect("readable").stock;
            (outcome, stock)
        };
        assert!(matches!(run("item:a", 3, subtract), (Changed::Done { stock: 1 }, 1)));
        assert!(matches!(run("item:a", 2, subtract), (Changed::Refused(Refused::OutOfStock), 1)));
        assert!(matches!(run("item:a", MAX_AMOUNT, add), (Changed::Refused(Refused::TooMany), 1)));
        assert!(matches!(run("item:b", 1, add), (Changed::NoItem, 1)));
    }
}
