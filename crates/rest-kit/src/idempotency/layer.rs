//! The layer over POST routes: reads the header, answers what is recorded, bounds the records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method};
use redis_txn::{Queue, Store};
use service_kit::clock;
use service_kit::problem::Problem;
use telemetry::metrics::{IDEMPOTENCY_RECORDS, IDEMPOTENCY_REQUESTS};
use tokio_util::sync::CancellationToken;

use super::key::{Begun, RequestKey};
use super::record::{MAX_RECORDS, Recorded};
use super::sweep::sweep;
use super::transaction::{Outcome, of_record};
use crate::answer::is_final_status;

/// Largest body of a request with a key; the routes of this shop take none.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How often the records are swept. They live for a day, so this is soon enough.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// What a client that is shed may wait: by then a sweep has made room, if there is any to be made.
const RETRY_AFTER_S: u32 = 600;

/// How long the look at a record may take before the request goes on without it: its transaction looks again, and says
/// so if the store is away.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Marks the answer of an earlier request with the same key.
const REPLAYED: &str = "idempotent-replayed";

/// The idempotency keys of one service.
#[derive(Clone)]
pub struct IdempotencyKeys {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    queue: Queue,
    /// Records in the store: counted by the last sweep, and what this process has added since. Other replicas add too,
    /// so the limit may be passed by what they write between two sweeps.
    records: AtomicU64,
    /// [`MAX_RECORDS`], but for tests.
    limit: u64,
}

impl IdempotencyKeys {
    /// Keys with their records in this store; they are swept now and then until `shutdown` is cancelled.
    pub fn start(store: Store, shutdown: CancellationToken) -> Self {
        Self::with_limit(store, shutdown, MAX_RECORDS)
    }

    fn with_limit(store: Store, shutdown: CancellationToken, limit: u64) -> Self {
        let queue = store.rest_queue();
        let shared = Arc::new(Shared { store, queue, records: AtomicU64::new(0), limit });
        tokio::spawn(shared.clone().sweep_on(shutdown));
        Self { shared }
    }

    /// The layer, for `axum::middleware::from_fn_with_state`.
    pub async fn layer(State(keys): State<Self>, request: Request, next: Next) -> Response {
        if request.method() != Method::POST {
            return next.run(request).await;
        }
        let key = match RequestKey::of(request.headers()) {
            Ok(Some(key)) => key,
            Ok(None) => return next.run(request).await,
            Err(problem) => return count("invalid", problem.into_response()),
        };
        match keys.look_up(key, request).await {
            Ok((request, Found::Nothing)) => {
                let response = next.run(request).await;
                // What was shed has left none. A bad request has none either and counts until the next sweep.
                if matches!(response.status().as_u16(), 200..=428 | 430..=499) {
                    keys.shared.records.fetch_add(1, Ordering::Relaxed);
                }
                count("ran", response)
            }
            Ok((request, Found::Saga)) => {
                let response = next.run(request).await;
                // The end of the saga that the first request started. What is not decided yet is nobody's answer.
                let is_told_again = is_final_status(response.status().as_u16());
                count("joined", if is_told_again { replayed(response) } else { response })
            }
            Err(response) => response,
        }
    }

    /// The request with its key, to be run; or its answer.
    async fn look_up(&self, key: String, request: Request) -> Result<(Request, Found), Response> {
        let (mut parts, body) = request.into_parts();
        let body: Bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| {
            let detail = "the body of a request with an Idempotency-Key has at most 64 KiB";
            count("invalid", Problem::new(413, "body-too-large", detail).into_response())
        })?;
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let mut key = RequestKey::new(&parts.method, parts.uri.path(), &key, [query, &body], now_hour());
        // A record that is there answers even what could not be run now. The store being away is for the handler to say.
        let looking = self.shared.store.read(std::slice::from_ref(&key.record));
        let looked = tokio::time::timeout(LOOK_PATIENCE, looking).await.ok().and_then(Result::ok);
        if looked.is_some() {
            key.begun = Begun::Nothing;
        }
        let mut known = Found::Nothing;
        if let Some(bytes) = looked.into_iter().flatten().next().flatten() {
            match of_record(&bytes, &key) {
                Outcome::Recorded(Recorded::Answer(answer)) => {
                    return Err(count("replayed", replayed(answer.into_response())));
                }
                Outcome::Unusable(answer) => return Err(count("unusable", answer.into_response())),
                Outcome::Recorded(Recorded::Saga(saga)) => {
                    known = Found::Saga;
                    key.begun = Begun::Saga(saga);
                }
                Outcome::New => {}
            }
        } else if key.begun == Begun::Nothing && self.shared.records.load(Ordering::Relaxed) >= self.shared.limit {
            // Only where the look has shown that the first request with this key left nothing.
            let detail = "too many idempotency keys are recorded; nothing was changed, try again later";
            let problem = Problem::new(429, "too-many-idempotency-keys", detail).with_retry_after_s(RETRY_AFTER_S);
            return Err(count("shed", problem.into_response()));
        }
        parts.extensions.insert(key);
        Ok((Request::from_parts(parts, Body::from(body)), known))
    }
}

/// What is recorded of a request that is to be run.
enum Found {
    /// Nothing: it will leave a record, if it has an effect or is refused.
    Nothing,
    /// The saga that it started before.
    Saga,
}

impl Shared {
    async fn sweep_on(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let before = self.records.load(Ordering::Relaxed);
            match sweep(&self.store, &self.queue, now_hour()).await {
                Ok(kept) => {
                    // What was added meanwhile may or may not have been counted: rather twice than not at all.
                    let _ = self.records.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                        Some(kept + now.saturating_sub(before))
                    });
                    IDEMPOTENCY_RECORDS.set(kept as f64, &[]);
                }
                Err(error) => tracing::warn!(%error, "idempotency records could not be swept, it is tried again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            }
        }
    }
}

fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn count(fate: &'static str, response: Response) -> Response {
    IDEMPOTENCY_REQUESTS.add(1, &[("fate", fate)]);
    response
}

fn now_hour() -> u64 {
    clock::unix_ms() / 3_600_000
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use http::StatusCode;
    use saga_core::ids::SagaId;
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::*;
    use crate::idempotency::Record;
    use crate::testing;

    /// Notes the saga of the first request, as a checkout does, and answers what its path says.
    async fn checkout(store: Store, key: RequestKey, status: u16) -> StatusCode {
        if store.read(std::slice::from_ref(&key.record)).await.unwrap() == [None] {
            let record = Record::new(&key, Recorded::Saga(SagaId(Uuid::nil()))).encode();
            store.bulk_set([(key.record, record)].into_iter()).await.unwrap();
        }
        StatusCode::from_u16(status).unwrap()
    }

    #[tokio::test]
    async fn the_end_of_a_saga_that_is_told_again_is_marked() {
        let (_folder, _redis, store) = testing::store().await;
        let handler = {
            let store = store.clone();
            move |axum::extract::Path(status): axum::extract::Path<u16>,
                  axum::Extension(key): axum::Extension<RequestKey>| {
                checkout(store.clone(), key, status)
            }
        };
        let keys = IdempotencyKeys::start(store.clone(), CancellationToken::new());
        let layer = axum::middleware::from_fn_with_state(keys, IdempotencyKeys::layer);
        let router = Router::new().route("/checkout/{status}", post(handler)).layer(layer);
        let ask = async |status: u16| {
            let request = http::Request::post(format!("/checkout/{status}")).header("idempotency-key", "k");
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            response.headers().get(REPLAYED).map(|value| value.to_str().unwrap().to_owned())
        };
        for (status, again) in [(200, Some("true")), (402, Some("true")), (409, Some("true")), (504, None), (429, None)]
        {
            assert_eq!(ask(status).await, None, "{status}: the first answer is no replay");
            assert_eq!(ask(status).await.as_deref(), again, "{status}");
        }
        store.shutdown().await;
    }

    #[tokio::test]
    async fn too_many_keys_are_turned_away_and_known_ones_answered() {
        let (_folder, mut redis, store) = testing::store().await;
        let write = {
            let store = store.clone();
            move |axum::Extension(key): axum::Extension<RequestKey>| async move {
                let record = Record::new(&key, Recorded::Answer(crate::Answer::text("done"))).encode();
                store.bulk_set([(key.record, record)].into_iter()).await.unwrap();
                StatusCode::OK
            }
        };
        let keys = IdempotencyKeys::with_limit(store.clone(), CancellationToken::new(), 2);
        let layer = axum::middleware::from_fn_with_state(keys, IdempotencyKeys::layer);
        let router =
            Router::new().route("/write", post(write)).route("/run", post(async || StatusCode::OK)).layer(layer);
        let ask = async |path: &str, key: Option<&str>| {
            let request = http::Request::post(path);
            let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let retry_after = response.headers().get("retry-after").is_some();
            (response.status().as_u16(), retry_after)
        };
        for key in ["a", "b"] {
            assert_eq!(ask("/write", Some(key)).await, (200, false));
        }
        assert_eq!(ask("/write", Some("c")).await, (429, true));
        assert_eq!(ask("/write", Some("a")).await, (200, false), "what is recorded is answered");
        assert_eq!(ask("/run", None).await, (200, false), "without a key nothing is recorded");
        // Whether the first request with a key was run is not known now: nobody says that nothing was changed.
        redis.kill().unwrap();
        assert_eq!(ask("/run", Some("a")).await, (200, false), "the handler finds out, or says that it cannot");
        store.shutdown().await;
    }
}
