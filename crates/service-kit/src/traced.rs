//! Routes whose handlers run in the trace of their request.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use telemetry::context::RequestTrace;

/// Adds such routes.
pub trait TracedRoutes<S> {
    /// As `Router::route`; each handler runs in the trace of its request: with a span when the trace is recorded, and with
    /// its ids in every log line in any case.
    #[must_use]
    fn traced_route(self, path: &'static str, handlers: MethodRouter<S>) -> Self;
}

impl<S: Clone + Send + Sync + 'static> TracedRoutes<S> for Router<S> {
    fn traced_route(self, path: &'static str, handlers: MethodRouter<S>) -> Self {
        self.route(path, handlers.layer(from_fn(move |request: Request, next: Next| answer(path, request, next))))
    }
}

async fn answer(route: &'static str, request: Request, next: Next) -> Response {
    let trace = RequestTrace::begin(request.method().as_str(), route, request.uri().path(), request.headers());
    let response = trace.run(next.run(request)).await;
    trace.answered(response.status().as_u16());
    response
}
