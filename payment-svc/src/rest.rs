//! The routes of payment.

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

use crate::decide::{INSUFFICIENT_CREDIT, Refused, User, add_funds, pay};
use crate::store::{decode, encode, user_key};

/// Most users of one `batch_init`: some gigabytes of Redis.
const MAX_BATCH_USERS: u64 = 10_000_000;

/// What the handlers need.
struct Purses {
    store: Store,
    requests: Queue,
    batch_init: BatchInit,
}

/// The routes of API.md that belong to users.
pub fn router(store: Store, batch_init: BatchInit) -> Router {
    let requests = store.rest_queue();
    Router::new()
        .route("/payment/create_user", post(create))
        .route("/payment/find_user/{user_id}", get(find))
        .route("/payment/add_funds/{user_id}/{amount}", post(put_in))
        .route("/payment/pay/{user_id}/{amount}", post(take_out))
        .route("/payment/batch_init/{n}/{starting_money}", post(batch_init_users))
        .with_state(Arc::new(Purses { store, requests, batch_init }))
}

type Handled<T> = Result<T, Problem>;

async fn create(State(purses): State<Arc<Purses>>) -> Handled<Json<Value>> {
    let user_id = Uuid::now_v7().to_string();
    let create = Create { key: user_key(&user_id), user: User { credit: 0 } };
    purses.requests.run(create).await.map_err(|error| answer::not_committed(&error))?;
    Ok(Json(json!({ "user_id": user_id })))
}

async fn find(State(purses): State<Arc<Purses>>, Path(user_id): Path<String>) -> Handled<Json<Value>> {
    let user_id = id("user", &user_id)?;
    let values = purses.store.read(&[user_key(&user_id)]).await.map_err(|error| answer::not_committed(&error))?;
    let bytes = values.into_iter().next().flatten().ok_or_else(|| not_found("user", &user_id))?;
    let user = decode(&bytes).map_err(|error| answer::unreadable(&error.to_string()))?;
    Ok(Json(json!({ "user_id": user_id, "credit": user.credit })))
}

async fn put_in(State(purses): State<Arc<Purses>>, Path((user_id, amount)): Path<(String, String)>) -> Handled<String> {
    change(&purses, &user_id, &amount, add_funds).await
}

async fn take_out(
    State(purses): State<Arc<Purses>>,
    Path((user_id, amount)): Path<(String, String)>,
) -> Handled<String> {
    change(&purses, &user_id, &amount, pay).await
}

async fn change(purses: &Purses, user_id: &str, amount: &str, rule: Rule) -> Handled<String> {
    let user_id = id("user", user_id)?;
    let amount = whole_number("amount", amount, 0, MAX_AMOUNT)?;
    let change = Change { key: user_key(&user_id), amount, rule };
    match purses.requests.run(change).await.map_err(|error| answer::not_committed(&error))? {
        Changed::Done { credit } => Ok(format!("user {user_id} now has a credit of {credit}\n")),
        Changed::NoUser => Err(not_found("user", &user_id)),
        Changed::Refused(Refused::TooMuch) => Err(answer::too_large("the credit")),
        Changed::Refused(Refused::InsufficientCredit) => {
            Err(Problem::new(402, INSUFFICIENT_CREDIT, format!("user {user_id} has less than {amount} of credit")))
        }
        Changed::Unreadable(why) => Err(answer::unreadable(&why)),
    }
}

async fn batch_init_users(
    State(purses): State<Arc<Purses>>,
    Path((n, starting_money)): Path<(String, String)>,
) -> Handled<Json<Value>> {
    if purses.batch_init == BatchInit::Off {
        return Err(answer::batch_init_off());
    }
    let n = whole_number("n", &n, 0, MAX_BATCH_USERS)?;
    let credit = whole_number("starting_money", &starting_money, 0, MAX_AMOUNT)?;
    let user = encode(User { credit });
    let rows = (0..n).map(move |number| (user_key(&number.to_string()), user.clone()));
    let written = purses.store.bulk_set(rows).await.map_err(|error| answer::not_written(&error))?;
    Ok(Json(json!({ "msg": format!("{written} users written") })))
}

/// A new user.
struct Create {
    key: String,
    user: User,
}

impl Transaction for Create {
    type Outcome = ();

    fn keys(&self, _keys: &mut Vec<String>) {}

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        view.set(self.key.clone(), encode(self.user));
        Ok(())
    }
}

type Rule = fn(User, u64) -> Result<User, Refused>;

/// Another credit of a user.
struct Change {
    key: String,
    amount: u64,
    rule: Rule,
}

/// What became of a change.
enum Changed {
    Done { credit: u64 },
    NoUser,
    Refused(Refused),
    Unreadable(String),
}

impl Transaction for Change {
    type Outcome = Changed;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.key.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Changed, Unread> {
        let Some(bytes) = view.get(&self.key)? else { return Ok(Changed::NoUser) };
        let user = match decode(&bytes) {
            Ok(user) => user,
            Err(cause) => return Ok(Changed::Unreadable(cause.to_string())),
        };
        Ok(match (self.rule)(user, self.amount) {
            Ok(user) => {
                view.set(self.key.clone(), encode(user));
                Changed::Done { credit: user.credit }
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
        let mut memory = Memory::new().with("user:u", encode(User { credit: 4 }));
        let mut run = |key: &str, amount, rule: Rule| {
            let outcome = memory.run(&mut Change { key: key.to_owned(), amount, rule });
            let credit = decode(memory.get("user:u").expect("the user")).expect("readable").credit;
            (outcome, credit)
        };
        assert!(matches!(run("user:u", 3, pay), (Changed::Done { credit: 1 }, 1)));
        assert!(matches!(run("user:u", 2, pay), (Changed::Refused(Refused::InsufficientCredit), 1)));
        assert!(matches!(run("user:u", MAX_AMOUNT, add_funds), (Changed::Refused(Refused::TooMuch), 1)));
        assert!(matches!(run("user:x", 1, add_funds), (Changed::NoUser, 1)));
    }
}
