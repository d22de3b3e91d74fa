//! The admin port: `/healthz`, `/readyz`, `/metrics`, and what a service adds.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

/// Path of the route that tells the gateway whether this replica wants requests.
pub const INTERNAL_READY_PATH: &str = "/internal/ready";

/// The answer of `/readyz`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Readiness {
    /// 200 when true, 503 when false.
    pub ready: bool,
    /// What is (not) there, for people and for `stack`; e.g. `{"lanes": {"owned": 50, "loaded": 50, "halted": {}}}`.
    pub details: serde_json::Value,
}

/// The routes of the admin port; merge more routes into it.
pub fn router(readiness: Arc<dyn Fn() -> Readiness + Send + Sync>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async move || ready_answer(&readiness())))
        .route("/metrics", get(metrics_answer))
}

/// `GET /internal/ready` for a service's REST port: 200 when it wants requests, 503 while it starts or drains. Merge it
/// into the REST router.
pub fn internal_ready(ready: Arc<dyn Fn() -> bool + Send + Sync>) -> Router {
    let answer = async move || if ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Router::new().route(INTERNAL_READY_PATH, get(answer))
}

fn ready_answer(readiness: &Readiness) -> Response {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(readiness)).into_response()
}

async fn metrics_answer() -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::metrics::render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tower::ServiceExt;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("request");
        let response = router.clone().oneshot(request).await.expect("answer");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn readyz_follows_the_service() {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = ready.clone();
        let router = router(Arc::new(move || Readiness {
            ready: asked.load(Ordering::Relaxed),
            details: serde_json::json!({"redis": true}),
        }));
        assert_eq!(ask(&router, "/readyz").await, (503, r#"{"ready":false,"details":{"redis":true}}"#.to_owned()));
        ready.store(true, Ordering::Relaxed);
        assert_eq!(ask(&router, "/readyz").await.0, 200);
        assert_eq!(ask(&router, "/healthz").await, (200, "ok".to_owned()));
        assert_eq!(ask(&router, "/metrics").await.0, 200);
    }
}
