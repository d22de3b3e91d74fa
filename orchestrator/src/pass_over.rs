//! `POST /lanes/{lane}/pass-over/{offset}`: the operator's way on for a lane that a poison record has halted. It says that no
//! earlier owner has acted on the record, or that somebody has put right what one did.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use event_stream::{HaltReason, Lane, LaneFault};
use redis_txn::{Store, Transaction, Unread, View};
use serde_json::json;
use service_kit::problem::Problem;

use crate::admin::Admin;
use crate::checkpoint::store_failed;

/// The routes.
pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/lanes/{lane}/pass-over/{offset}", post(pass_over))
}

fn key(lane: Lane) -> String {
    format!("passed-over:{lane}")
}

/// The record of the lane that is to be set aside although an earlier owner may have folded it.
pub(crate) async fn passed_over(store: &Store, lane: Lane) -> Result<Option<i64>, LaneFault> {
    let key = key(lane);
    let found = store.read(std::slice::from_ref(&key)).await.map_err(|error| store_failed("read", error))?;
    let Some(text) = found.into_iter().flatten().next() else { return Ok(None) };
    let offset = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    let corrupt = || HaltReason::Corrupt(format!("{key} holds no offset"));
    offset.map(Some).ok_or_else(corrupt).map_err(LaneFault::from)
}

async fn pass_over(State(admin): State<Arc<Admin>>, Path((lane, offset)): Path<(String, String)>) -> Response {
    let (Ok(lane), Ok(offset)) = (lane.parse().map(Lane), offset.parse::<i64>()) else {
        return Problem::new(400, "bad-offset", "a lane and an offset are whole numbers").into_response();
    };
    let halted = admin.consumer.lanes().get(&lane).and_then(|status| status.halted.clone());
    if !matches!(halted, Some(HaltReason::Poison { offset: poison, .. }) if poison == offset) {
        let detail =
            format!("no record at {offset} has halted lane {lane} on this replica as poison; nothing was changed");
        return Problem::new(409, "lane-not-halted", detail).into_response();
    }
    match admin.store.rest_queue().run(Note { lane, offset }).await {
        Ok(()) => {
            tracing::warn!(%lane, offset, "an operator lets the lane pass a record over");
            Json(json!({ "lane": lane.0, "offset": offset, "next": "restart this replica" })).into_response()
        }
        Err(error) => {
            let detail = format!("it is not known whether this was written: {error}; to ask again does no harm");
            Problem::new(503, "outcome-unknown", detail).into_response()
        }
    }
}

struct Note {
    lane: Lane,
    offset: i64,
}

impl Transaction for Note {
    type Outcome = ();

    fn keys(&self, _keys: &mut Vec<String>) {}

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        view.set(key(self.lane), Bytes::from(self.offset.to_string()));
        Ok(())
    }
}
