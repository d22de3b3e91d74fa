//! The routes of payment.

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

use crate::decide::{INSUFFICIENT_CREDIT, Refused, User, add_funds, pay};
use crate::store::user_key;

/// What the handlers need.
struct Purses {
    store: Store,
    requests: Queue,
    batch_init: BatchInit,
}

/// The routes of `gateway/src/contract.rs` that belong to users.
pub fn router(store: Store, shutdown: CancellationToken, batch_init: BatchInit) -> Router {
    let keys = IdempotencyKeys::start(store.clone(), shutdown);
    let requests = store.rest_queue();
    // Inside of the trace: what is answered from the record belongs to it too.
    let once = |handlers: MethodRouter<_>| handlers.layer(from_fn_with_state(keys.clone(), IdempotencyKeys::layer));
    Router::new()
        .traced_route("/payment/create_user", once(post(create)))
        .traced_route("/payment/find_user/{user_id}", get(find))
        .traced_route("/payment/add_funds/{user_id}/{amount}", once(post(put_in)))
        .traced_route("/payment/pay/{user_id}/{amount}", once(post(take_out)))
        .traced_route("/payment/batch_init/{n}/{starting_money}", once(post(batch_init_users)))
        .with_state(Arc::new(Purses { store, requests, batch_init }))
}

type Handled<T> = Result<T, Problem>;

/// The request's Idempotency-Key, if it has one.
type Key = Option<Extension<RequestKey>>;

async fn create(State(purses): State<Arc<Purses>>, key: Key) -> Handled<Answer> {
    let user_id = Uuid::now_v7().to_string();
    let create = Create { key: user_key(&user_id), object: User { credit: 0 } };
    let created = Answer::json(&json!({ "user_id": user_id }));
    let create = Keyed::new(create, key.map(|Extension(key)| key), move |()| created.clone());
    purses.requests.run(create).await.map_err(|error| problems::not_committed(&error))
}

async fn find(State(purses): State<Arc<Purses>>, Path(user_id): Path<String>) -> Handled<Json<Value>> {
    let user_id = id("user", &user_id)?;
    let values = purses.store.read(&[user_key(&user_id)]).await.map_err(|error| problems::not_committed(&error))?;
    let bytes = values.into_iter().next().flatten().ok_or_else(|| not_found("user", &user_id))?;
    let user = User::decode(&bytes).map_err(|error| problems::unreadable(&error.to_string()))?;
    Ok(Json(json!({ "user_id": user_id, "credit": user.credit })))
}

async fn put_in(
    State(purses): State<Arc<Purses>>,
    Path((user_id, amount)): Path<(String, String)>,
    key: Key,
) -> Handled<Answer> {
    change(&purses, &user_id, &amount, add_funds, key).await
}

async fn take_out(
    State(purses): State<Arc<Purses>>,
    Path((user_id, amount)): Path<(String, String)>,
    key: Key,
) -> Handled<Answer> {
    change(&purses, &user_id, &amount, pay, key).await
}

async fn change(purses: &Purses, user_id: &str, amount: &str, rule: Rule<User, Refused>, key: Key) -> Handled<Answer> {
    let user_id = id("user", user_id)?;
    let amount = whole_number("amount", amount, 0, MAX_AMOUNT)?;
    let change = Change { key: user_key(&user_id), amount, rule };
    let answer = move |changed: &_| said(&user_id, amount, changed).unwrap_or_else(|problem| Answer::from(&problem));
    let change = Keyed::new(change, key.map(|Extension(key)| key), answer);
    purses.requests.run(change).await.map_err(|error| problems::not_committed(&error))
}

/// What is said of a change.
fn said(user_id: &str, amount: u64, changed: &Changed<User, Refused>) -> Handled<Answer> {
    match changed {
        Changed::Done(User { credit }) => Ok(Answer::text(format!("user {user_id} now has a credit of {credit}\n"))),
        Changed::Missing => Err(not_found("user", user_id)),
        Changed::Refused(Refused::TooMuch) => Err(problems::too_large("the credit")),
        Changed::Refused(Refused::InsufficientCredit) => {
            Err(Problem::new(402, INSUFFICIENT_CREDIT, format!("user {user_id} has less than {amount} of credit")))
        }
        Changed::Unreadable(why) => Err(problems::unreadable(why)),
    }
}

async fn batch_init_users(
    State(purses): State<Arc<Purses>>,
    Path((n, starting_money)): Path<(String, String)>,
    key: Key,
) -> Handled<Answer> {
    if purses.batch_init == BatchInit::Off {
        return Err(problems::batch_init_off());
    }
    let n = whole_number("n", &n, 0, MAX_BATCH_ROWS)?;
    let credit = whole_number("starting_money", &starting_money, 0, MAX_AMOUNT)?;
    let user = User { credit }.encode();
    let rows = (0..n).map(move |number| (user_key(&number.to_string()), user.clone()));
    let filled = fill(&purses.store, &purses.requests, rows, ("users", key.map(|Extension(key)| key))).await;
    filled.map_err(|error| problems::not_written(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_answered_by_what_became_of_it() {
        let table = [
            (Changed::Done(User { credit: 1 }), 200),
            (Changed::Missing, 404),
            (Changed::Refused(Refused::TooMuch), 422),
            (Changed::Refused(Refused::InsufficientCredit), 402),
            (Changed::Unreadable("?".to_owned()), 500),
        ];
        for (changed, status) in table {
            let answer = said("u", 3, &changed);
            assert_eq!(answer.map_or_else(|problem| problem.status, |answer| answer.status), status, "{changed:?}");
        }
    }
}
