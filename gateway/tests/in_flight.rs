//! What the gateway shows of the requests that are under way. A process has one set of metrics, so this is one test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use clap::Parser;
use gateway::Gateway;
use gateway::settings::Settings;
use http::{HeaderMap, Method};
use service_kit::client::{Outgoing, UpstreamClient};
use service_kit::http::{Limits, serve};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);

async fn shows(in_flight: u32) {
    let series = format!("saga_gateway_in_flight {in_flight}\n");
    let deadline = Instant::now() + WAIT;
    while !telemetry::metrics::render().contains(&series) {
        assert!(Instant::now() < deadline, "never {series}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_is_seen_while_it_hangs_and_not_afterwards() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let upstream = listener.local_addr().expect("address").to_string();
    let go = Arc::new(Notify::new());
    let held = go.clone();
    let find = get(async move || {
        held.notified().await;
        "{}"
    });
    let ready = service_kit::admin::internal_ready(Arc::new(|| true));
    let router = Router::new().route("/orders/find/{order_id}", find).merge(ready);
    let limits = Limits { max_streams: 10, ..Limits::default() };
    tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
    let flags = ["gateway", "--order-upstreams", &upstream, "--stock-upstreams", &upstream];
    let settings = Settings::try_parse_from(flags.iter().chain(&["--payment-upstreams", &upstream])).expect("settings");
    let gateway = Gateway::start(settings, CancellationToken::new()).await.expect("gateway");

    shows(0).await;
    let address = gateway.address;
    let asking = tokio::spawn(async move {
        let path = "/orders/find/7".parse().expect("path");
        let outgoing = Outgoing { method: Method::GET, path, headers: HeaderMap::new(), body: Bytes::new() };
        UpstreamClient::new().request_whole(address, &outgoing, WAIT).await.expect("an answer")
    });
    shows(1).await;
    go.notify_one();
    assert_eq!(asking.await.expect("joined").0, 200);
    shows(0).await;
}
