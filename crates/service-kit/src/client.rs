//! The pooled HTTP client for requests from one of our processes to another.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use telemetry::stages::{Stage, in_stage};

/// A replica on a local network accepts within this or is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Idle connections are closed after this: before the other side's header timeout (10 s) does it under a new request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections kept for each replica: as many as a busy gateway has requests under way to it.
const MAX_IDLE_CONNECTIONS: usize = 512;

/// A connection that carries many requests at once is asked for a sign of life this often while it carries any …
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// … and given up when there is none for so long: a stopped process may come back until then.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests on one connection that were given up within a second and whose answers may still come.
const MAX_GIVEN_UP: usize = 4096;

/// What one answer, and all of them together, may have on its way: a client of the gateway that reads slowly holds up its
/// own answer and no other.
const ANSWER_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// Largest body that is read as a whole: an order of 1 000 lines has about 60 kB.
pub const MAX_BUFFERED_BYTES: usize = 1 << 20;

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Verb.
    pub method: Method,
    /// Path and query as they go out.
    pub path: PathAndQuery,
    /// Headers; `host` and `content-length` are added.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Outgoing {
    /// A `GET` without headers. The path must be a valid one.
    pub fn get(path: &str) -> Result<Self, RequestError> {
        let path = path.parse().map_err(|error| RequestError::NeverSent(Box::new(error)))?;
        Ok(Self { method: Method::GET, path, headers: HeaderMap::new(), body: Bytes::new() })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request did not leave this process (connection refused or not made in time).
    #[error("request was never sent: {0}")]
    NeverSent(#[source] Cause),
    /// The connection broke after the request may have left: the other side may have acted on it.
    #[error("request has an unknown outcome: {0}")]
    Unknown(#[source] Cause),
    /// No answer in time: the other side may have acted on it.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// The cause of a failed request.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl RequestError {
    /// Whether the request was certainly never sent, so that anything may be repeated elsewhere.
    pub fn certainly_never_sent(&self) -> bool {
        matches!(self, Self::NeverSent(_))
    }

    /// The word for it in spans.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NeverSent(_) => "never-sent",
            Self::Unknown(_) => "broken-off",
            Self::TimedOut(_) => "timeout",
        }
    }
}

/// Keeps connections to replicas alive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UpstreamClient {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for UpstreamClient {
    fn default() -> Self {
        Self::new()
    }
}

impl UpstreamClient {
    /// A client that speaks HTTP/1.1, with a connection for every request that is under way.
    pub fn new() -> Self {
        Self { client: builder().build(connector()) }
    }

    /// A client that speaks HTTP/2 without asking first (RFC 9113 section 3.3): one connection to each replica carries all
    /// requests. Replicas must serve it: see [`Limits::max_streams`](crate::http::Limits::max_streams).
    pub fn http2() -> Self {
        let mut builder = builder();
        builder
            .http2_only(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_max_concurrent_reset_streams(MAX_GIVEN_UP)
            // An answer that comes later than that is no mistake of the other side.
            .http2_max_local_error_reset_streams(None)
            .http2_initial_stream_window_size(ANSWER_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Self { client: builder.build(connector()) }
    }

    /// Sends one request to one replica and waits for the head of its answer.
    ///
    /// A request that met a kept-alive connection which had just been closed is sent again by itself, on a new
    /// connection, when not one byte of it had left.
    pub async fn request(
        &self,
        address: SocketAddr,
        outgoing: &Outgoing,
        timeout: Duration,
    ) -> Result<Response<Incoming>, RequestError> {
        let request = to_request(address, outgoing)?;
        match tokio::time::timeout(timeout, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() || was_refused(&error) => {
                Err(RequestError::NeverSent(Box::new(error)))
            }
            Ok(Err(error)) => Err(RequestError::Unknown(Box::new(error))),
            Err(_) => Err(RequestError::TimedOut(timeout)),
        }
    }

    /// The same, with the whole body of the answer (at most [`MAX_BUFFERED_BYTES`]) within the timeout.
    pub async fn request_whole(
        &self,
        address: SocketAddr,
        outgoing: &Outgoing,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        let whole = async {
            let response = self.request(address, outgoing, timeout).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BUFFERED_BYTES).collect().await;
            Ok((status, body.map_err(RequestError::Unknown)?.to_bytes()))
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(RequestError::TimedOut(timeout)))
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(Spawn);
    builder
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new());
    builder
}

/// Whether the other side says that it has not acted on the request (RFC 9113 section 8.7).
///
/// Not so its goodbye (GOAWAY): a request that meets the first of two fails here and may yet go out.
fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .any(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Runs a connection's tasks.
#[derive(Clone, Copy)]
pub(crate) struct Spawn;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, connection: F) {
        // Its end is told to whoever waits for an answer.
        tokio::spawn(in_stage(Stage::Http, Box::pin(connection)));
    }
}

fn to_request(address: SocketAddr, outgoing: &Outgoing) -> Result<Request<Full<Bytes>>, RequestError> {
    let never_sent = |error: http::Error| RequestError::NeverSent(Box::new(error));
    let authority = Authority::from_maybe_shared(Bytes::from(address.to_string()));
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority.map_err(|error| never_sent(error.into()))?)
        .path_and_query(outgoing.path.clone())
        .build()
        .map_err(never_sent)?;
    let mut request = Request::new(Full::new(outgoing.body.clone()));
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = outgoing.headers.clone();
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        (listener, address)
    }

    #[tokio::test]
    async fn refused_is_certainly_never_sent() {
        let (listener, address) = listener().await;
        drop(listener);
        let outgoing = Outgoing::get("/").expect("path");
        let error = UpstreamClient::new().request(address, &outgoing, TIMEOUT).await.expect_err("refused");
        assert!(error.certainly_never_sent(), "{error:?}");
    }

    #[tokio::test]
    async fn a_connection_that_closes_on_the_request_leaves_it_unknown() {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut head = [0; 16];
            let _ = stream.read(&mut head).await;
        });
        let outgoing = Outgoing::get("/").expect("path");
        let error = UpstreamClient::new().request(address, &outgoing, TIMEOUT).await.expect_err("closed");
        assert!(matches!(error, RequestError::Unknown(_)), "{error:?}");
    }

    #[tokio::test]
    async fn silence_ends_at_the_timeout_and_is_unknown() {
        let (listener, address) = listener().await;
        let outgoing = Outgoing::get("/").expect("path");
        let timeout = Duration::from_millis(50);
        let error = UpstreamClient::new().request(address, &outgoing, timeout).await.expect_err("silent");
        assert!(matches!(error, RequestError::TimedOut(_)) && !error.certainly_never_sent(), "{error:?}");
        drop(listener);
    }

    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    /// A frame that ends with these two numbers.
    fn frame(kind: u8, stream: u8, words: &[u8]) -> Vec<u8> {
        let length = u8::try_from(words.len() * 4).expect("short");
        let head = [0, 0, length, kind, 0, 0, 0, 0, stream];
        head.into_iter().chain(words.iter().flat_map(|word| [0, 0, 0, *word])).collect()
    }

    /// What a client makes of a first request to a server that answers with these frames and closes.
    async fn told(frames: Vec<u8>) -> RequestError {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.write_all(SETTINGS).await.expect("write");
            let mut received = Vec::new();
            // The head of the request: kind 1, on stream 1.
            while !received.windows(6).any(|bytes| bytes[0] == 1 && bytes[2..] == [0, 0, 0, 1]) {
                stream.read_buf(&mut received).await.expect("read");
            }
            stream.write_all(&frames).await.expect("write");
        });
        let outgoing = Outgoing::get("/").expect("path");
        UpstreamClient::http2().request(address, &outgoing, TIMEOUT).await.expect_err("no answer")
    }

    #[tokio::test]
    async fn only_what_the_other_side_says_it_has_not_done_may_be_repeated() {
        const RESET: u8 = 3;
        const GOODBYE: u8 = 7;
        let cases = [
            ("refused", frame(RESET, 1, &[7]), true),
            ("given up", frame(RESET, 1, &[8]), false),
            ("goodbye before it", frame(GOODBYE, 0, &[0, 0]), false),
            ("goodbye after it, and no answer", frame(GOODBYE, 0, &[1, 0]), false),
            ("a mistake of the connection", frame(GOODBYE, 0, &[0, 2]), false),
            ("closed without a word", Vec::new(), false),
        ];
        for (name, frames, never_sent) in cases {
            let error = told(frames).await;
            assert_eq!(error.certainly_never_sent(), never_sent, "{name}: {error:?}");
        }
    }

    async fn many_are_never_sent(address: SocketAddr) {
        let client = UpstreamClient::http2();
        let ask = move |client: UpstreamClient| async move {
            client.request(address, &Outgoing::get("/").expect("path"), TIMEOUT).await.expect_err("nobody")
        };
        let asking: Vec<_> = (0..64).map(|_| tokio::spawn(ask(client.clone()))).collect();
        for asked in asking {
            let error = asked.await.expect("joined");
            assert!(error.certainly_never_sent(), "{error:?}");
        }
    }

    #[tokio::test]
    async fn many_requests_at_once_to_silence_are_certainly_never_sent() {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let listener = socket.listen(1).expect("listen");
        let address = listener.local_addr().expect("address");
        // Nobody accepts: once the backlog is full the kernel leaves further attempts without an answer.
        let mut held = Vec::new();
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
        {
            held.push(connected.expect("connect"));
        }
        // If each made an attempt of its own to connect, one after the other, the last would time out.
        many_are_never_sent(address).await;
    }

    #[tokio::test]
    async fn many_requests_at_once_to_nobody_are_certainly_never_sent() {
        let (listener, address) = listener().await;
        drop(listener);
        many_are_never_sent(address).await;
    }
}
