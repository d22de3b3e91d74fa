//! What happens in the gateway: one call for the log line and the metric.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use telemetry::logs::Throttle;
use telemetry::metrics::{
    GATEWAY_GIVEN_UP, GATEWAY_IN_FLIGHT, GATEWAY_REPEATS, GATEWAY_REQUESTS, GATEWAY_SECONDS, GATEWAY_SHED,
};

use crate::contract::Route;
use crate::decide::Attempt;
use crate::proxy::Proxy;

/// Requests without an answer are said this often.
static GIVEN_UP: Throttle = Throttle::new(Duration::from_secs(1));

/// Shows from now on how many requests are under way.
pub(crate) fn show(proxy: &Arc<Proxy>, in_flight: fn(&Proxy) -> usize) {
    GATEWAY_IN_FLIGHT.read(&[], proxy, move |proxy| in_flight(proxy) as f64);
}

/// A request of the contract has its answer.
pub(crate) fn answered(route: &Route, status: StatusCode, since: Instant) {
    GATEWAY_REQUESTS.add(1, &[("route", route.pattern), ("status", status.as_str())]);
    GATEWAY_SECONDS.record(since.elapsed().as_secs_f64(), &[("route", route.pattern)]);
}

/// A request was refused at the limit, before anything was sent.
pub(crate) fn shed(route: &Route) {
    GATEWAY_SHED.add(1, &[]);
    tracing::debug!(route = route.pattern, "request shed");
}

/// An attempt failed and the request is sent again.
pub(crate) fn repeated(upstream: &'static str, replica: SocketAddr, attempt: Attempt) {
    GATEWAY_REPEATS.add(1, &[("upstream", upstream)]);
    tracing::debug!(upstream, %replica, ?attempt, "request sent again");
}

/// A request ended without an answer of the service.
pub(crate) fn given_up(route: &Route, upstream: &'static str, kind: &'static str) {
    GATEWAY_GIVEN_UP.add(1, &[("upstream", upstream), ("kind", kind)]);
    // A service that is away fails every request: said for one of them, counted for all.
    if let Some(held_back) = GIVEN_UP.admit() {
        tracing::warn!(route = route.pattern, upstream, kind, held_back, "no answer from the service");
    }
}
