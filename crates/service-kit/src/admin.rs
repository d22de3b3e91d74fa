//! The admin port: `/healthz`, `/readyz`, `/metrics`, and what a service adds.

use std::sync::Arc;

use axum::Router;

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
    let _ = readiness;
    Router::new()
}
