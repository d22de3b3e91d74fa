//! The admin port's own routes: `GET /sagas/{id}` and `GET /lanes`, read-only and from memory, what `/readyz` says, and
//! `/fold-version` (see [`crate::fold_version`]), `/lanes/{lane}/pass-over/{offset}` (see `pass_over.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use event_stream::{Consumer, Publisher};
use redis_txn::Store;
use saga_core::ids::SagaId;
use serde::Serialize;
use service_kit::admin::Readiness;
use service_kit::clock::unix_ms;
use service_kit::problem::Problem;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::view::{Question, Registry, SagaView};
use crate::{fold_version, pass_over};

/// How long a lane loop may take to answer; it answers between two batches.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// What the admin port looks at.
pub struct Admin {
    /// This replica's name.
    pub instance: String,
    /// Lanes of all replicas together.
    pub partitions: u32,
    /// The highest version of the fold that this program knows.
    pub supported_fold_version: u32,
    /// The lanes and how far they are.
    pub consumer: Consumer,
    /// What the loops let others see.
    pub registry: Registry,
    /// The store of the checkpoints.
    pub store: Store,
    /// The producer.
    pub publisher: Publisher,
    /// Cancelled once the process drains.
    pub shutdown: CancellationToken,
}

/// The routes that this service adds.
pub fn router(admin: Arc<Admin>) -> Router {
    let own = Router::new().route("/sagas/{id}", get(saga)).route("/lanes", get(lanes));
    own.merge(fold_version::router()).merge(pass_over::router()).with_state(admin)
}

impl Admin {
    /// Ready when Redis answers, the producer is connected, the group has assigned lanes and all of them are loaded.
    /// A halted lane is named and does not make the process unready.
    pub fn readiness(&self) -> Readiness {
        let lanes = self.consumer.lanes();
        let loaded = lanes.values().filter(|lane| lane.loaded).count();
        let halted: BTreeMap<String, String> = lanes
            .iter()
            .filter_map(|(lane, status)| status.halted.as_ref().map(|reason| (lane.to_string(), reason.to_string())))
            .collect();
        let (redis, kafka) = (self.store.is_healthy(), self.publisher.is_connected());
        let all_loaded = loaded + halted.len() >= lanes.len();
        let draining = self.shutdown.is_cancelled();
        Readiness {
            ready: redis && kafka && self.consumer.has_joined() && all_loaded && !draining,
            details: serde_json::json!({
                "redis": redis,
                "kafka": kafka,
                "joined": self.consumer.has_joined(),
                "draining": draining,
                "lanes": { "owned": lanes.len(), "loaded": loaded, "halted": halted },
            }),
        }
    }
}

#[derive(Serialize)]
struct LaneView {
    lane: u32,
    owner: String,
    /// `loading`, `live` or `halted`.
    state: &'static str,
    position: i64,
    log_end: i64,
    lag: i64,
    checkpoint_age_ms: Option<u64>,
    open_sagas: u64,
    parked_starts: u64,
    unacknowledged: u64,
    /// Log time of the oldest open saga's start.
    oldest_started_ms: Option<i64>,
    halted: Option<String>,
}

async fn lanes(State(admin): State<Arc<Admin>>) -> Json<Vec<LaneView>> {
    let running = admin.registry.lanes();
    let now = unix_ms();
    let view = |(lane, status): (&event_stream::Lane, &event_stream::LaneStatus)| {
        let numbers = running.get(lane).map(|entry| entry.numbers.as_ref());
        let live = numbers.is_some_and(|numbers| numbers.live.load(Ordering::Relaxed));
        let count = |number: fn(&crate::view::Numbers) -> u64| numbers.map_or(0, number);
        LaneView {
            lane: lane.0,
            owner: admin.instance.clone(),
            state: if status.halted.is_some() {
                "halted"
            } else if live {
                "live"
            } else {
                "loading"
            },
            position: status.position,
            log_end: status.log_end,
            lag: (status.log_end - status.position).max(0),
            checkpoint_age_ms: numbers.map(|numbers| now.saturating_sub(numbers.checkpoint_ms.load(Ordering::Relaxed))),
            open_sagas: count(|numbers| numbers.open.load(Ordering::Relaxed)),
            parked_starts: count(|numbers| numbers.parked.load(Ordering::Relaxed)),
            unacknowledged: count(|numbers| numbers.unacknowledged.load(Ordering::Relaxed)),
            oldest_started_ms: numbers
                .map(|numbers| numbers.oldest_ms.load(Ordering::Relaxed))
                .filter(|oldest| *oldest > 0),
            halted: status.halted.as_ref().map(ToString::to_string),
        }
    };
    Json(admin.consumer.lanes().iter().map(view).collect())
}

async fn saga(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let Ok(id) = Uuid::parse_str(&id) else {
        return Problem::new(404, "saga-not-found", "a saga id is a UUID").into_response();
    };
    match find(&admin.registry, SagaId(id)).await {
        Found::Open(view) => Json(view).into_response(),
        Found::Nowhere => {
            let detail = "not open in the lanes of this replica: it has ended, or another replica has it";
            Problem::new(404, "saga-not-found", detail).into_response()
        }
        Found::Unknown => {
            let detail = "a lane did not answer in time, the saga may be there";
            Problem::new(503, "lane-busy", detail).into_response()
        }
    }
}

enum Found {
    Open(Box<SagaView>),
    Nowhere,
    Unknown,
}

/// The id does not say the lane, so all lanes of this process are asked.
async fn find(registry: &Registry, saga: SagaId) -> Found {
    let mut answers = Vec::new();
    let mut silent = false;
    for entry in registry.lanes().into_values() {
        let (answer, answered) = oneshot::channel();
        match entry.questions.try_send(Question { saga, answer }) {
            Ok(()) => answers.push(answered),
            Err(_) => silent = true,
        }
    }
    let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
    for answered in answers {
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(Some(view))) => return Found::Open(Box::new(view)),
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => silent = true,
        }
    }
    if silent { Found::Unknown } else { Found::Nowhere }
}
