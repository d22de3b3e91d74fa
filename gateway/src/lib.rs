//! The only public port: passes the shop's requests on to the replicas of its services and holds no state.
//!
//! Deliberately not in it: what an order, an item or a user is.

pub mod contract;
pub mod decide;
mod events;
pub mod openapi;
mod pace;
mod proxy;
mod reference;
pub mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use service_kit::admin::{self, Readiness};
use service_kit::http::{Limits, listen, serve};
use service_kit::process::delayed;
use service_kit::upstream::Upstreams;
use tokio_util::sync::CancellationToken;

use proxy::Proxy;
use settings::Settings;

/// How long the port stays open after SIGTERM with `/readyz` already saying no: a load balancer needs a moment to see it.
const UNREADY_PAUSE: Duration = Duration::from_millis(500);

/// Kept of the drain deadline for what comes after the open requests.
const DRAIN_RESERVE: Duration = Duration::from_secs(1);

/// Runs the gateway until `shutdown` and the drain after it.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    Gateway::start(settings, shutdown).await?.ended().await
}

/// A running gateway, with the addresses it got.
pub struct Gateway {
    /// The public port.
    pub address: SocketAddr,
    /// The admin port.
    pub admin_address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// Binds both ports and begins to serve.
    pub async fn start(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        settings.check()?;
        let upstreams = [
            Upstreams::new("order-svc", &settings.order_upstreams)?,
            Upstreams::new("stock-svc", &settings.stock_upstreams)?,
            Upstreams::new("payment-svc", &settings.payment_upstreams)?,
        ];
        let public = listen("LISTEN", settings.process.listen)?;
        let admin = listen("ADMIN_LISTEN", settings.process.admin_listen)?;
        let (address, admin_address) = (public.local_addr()?, admin.local_addr()?);
        // What belongs to open requests (probes, admin port) ends after them.
        let after_drain = CancellationToken::new();
        for upstream in &upstreams {
            upstream.spawn_probe(after_drain.clone());
        }
        let admin_router = admin::router(readiness(upstreams.clone(), shutdown.clone()));
        tokio::spawn(serve(admin, admin_router, Limits::default(), after_drain.clone()));
        let limits = Limits {
            port: "rest",
            header_timeout: Duration::from_millis(settings.header_timeout_ms),
            max_connections: settings.max_connections,
            // An HTTP/2 connection may be silent for ever, which is not for strangers.
            max_streams: 0,
            drain_deadline: settings.process.drain_deadline().saturating_sub(DRAIN_RESERVE),
        };
        let router = Proxy::new(&settings, upstreams).router();
        let closing = delayed(&shutdown, UNREADY_PAUSE);
        let serving = tokio::spawn(async move {
            serve(public, router, limits, closing).await;
            after_drain.cancel();
        });
        tracing::info!(%address, %admin_address, "listening");
        Ok(Self { address, admin_address, serving })
    }

    /// Waits until the drain has ended.
    pub async fn ended(self) -> anyhow::Result<()> {
        self.serving.await.context("serve the public port")
    }
}

fn readiness(upstreams: [Arc<Upstreams>; 3], shutdown: CancellationToken) -> Arc<dyn Fn() -> Readiness + Send + Sync> {
    Arc::new(move || {
        let details = upstreams.iter().map(|upstream| {
            let (known, ready) = upstream.counts();
            (upstream.name().to_owned(), serde_json::json!({"known": known, "ready": ready}))
        });
        Readiness {
            ready: !shutdown.is_cancelled() && upstreams.iter().all(|upstream| upstream.is_available()),
            details: serde_json::json!({"upstreams": details.collect::<serde_json::Map<_, _>>()}),
        }
    })
}
