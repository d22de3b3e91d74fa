//! Serves HTTP/1, and HTTP/2 where it is wanted, with limits and a drain.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use telemetry::logs::Throttle;
use telemetry::metrics::HTTP_CONNECTIONS;
use telemetry::stages::{Stage, in_stage};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::client::Spawn;
use crate::problem::Problem;
use crate::process::BadConfiguration;

/// Connections that the kernel keeps until they are accepted; it allows no more than `net.core.somaxconn`, by default as many.
/// One that finds no room is not refused: its client believes that it is connected, and is cut off seconds or minutes later.
const BACKLOG: u32 = 4096;

/// Pause after an `accept` that failed for want of something (file handles): trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest list of headers on an HTTP/2 connection: more than the gateway takes from anybody on HTTP/1, as what is longer
/// ends the connection for all whose requests it carries.
const MAX_HEADER_LIST_BYTES: u32 = 1 << 20;

/// An HTTP/2 client may stand still for so long after it was asked for a sign of life.
const SIGN_OF_LIFE_TIMEOUT: Duration = Duration::from_secs(30);

/// So many requests a client may send before it has read how many it may send at once.
const STREAMS_BEFORE_SETTINGS: u32 = 100;

/// Pause before looking for more of a client's first letters.
const PREFACE_PAUSE: Duration = Duration::from_millis(2);

/// Out of file handles, every attempt fails.
static NOT_ACCEPTED: Throttle = Throttle::new(Duration::from_secs(10));

/// Limits of one listening port.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What the port is called in metrics.
    pub port: &'static str,
    /// Time for a request's head to arrive; also how long a kept-alive connection may be silent.
    pub header_timeout: Duration,
    /// Most connections at once; more wait in the backlog.
    pub max_connections: usize,
    /// Most requests at once on a connection that begins with HTTP/2; with 0 the port speaks HTTP/1 only. For ports that
    /// our own processes use: an HTTP/2 connection may be silent for as long as it answers pings.
    pub max_streams: u32,
    /// How long open requests may go on after `shutdown` is cancelled.
    pub drain_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            port: "admin",
            header_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_streams: 0,
            drain_deadline: Duration::from_secs(30),
        }
    }
}

/// Opens a port, within a runtime of tokio; `setting` is what an error calls it by.
pub fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, BadConfiguration> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: std::io::Error| BadConfiguration(format!("cannot listen on {address} ({setting}): {error}")))
}

/// Serves until `shutdown` is cancelled, then finishes open requests (`Connection: close`) until the drain deadline.
///
/// A handler that panics is answered 500 and counted; its connection and its neighbours go on.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    // A task of its own: accepting must not depend on what the caller's task does besides.
    let accepting = tokio::spawn(accept(listener, router, limits, shutdown));
    if let Err(error) = accepting.await {
        tracing::error!(%error, "accept loop ended");
    }
}

async fn accept(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let max_connections = limits.max_connections.clamp(1, Semaphore::MAX_PERMITS);
    let max_connections = u32::try_from(max_connections).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(max_connections as usize));
    let abort = CancellationToken::new();
    // Not the places that are taken: the loop itself holds one for the next connection.
    let open = Arc::new(AtomicUsize::new(0));
    HTTP_CONNECTIONS.read(&[("port", limits.port)], &open, |open| open.load(Ordering::Relaxed) as f64);
    loop {
        let place = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("nobody closes the semaphore"),
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // A child of its own: all connections on one token would share its lock at every poll.
                let (router, shutdown, abort) = (router.clone(), shutdown.child_token(), abort.clone());
                let connection = serve_connection(stream, router, limits.clone(), shutdown, abort);
                open.fetch_add(1, Ordering::Relaxed);
                let open = open.clone();
                tokio::spawn(async move {
                    in_stage(Stage::Http, std::pin::pin!(connection)).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                    drop(place);
                });
            }
            Err(error) => {
                if let Some(held_back) = NOT_ACCEPTED.admit() {
                    tracing::warn!(%error, held_back, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(limits.drain_deadline, places.acquire_many(max_connections)).await;
    if drained.is_err() {
        let open = max_connections as usize - places.available_permits();
        tracing::warn!(open, "connections still open at the drain deadline");
        abort.cancel();
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    abort: CancellationToken,
) {
    // Answers are small; waiting for an ack of the last one would only delay them.
    let _ = stream.set_nodelay(true);
    let is_http2 = limits.max_streams > 0
        && tokio::select! {
            biased;
            is_http2 = begins_with_http2(&stream, limits.header_timeout) => is_http2,
            () = shutdown.cancelled() => false,
        };
    let service = service_fn(move |request| answer(router.clone(), request));
    if is_http2 {
        let connection = hyper::server::conn::http2::Builder::new(Spawn)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams.max(STREAMS_BEFORE_SETTINGS))
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            // Whoever gives up many requests at once is the gateway, whose clients have gone.
            .max_pending_accept_reset_streams(usize::MAX)
            .keep_alive_interval(limits.header_timeout)
            .keep_alive_timeout(SIGN_OF_LIFE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        until_its_end(Box::pin(connection), shutdown, abort).await;
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        until_its_end(Box::pin(connection), shutdown, abort).await;
    }
}

/// Whether a client begins with the preface of HTTP/2 (RFC 9113 section 3.4); no request of HTTP/1 begins like that.
async fn begins_with_http2(stream: &TcpStream, timeout: Duration) -> bool {
    const BEGINNING: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let look = async {
        let mut letters = [0; BEGINNING.len()];
        loop {
            match stream.peek(&mut letters).await {
                Ok(count) if count == letters.len() => return letters == *BEGINNING,
                Ok(count) if count > 0 && BEGINNING.starts_with(&letters[..count]) => {
                    // The rest is on its way, and nothing tells when it has come.
                    tokio::time::sleep(PREFACE_PAUSE).await;
                }
                Ok(_) | Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(timeout, look).await.unwrap_or(false)
}

/// Boxed, as what is handed from future to future has room in each of them, and there are thousands of connections.
async fn until_its_end<C: GracefulConnection<Error: std::fmt::Display>>(
    mut connection: Pin<Box<C>>,
    shutdown: CancellationToken,
    abort: CancellationToken,
) {
    // The drain first, so that an answer that is written after it says `Connection: close`.
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = abort.cancelled() => return,
            }
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn answer(router: Router, request: http::Request<Incoming>) -> Result<Response, Infallible> {
    let path = request.uri().clone();
    let call = AssertUnwindSafe(router.oneshot(request.map(Body::new))).catch_unwind();
    Ok(call.await.map_or_else(|panic| panicked(&path, &*panic), |Ok(response)| response))
}

fn panicked(path: &http::Uri, panic: &(dyn std::any::Any + Send)) -> Response {
    let message = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    telemetry::metrics::HTTP_PANICS.add(1, &[]);
    tracing::error!(path = path.path(), message, "a handler panicked");
    Problem::new(500, "internal-error", "the request failed by a mistake of ours; its outcome is unknown")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Outgoing, UpstreamClient};
    use axum::routing::{MethodRouter, get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    const WAIT: Duration = Duration::from_secs(10);

    async fn start(router: Router, limits: Limits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = listen("a test", any_port()).expect("a port");
        let address = listener.local_addr().expect("address");
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
        (address, shutdown, serving)
    }

    fn any_port() -> SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, 0).into()
    }

    /// A handler that says when it is entered and waits until it is released.
    fn held() -> (MethodRouter, Arc<Notify>, Arc<Notify>) {
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (inside, go) = (entered.clone(), release.clone());
        let slow = get(async move || {
            inside.notify_one();
            go.notified().await;
            "done"
        });
        (slow, entered, release)
    }

    /// Sends the bytes and reads until the other side closes.
    async fn exchange(address: SocketAddr, bytes: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(bytes.as_bytes()).await.expect("write");
        let mut text = String::new();
        tokio::time::timeout(WAIT, stream.read_to_string(&mut text)).await.expect("in time").expect("read");
        text
    }

    fn request(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn a_storm_of_connections_waits_to_be_accepted() {
        crate::process::raise_file_limit();
        // More than the 1024 that are usual.
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a limit of the kernel");
        let storm = allowed.trim().parse().map_or(1_500, |allowed: usize| allowed.min(1_500));
        // Nobody accepts.
        let listener = listen("a test", any_port()).expect("a port");
        let address = listener.local_addr().expect("address");
        let connecting = futures::future::try_join_all((0..storm).map(|_| TcpStream::connect(address)));
        let connected = tokio::time::timeout(WAIT, connecting).await.expect("none waits for room");
        assert_eq!(connected.expect("none is refused").len(), storm);
    }

    #[tokio::test]
    async fn a_panic_is_a_counted_500_and_the_port_goes_on() {
        async fn broken() -> &'static str {
            panic!("on purpose")
        }
        let router = Router::new().route("/broken", get(broken)).route("/fine", get(async || "fine"));
        let (address, ..) = start(router, Limits::default()).await;
        let text = exchange(address, &request("/broken")).await;
        assert!(text.starts_with("HTTP/1.1 500") && text.contains("application/problem+json"), "{text}");
        assert!(exchange(address, &request("/fine")).await.ends_with("fine"));
        assert!(telemetry::metrics::render().contains("saga_http_panics_total"));
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_off() {
        let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
        let (address, ..) = start(Router::new(), limits).await;
        let text = exchange(address, "GET / HTTP/1.1\r\nhost: x\r\n").await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    }

    #[tokio::test]
    async fn a_drain_finishes_what_is_open() {
        let (slow, entered, release) = held();
        let (address, shutdown, serving) = start(Router::new().route("/slow", slow), Limits::default()).await;
        let client = tokio::spawn(async move { exchange(address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await });
        entered.notified().await;
        shutdown.cancel();
        release.notify_one();
        let text = client.await.expect("client");
        assert!(text.ends_with("done") && text.contains("connection: close"), "{text}");
        tokio::time::timeout(WAIT, serving).await.expect("drained").expect("joined");
    }

    #[tokio::test]
    async fn a_drain_ends_at_its_deadline() {
        let entered = Arc::new(Notify::new());
        let inside = entered.clone();
        let never = get(async move || {
            inside.notify_one();
            std::future::pending::<&'static str>().await
        });
        let limits = Limits { drain_deadline: Duration::from_millis(50), ..Limits::default() };
        let (address, shutdown, serving) = start(Router::new().route("/never", never), limits).await;
        let client = tokio::spawn(async move { exchange(address, &request("/never")).await });
        entered.notified().await;
        shutdown.cancel();
        tokio::time::timeout(WAIT, serving).await.expect("ended").expect("joined");
        assert_eq!(client.await.expect("client"), "", "cut off without an answer");
    }

    #[tokio::test]
    async fn the_gauge_of_connections_comes_to_rest_at_zero() {
        let limits = Limits { port: "counted", ..Limits::default() };
        let (address, ..) = start(Router::new(), limits).await;
        let shows = async |open: u32| {
            let series = format!("saga_http_connections{{port=\"counted\"}} {open}\n");
            let deadline = tokio::time::Instant::now() + WAIT;
            while !telemetry::metrics::render().contains(&series) {
                assert!(tokio::time::Instant::now() < deadline, "never {series}");
                tokio::task::yield_now().await;
            }
        };
        let both = (TcpStream::connect(address).await.expect("one"), TcpStream::connect(address).await.expect("two"));
        shows(2).await;
        drop(both);
        shows(0).await;
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait() {
        let limits = Limits { max_connections: 1, ..Limits::default() };
        let (address, ..) = start(Router::new().route("/", get(async || "fine")), limits).await;
        let first = TcpStream::connect(address).await.expect("connect");
        let second = tokio::spawn(async move { exchange(address, &request("/")).await });
        // While the first holds the only place the second cannot be answered: closing the first lets it in.
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.expect("second").ends_with("fine"));
    }

    async fn start_http2(
        router: Router,
        limits: Limits,
    ) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        start(router, Limits { max_streams: 16, ..limits }).await
    }

    #[tokio::test]
    async fn one_connection_carries_many_requests_at_once() {
        let (arrived, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (inside, go) = (arrived.clone(), release.clone());
        let held = get(async move || {
            inside.add_permits(1);
            let _permit = go.acquire().await;
            "fine"
        });
        let limits = Limits { port: "carried", ..Limits::default() };
        let (address, ..) = start_http2(Router::new().route("/", held), limits).await;
        let client = UpstreamClient::http2();
        let ask = move |client: UpstreamClient| async move {
            client.request_whole(address, &Outgoing::get("/").expect("path"), WAIT).await.expect("an answer")
        };
        let asking: Vec<_> = (0..8).map(|_| tokio::spawn(ask(client.clone()))).collect();
        let all = tokio::time::timeout(WAIT, arrived.acquire_many(8)).await;
        assert!(all.is_ok(), "{} of 8 requests arrived", arrived.available_permits());
        assert!(telemetry::metrics::render().contains("saga_http_connections{port=\"carried\"} 1\n"));
        release.add_permits(8);
        for asked in asking {
            assert_eq!(asked.await.expect("joined"), (http::StatusCode::OK, bytes::Bytes::from("fine")));
        }
    }

    #[tokio::test]
    async fn one_request_with_long_headers_does_not_end_the_others() {
        let (slow, entered, release) = held();
        let router = Router::new().route("/slow", slow).route("/", get(async || "fine"));
        let (address, ..) = start_http2(router, Limits::default()).await;
        let client = UpstreamClient::http2();
        let other = tokio::spawn({
            let client = client.clone();
            async move { client.request_whole(address, &Outgoing::get("/slow").expect("path"), WAIT).await }
        });
        entered.notified().await;
        let mut long = Outgoing::get("/").expect("path");
        for _ in 0..40 {
            long.headers.append("x-a", "a".repeat(10_000).parse().expect("value"));
        }
        assert_eq!(client.request_whole(address, &long, WAIT).await.expect("an answer").1, "fine");
        release.notify_one();
        assert_eq!(other.await.expect("joined").expect("an answer").1, "done");
    }

    #[tokio::test]
    async fn the_same_port_speaks_http1_even_in_single_letters() {
        let router = Router::new().route("/", axum::routing::post(async || "fine"));
        let (address, ..) = start_http2(router, Limits::default()).await;
        let mut stream = TcpStream::connect(address).await.expect("connect");
        for letter in "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".bytes() {
            stream.write_all(&[letter]).await.expect("write");
            tokio::task::yield_now().await;
        }
        let mut text = String::new();
        tokio::time::timeout(WAIT, stream.read_to_string(&mut text)).await.expect("in time").expect("read");
        assert!(text.ends_with("fine"), "{text}");
    }

    #[tokio::test]
    async fn a_drain_does_not_wait_for_who_says_nothing() {
        let limits = Limits { header_timeout: WAIT * 6, drain_deadline: WAIT * 6, ..Limits::default() };
        let (address, shutdown, serving) = start_http2(Router::new(), limits).await;
        let _silent = TcpStream::connect(address).await.expect("connect");
        shutdown.cancel();
        tokio::time::timeout(WAIT, serving).await.expect("drained").expect("joined");
    }

    #[tokio::test]
    async fn a_drain_of_http2_finishes_what_is_open_and_takes_nothing_new() {
        let (slow, entered, release) = held();
        let (address, shutdown, serving) = start_http2(Router::new().route("/", slow), Limits::default()).await;
        let client = UpstreamClient::http2();
        let outgoing = Outgoing::get("/").expect("path");
        let open = tokio::spawn({
            let (client, outgoing) = (client.clone(), outgoing.clone());
            async move { client.request_whole(address, &outgoing, WAIT).await }
        });
        entered.notified().await;
        shutdown.cancel();
        // From the moment at which the goodbye has arrived on: before, the request is one of those that are open.
        let refused = async {
            while !matches!(
                client.request(address, &outgoing, Duration::from_millis(20)).await,
                Err(error) if error.certainly_never_sent()
            ) {}
        };
        tokio::time::timeout(WAIT, refused).await.expect("refused");
        release.notify_waiters();
        assert_eq!(open.await.expect("joined").expect("an answer").1, "done");
        tokio::time::timeout(WAIT, serving).await.expect("drained").expect("joined");
    }
}
