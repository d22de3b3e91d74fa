//! The gateway over real HTTP, with small services in its back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use clap::Parser;
use gateway::Gateway;
use gateway::settings::Settings;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use service_kit::client::{Outgoing, UpstreamClient};
use service_kit::http::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);

/// A service that answers what the test tells it to.
struct Backend {
    address: SocketAddr,
    state: Arc<BackendState>,
    stop: CancellationToken,
}

struct BackendState {
    name: &'static str,
    ready: AtomicBool,
    status: AtomicU32,
    asked: AtomicU32,
    /// Checkouts wait for a permit.
    gate: Semaphore,
    last_headers: Mutex<HeaderMap>,
}

impl Backend {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        Self::start_on(name, listener)
    }

    fn start_on(name: &'static str, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("address");
        let state = Arc::new(BackendState {
            name,
            ready: AtomicBool::new(true),
            status: AtomicU32::new(200),
            asked: AtomicU32::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            last_headers: Mutex::default(),
        });
        let probed = state.clone();
        let router = Router::new()
            .route("/orders/find/{order_id}", get(answer))
            .route("/orders/checkout/{order_id}", post(checkout))
            .route("/orders/create/{user_id}", post(answer))
            .route("/stock/add/{item_id}/{amount}", post(answer))
            .route("/payment/create_user", post(echo))
            .with_state(state.clone())
            .merge(service_kit::admin::internal_ready(Arc::new(move || probed.ready.load(Ordering::Relaxed))));
        let stop = CancellationToken::new();
        let limits = Limits { max_streams: 1_000, drain_deadline: Duration::ZERO, ..Limits::default() };
        tokio::spawn(serve(listener, router, limits, stop.clone()));
        Self { address, state, stop }
    }

    fn asked(&self) -> u32 {
        self.state.asked.load(Ordering::Relaxed)
    }

    fn answer_with(&self, status: u32) {
        self.state.status.store(status, Ordering::Relaxed);
    }

    async fn kill(&self) {
        self.stop.cancel();
        eventually("port closed", async || TcpStream::connect(self.address).await.is_err()).await;
    }
}

async fn answer(State(state): State<Arc<BackendState>>, headers: HeaderMap) -> Response {
    state.asked.fetch_add(1, Ordering::Relaxed);
    *state.last_headers.lock().expect("lock") = headers;
    let status = u16::try_from(state.status.load(Ordering::Relaxed)).expect("status");
    let extra = [("x-replica", state.name), ("set-cookie", "no"), ("location", "/orders/find/7")];
    (StatusCode::from_u16(status).expect("status"), extra, state.name).into_response()
}

async fn checkout(state: State<Arc<BackendState>>, Path(_order): Path<String>, headers: HeaderMap) -> Response {
    state.asked.fetch_add(1, Ordering::Relaxed);
    state.gate.acquire().await.expect("open").forget();
    state.asked.fetch_sub(1, Ordering::Relaxed);
    answer(state, headers).await
}

async fn echo(headers: HeaderMap, body: Body) -> Response {
    let kind = headers.get("content-type").cloned();
    let mut response = body.into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

/// A gateway before these services; every service is served by the same ones.
struct Shop {
    gateway: Gateway,
    client: UpstreamClient,
    shutdown: CancellationToken,
}

impl Shop {
    async fn start(upstreams: &[SocketAddr], flags: &[&str]) -> Self {
        let list = upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let base = ["gateway", "--order-upstreams", &list, "--stock-upstreams", &list, "--payment-upstreams", &list];
        let settings = Settings::try_parse_from(base.iter().chain(flags)).expect("settings");
        let shutdown = CancellationToken::new();
        let gateway = Gateway::start(settings, shutdown.clone()).await.expect("gateway");
        Self { gateway, client: UpstreamClient::new(), shutdown }
    }

    async fn ask(&self, method: Method, path: &str) -> (u16, HeaderMap, String) {
        self.send(method, path, HeaderMap::new(), Bytes::new()).await
    }

    async fn send(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> (u16, HeaderMap, String) {
        let outgoing = Outgoing { method, path: path.parse().expect("path"), headers, body };
        let answer = self.client.request(self.gateway.address, &outgoing, WAIT).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn readiness(&self) -> (u16, serde_json::Value) {
        let ask = Outgoing::get("/readyz").expect("path");
        let (status, body) = self.client.request_whole(self.gateway.admin_address, &ask, WAIT).await.expect("answer");
        (status.as_u16(), serde_json::from_slice(&body).expect("json"))
    }

    async fn is_ready(&self) {
        eventually("gateway ready", async || self.readiness().await.0 == 200).await;
    }
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn kind(body: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    problem["type"].as_str().expect("type").to_owned()
}

/// An address at which nobody listens.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address")
}

#[tokio::test]
async fn passes_answers_bodies_and_useful_headers() {
    let backend = Backend::start("a").await;
    let shop = Shop::start(&[backend.address], &[]).await;
    let mut headers = HeaderMap::new();
    for (name, value) in [("idempotency-key", "k"), ("cookie", "c"), ("x-request-id", "7")] {
        headers.insert(name, value.parse().expect("value"));
    }
    let (status, got, body) = shop.send(Method::GET, "/orders/find/7?a=b", headers, Bytes::new()).await;
    assert_eq!((status, body.as_str()), (200, "a"));
    assert_eq!(
        (&got["x-replica"], &got["location"], got.get("set-cookie")),
        (&"a".parse().unwrap(), &"/orders/find/7".parse().unwrap(), None)
    );
    let seen = backend.state.last_headers.lock().expect("lock").clone();
    assert!(seen.contains_key("idempotency-key") && seen.contains_key("x-request-id") && !seen.contains_key("cookie"));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().expect("value"));
    let body = Bytes::from_static(b"{\"a\":1}");
    let (status, got, echoed) = shop.send(Method::POST, "/payment/create_user", headers, body).await;
    assert_eq!(
        (status, echoed.as_str(), &got["content-type"]),
        (200, "{\"a\":1}", &"application/json".parse().unwrap())
    );
}

#[tokio::test]
async fn what_is_no_route_never_reaches_a_service() {
    let backend = Backend::start("a").await;
    let shop = Shop::start(&[backend.address], &[]).await;
    for path in ["/", "/internal/ready", "/orders", "/orders/find/", "/stock/item/create"] {
        let (status, headers, body) = shop.ask(Method::GET, path).await;
        assert_eq!((status, kind(&body).as_str()), (404, "/problems/no-such-route"), "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
    }
    let (status, headers, body) = shop.ask(Method::GET, "/orders/checkout/7").await;
    assert_eq!(
        (status, kind(&body).as_str(), &headers["allow"]),
        (405, "/problems/wrong-verb", &"POST".parse().unwrap())
    );
    assert_eq!(backend.asked(), 0);
}

#[tokio::test]
async fn a_refused_connection_moves_any_request_on() {
    let (alive, dead) = (Backend::start("alive").await, closed_port().await);
    let shop = Shop::start(&[dead, alive.address], &[]).await;
    for key in 0..20 {
        assert_eq!(shop.ask(Method::POST, &format!("/stock/add/{key}/1")).await.0, 200, "{key}");
        assert_eq!(shop.ask(Method::POST, &format!("/orders/create/{key}")).await.0, 200, "{key}");
        assert_eq!(shop.ask(Method::POST, &format!("/orders/checkout/{key}")).await.0, 200, "{key}");
    }
    assert_eq!(alive.asked(), 60, "each exactly once");
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_repeated_and_a_read_is() {
    // Closes every connection after it has read the request: nobody knows what it did.
    let breaking = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let breaking_address = breaking.local_addr().expect("address");
    let taken = Arc::new(AtomicU32::new(0));
    let count = taken.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = breaking.accept().await.expect("accept");
            let mut head = [0; 2_048];
            let size = stream.read(&mut head).await.unwrap_or(0);
            if head[..size].starts_with(b"POST /stock/add") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let alive = Backend::start("alive").await;
    let flags = ["--request-timeout-ms", "10000", "--upstream-http", "1.1"];
    let shop = Shop::start(&[breaking_address, alive.address], &flags).await;
    let mut unknown = 0;
    for key in 0..20 {
        let (status, _, body) = shop.ask(Method::POST, &format!("/stock/add/{key}/1")).await;
        match status {
            200 => {}
            503 => {
                assert_eq!(kind(&body), "/problems/outcome-unknown");
                unknown += 1;
            }
            other => panic!("{other}: {body}"),
        }
        assert_eq!(shop.ask(Method::GET, &format!("/orders/find/{key}")).await.0, 200);
        assert_eq!(shop.ask(Method::POST, &format!("/orders/checkout/{key}")).await.0, 200);
    }
    // The replica that breaks is never ready, but before the first probe both are unready and either may be asked.
    assert_eq!(taken.load(Ordering::Relaxed), unknown, "each POST that it took was sent once");
}

#[tokio::test]
async fn a_post_to_the_only_replica_that_breaks_is_sent_once() {
    let breaking = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = breaking.local_addr().expect("address");
    let posts = Arc::new(AtomicU32::new(0));
    let count = posts.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = breaking.accept().await.expect("accept");
            let mut head = [0; 2_048];
            let size = stream.read(&mut head).await.unwrap_or(0);
            count.fetch_add(u32::from(head[..size].starts_with(b"POST")), Ordering::Relaxed);
        }
    });
    let shop = Shop::start(&[address, address], &["--upstream-http", "1.1"]).await;
    let (status, _, body) = shop.ask(Method::POST, "/stock/add/7/1").await;
    assert_eq!((status, kind(&body).as_str()), (503, "/problems/outcome-unknown"));
    assert_eq!(posts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_draining_replica_is_left_out_and_then_asked_again() {
    let (first, second) = (Backend::start("first").await, Backend::start("second").await);
    let shop = Shop::start(&[first.address, second.address], &[]).await;
    shop.is_ready().await;
    let replicas = async |ready: u64| {
        eventually("replicas counted", async || {
            shop.readiness().await.1["details"]["upstreams"]["order-svc"]["ready"] == ready
        })
        .await;
        let before = first.asked();
        for key in 0..40 {
            assert_eq!(shop.ask(Method::GET, &format!("/orders/find/{key}")).await.0, 200);
        }
        first.asked() - before
    };
    let of_both = replicas(2).await;
    assert!((5..35).contains(&of_both), "spread over both: {of_both}");
    first.state.ready.store(false, Ordering::Relaxed);
    assert_eq!(replicas(1).await, 0, "left out");
    first.state.ready.store(true, Ordering::Relaxed);
    assert_eq!(replicas(2).await, of_both, "the same keys came back");
}

#[tokio::test]
async fn a_key_stays_with_its_replica() {
    let (first, second) = (Backend::start("first").await, Backend::start("second").await);
    let shop = Shop::start(&[first.address, second.address], &[]).await;
    shop.is_ready().await;
    eventually("both ready", async || shop.readiness().await.1["details"]["upstreams"]["order-svc"]["ready"] == 2)
        .await;
    for key in 0..20 {
        let path = format!("/orders/checkout/{key}");
        let replica = shop.ask(Method::POST, &path).await.2;
        for _ in 0..3 {
            assert_eq!(shop.ask(Method::POST, &path).await.2, replica);
        }
        assert_eq!(shop.ask(Method::GET, &format!("/orders/find/{key}")).await.2, replica);
    }
}

/// What is asserted is the least time that turns take; a slow machine takes more.
#[tokio::test]
async fn a_crowd_that_is_refused_waits_for_its_turns() {
    const CROWD: u32 = 500;
    service_kit::process::raise_file_limit();
    let backend = Backend::start("a").await;
    backend.state.gate.forget_permits(Semaphore::MAX_PERMITS);
    let shop = Arc::new(Shop::start(&[backend.address], &["--max-requests", &CROWD.to_string()]).await);
    let checkouts = |keys: std::ops::Range<u32>| {
        let ask = async |shop: Arc<Shop>, key| shop.ask(Method::POST, &format!("/orders/checkout/{key}")).await.0;
        keys.map(|key| ask(shop.clone(), key)).collect::<tokio::task::JoinSet<_>>()
    };
    let _held = checkouts(0..CROWD);
    eventually("every place taken", async || backend.asked() == CROWD).await;
    let since = Instant::now();
    let crowd = checkouts(CROWD..2 * CROWD);
    assert!(crowd.join_all().await.into_iter().all(|status| status == 429));
    let took = since.elapsed();
    assert!(took >= Duration::from_millis((CROWD - 1).into()), "turns are a millisecond apart: {took:?}");
}

#[tokio::test]
async fn a_full_gateway_sheds_with_429_before_anything_is_sent() {
    let backend = Backend::start("a").await;
    backend.state.gate.forget_permits(Semaphore::MAX_PERMITS);
    let shop = Arc::new(Shop::start(&[backend.address], &["--max-requests", "2"]).await);
    let waiting: Vec<_> = (0..2)
        .map(|key| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.ask(Method::POST, &format!("/orders/checkout/{key}")).await.0 })
        })
        .collect();
    eventually("two under way", async || backend.asked() == 2).await;
    let (status, headers, body) = shop.ask(Method::POST, "/orders/checkout/9").await;
    assert_eq!(
        (status, kind(&body).as_str(), &headers["retry-after"]),
        (429, "/problems/overloaded", &"1".parse().unwrap())
    );
    assert_eq!(backend.asked(), 2, "nothing was sent");
    backend.state.gate.add_permits(10);
    for request in waiting {
        assert_eq!(request.await.expect("joined"), 200);
    }
    assert_eq!(shop.ask(Method::POST, "/orders/checkout/9").await.0, 200, "the places are free again");
}

#[tokio::test]
async fn at_the_deadline_a_checkout_is_undecided_and_the_rest_unavailable() {
    let dead = closed_port().await;
    let shop = Shop::start(&[dead], &["--request-timeout-ms", "300"]).await;
    let (status, headers, body) = shop.ask(Method::POST, "/orders/checkout/7").await;
    assert_eq!(
        (status, kind(&body).as_str(), &headers["location"]),
        (504, "/problems/undecided", &"/orders/find/7".parse().unwrap())
    );
    let patient = Shop::start(&[dead], &[]).await;
    let since = Instant::now();
    let (status, headers, body) = patient.ask(Method::POST, "/orders/create/7").await;
    let got = (status, kind(&body), &headers["retry-after"]);
    assert_eq!(got, (503, "/problems/unavailable".to_owned(), &"1".parse().unwrap()));
    assert!(since.elapsed() < WAIT / 2, "a POST does not wait for a replica");
    assert_eq!(shop.ask(Method::GET, "/orders/find/7").await.0, 503);
    let (status, body) = shop.readiness().await;
    assert_eq!((status, &body["ready"]), (503, &serde_json::Value::Bool(false)));
}

#[tokio::test]
async fn a_silent_replica_ends_in_504_at_the_deadline() {
    let backend = Backend::start("a").await;
    backend.state.gate.forget_permits(Semaphore::MAX_PERMITS);
    let shop = Shop::start(&[backend.address], &["--request-timeout-ms", "300"]).await;
    let (status, headers, _) = shop.ask(Method::POST, "/orders/checkout/7").await;
    assert_eq!((status, &headers["location"]), (504, &"/orders/find/7".parse().unwrap()));
}

#[tokio::test]
async fn a_checkout_waits_for_a_replica_to_come_back_and_moves_from_one_that_fails() {
    let dead = Backend::start("old").await;
    dead.kill().await;
    let shop = Arc::new(Shop::start(&[dead.address], &[]).await);
    let waiting = tokio::spawn({
        let shop = shop.clone();
        async move { shop.ask(Method::POST, "/orders/checkout/7").await }
    });
    eventually("repeated", async || telemetry::metrics::render().contains("saga_gateway_repeats_total")).await;
    let born = Backend::start_on("new", TcpListener::bind(dead.address).await.expect("bind again"));
    assert_eq!(waiting.await.expect("joined").2, "new");
    // A replica that answers 503 is not the last word on a checkout.
    born.answer_with(503);
    let healing = tokio::spawn({
        let shop = shop.clone();
        async move { shop.ask(Method::POST, "/orders/checkout/8").await.0 }
    });
    let before = born.asked();
    eventually("asked again", async || born.asked() > before + 1).await;
    // Nor is its 429: an earlier attempt may have begun, and "nothing was changed" would not be true.
    born.answer_with(429);
    let before = born.asked();
    eventually("asked again", async || born.asked() > before + 1).await;
    born.answer_with(402);
    assert_eq!(healing.await.expect("joined"), 402);
}

#[tokio::test]
async fn a_checkout_leaves_a_replica_that_stopped() {
    // Takes connections and never answers, neither probe nor request: like a process under SIGSTOP.
    let stopped = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let alive = Backend::start("alive").await;
    let shop = Shop::start(&[stopped.local_addr().expect("address"), alive.address], &[]).await;
    for key in 0..8 {
        assert_eq!(shop.ask(Method::POST, &format!("/orders/checkout/{key}")).await.2, "alive");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let backend = Backend::start("a").await;
    let shop = Shop::start(&[backend.address], &["--max-body-bytes", "10"]).await;
    let body = Bytes::from_static(b"12345678901");
    let (status, _, body) = shop.send(Method::POST, "/orders/create/1", HeaderMap::new(), body).await;
    assert_eq!((status, kind(&body).as_str()), (413, "/problems/body-too-large"));
    assert_eq!(backend.asked(), 0);
}

#[tokio::test]
async fn nonsense_in_a_path_is_passed_or_refused_but_never_breaks_the_gateway() {
    let backend = Backend::start("a").await;
    let shop = Shop::start(&[backend.address], &[]).await;
    for path in ["/orders/find/%00", "/orders/find/%2e%2e%2f", "/orders/find/a%20b", "/orders/find/💥"] {
        let mut stream = TcpStream::connect(shop.gateway.address).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("read");
        assert!(text.starts_with("HTTP/1.1 "), "{path}: {text}");
    }
    assert_eq!(shop.ask(Method::GET, "/orders/find/1").await.0, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let backend = Backend::start("a").await;
    backend.state.gate.forget_permits(Semaphore::MAX_PERMITS);
    let shop = Arc::new(Shop::start(&[backend.address], &[]).await);
    shop.is_ready().await;
    let waiting = tokio::spawn({
        let shop = shop.clone();
        async move { shop.ask(Method::POST, "/orders/checkout/7").await.0 }
    });
    eventually("under way", async || backend.asked() == 1).await;
    shop.shutdown.cancel();
    assert_eq!(shop.readiness().await.0, 503);
    backend.state.gate.add_permits(1);
    assert_eq!(waiting.await.expect("joined"), 200);
    eventually("port closed", async || TcpStream::connect(shop.gateway.address).await.is_err()).await;
}

/// A stranger who marks every request as sampled would have everything recorded.
#[tokio::test]
async fn a_clients_trace_goes_on_or_is_ignored_as_the_setting_says() {
    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (flags, passed) in [(&[][..], Some(SAMPLED)), (&["--incoming-traces", "ignore"][..], None)] {
        let backend = Backend::start("a").await;
        let shop = Shop::start(&[backend.address], flags).await;
        let headers = [("traceparent", SAMPLED), ("tracestate", "a=1")];
        let headers = headers.map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")));
        let (status, ..) = shop.send(Method::GET, "/orders/find/7", headers.into_iter().collect(), Bytes::new()).await;
        assert_eq!(status, 200);
        let seen = backend.state.last_headers.lock().expect("lock").clone();
        assert_eq!(seen.get("traceparent").map(|value| value.to_str().expect("text")), passed, "{flags:?}");
        assert_eq!(seen.contains_key("tracestate"), passed.is_some());
    }
}
