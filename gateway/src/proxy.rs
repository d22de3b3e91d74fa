//! Passes one request on: limits, replicas, repeats, deadline.

mod headers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body as _;
use hyper::body::Incoming;
use service_kit::backoff::Backoff;
use service_kit::problem::Problem;
use service_kit::upstream::{Outgoing, RequestError, UpstreamClient, Upstreams};
use telemetry::context::{RequestTrace, UpstreamSpan, inject};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::contract::{Repeat, Route, Service};
use crate::decide::{self, Attempt, Next, NoRoute};
use crate::events;
use crate::pace::Pace;
use crate::reference;
use crate::settings::{IncomingTraces, Settings};

/// First pause after every replica was asked in vain.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between two rounds.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// A read that takes longer is asked of another replica: it is one round trip to a store.
const READ_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a waiting checkout looks whether its replica has gone silent.
const SILENCE_CHECK_PAUSE: Duration = Duration::from_millis(500);

/// Answers up to this size are read as a whole, so that one that breaks off can be asked for again; larger ones are
/// passed on as they come.
const MAX_WHOLE_ANSWER_BYTES: u64 = 64 * 1024;

/// What a shed or unserved client is asked to wait, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// Passes requests on. Holds connections, nothing else.
pub(crate) struct Proxy {
    orders: Arc<Upstreams>,
    stock: Arc<Upstreams>,
    payment: Arc<Upstreams>,
    client: UpstreamClient,
    places: Semaphore,
    max_requests: usize,
    refusals: Pace,
    request_timeout: Duration,
    max_body_bytes: usize,
    incoming_traces: IncomingTraces,
}

/// One request on its way.
struct Call<'call> {
    route: &'static Route,
    key: Option<&'call str>,
    upstreams: &'call Upstreams,
    trace: &'call RequestTrace,
    attempts: u32,
    outgoing: Outgoing,
    deadline: Instant,
}

/// How one attempt ended.
struct Tried {
    attempt: Attempt,
    answer: Option<Response>,
}

impl Proxy {
    pub(crate) fn new(settings: &Settings, [orders, stock, payment]: [Arc<Upstreams>; 3]) -> Arc<Self> {
        let max_requests = settings.max_requests.min(Semaphore::MAX_PERMITS);
        let proxy = Arc::new(Self {
            orders,
            stock,
            payment,
            client: settings.upstream_http.client(),
            places: Semaphore::new(max_requests),
            max_requests,
            refusals: Pace::new(settings.max_refusal_wait(), settings.waiting_room().min(Semaphore::MAX_PERMITS)),
            request_timeout: settings.request_timeout(),
            max_body_bytes: settings.max_body_bytes,
            incoming_traces: settings.incoming_traces,
        });
        events::show(&proxy, Self::in_flight);
        proxy
    }

    /// Requests that are taken and not answered yet.
    fn in_flight(&self) -> usize {
        self.max_requests - self.places.available_permits()
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(handle).with_state(self)
    }

    fn upstreams(&self, service: Service) -> &Upstreams {
        match service {
            Service::Orders => &self.orders,
            Service::Stock => &self.stock,
            Service::Payment => &self.payment,
        }
    }

    async fn answer(&self, route: &'static Route, request: Request, trace: &RequestTrace, since: Instant) -> Response {
        // Held until the answer's head is known: that is what costs the services something.
        let Some(_place) = self.place().await else {
            events::shed(route);
            return shed().into_response();
        };
        let deadline = since + self.request_timeout;
        let (parts, body) = request.into_parts();
        let body = match self.whole_body(body, deadline).await {
            Ok(body) => body,
            Err(problem) => return problem.into_response(),
        };
        let Some(path) = parts.uri.path_and_query().cloned() else { return no_route(&NoRoute::NotFound) };
        let outgoing =
            Outgoing { method: parts.method.clone(), path, headers: headers::of_request(&parts.headers), body };
        let call = Call {
            route,
            key: decide::key(route, parts.uri.path()),
            upstreams: self.upstreams(route.service),
            trace,
            attempts: 0,
            outgoing,
            deadline,
        };
        self.forward(call, &parts).await
    }

    /// A place, if there is one now or at the turn of being refused.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        self.refusals.turn().await;
        self.places.try_acquire().ok()
    }

    async fn whole_body(&self, body: Body, deadline: Instant) -> Result<Bytes, Problem> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let whole = Limited::new(body, self.max_body_bytes).collect();
        match tokio::time::timeout_at(deadline.into(), whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let detail = format!("a request body may have {} bytes", self.max_body_bytes);
                Err(Problem::new(413, "body-too-large", detail))
            }
            Ok(Err(_)) => Err(Problem::new(400, "bad-body", "the request body broke off")),
            Err(_) => Err(Problem::new(408, "body-too-slow", "the request body did not arrive in time")),
        }
    }

    /// Asks replica after replica, round after round, as far as the route allows.
    async fn forward(&self, mut call: Call<'_>, parts: &Parts) -> Response {
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut last_answer = None;
        let mut may_have_begun = false;
        loop {
            let replicas = call.key.map_or_else(|| call.upstreams.rotated(), |key| call.upstreams.ranked(key));
            for replica in replicas {
                if Instant::now() >= call.deadline {
                    break;
                }
                let tried = self.attempt(replica, &mut call).await;
                match decide::next(call.route.repeat, tried.attempt, may_have_begun) {
                    Next::Answer => return tried.answer.unwrap_or_else(|| call.no_answer(None, parts)),
                    Next::GiveUp => return call.outcome_unknown(),
                    Next::Repeat | Next::RepeatOnce => {
                        events::repeated(call.upstreams.name(), replica, tried.attempt);
                        may_have_begun |= tried.attempt != Attempt::NeverSent;
                        last_answer = tried.answer.or(last_answer);
                    }
                }
            }
            let pause = backoff.pause();
            if !decide::waits(call.route.repeat) || Instant::now() + pause >= call.deadline {
                return call.no_answer(last_answer, parts);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, replica: SocketAddr, call: &mut Call<'_>) -> Tried {
        let trace = call.trace.context();
        let (method, path) = (call.outgoing.method.as_str(), call.outgoing.path.path());
        let span = UpstreamSpan::begin(method, call.route.pattern, path, replica, call.attempts, trace);
        call.attempts += 1;
        inject(&span.context(trace), &mut call.outgoing.headers);
        let timeout = call.attempt_timeout();
        let exchange = self.exchange(replica, &call.outgoing, timeout);
        let result = match call.route.repeat {
            Repeat::Joins if call.upstreams.counts().0 > 1 => tokio::select! {
                result = exchange => result,
                () = gone_silent(call.upstreams, replica) => Err(RequestError::TimedOut(timeout)),
            },
            Repeat::Joins | Repeat::Reads | Repeat::IfNeverSent => exchange.await,
        };
        match result {
            Ok(answer) => {
                let status = answer.status().as_u16();
                span.answered(status);
                Tried { attempt: Attempt::Answered(status), answer: Some(answer) }
            }
            Err(error) => {
                tracing::debug!(upstream = call.upstreams.name(), %replica, %error, "attempt failed");
                span.failed(error.word());
                let never_sent = error.certainly_never_sent();
                if never_sent {
                    call.upstreams.mark_refused(replica);
                }
                Tried { attempt: if never_sent { Attempt::NeverSent } else { Attempt::Unknown }, answer: None }
            }
        }
    }

    /// One request and its answer; a small answer is complete when this returns.
    async fn exchange(
        &self,
        replica: SocketAddr,
        outgoing: &Outgoing,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        let until = tokio::time::Instant::now() + timeout;
        let (head, body) = self.client.request(replica, outgoing, timeout).await?.into_parts();
        let body = if body.size_hint().upper().is_some_and(|size| size <= MAX_WHOLE_ANSWER_BYTES) {
            whole_answer(body, until, timeout).await?
        } else {
            Body::new(body)
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = headers::of_answer(&head.headers);
        Ok(answer)
    }
}

impl Call<'_> {
    fn attempt_timeout(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.route.repeat {
            Repeat::Reads => left.min(READ_ATTEMPT_TIMEOUT),
            Repeat::Joins | Repeat::IfNeverSent => left,
        }
    }

    /// The answer when no replica gave one that counts.
    fn no_answer(&self, last_answer: Option<Response>, parts: &Parts) -> Response {
        let upstream = self.upstreams.name();
        if self.route.repeat == Repeat::Joins {
            // Perhaps a checkout has begun: neither yes nor no would be true.
            events::given_up(self.route, upstream, "undecided");
            let order = decide::key(self.route, parts.uri.path()).unwrap_or_default();
            let detail = "the checkout is not decided yet; if it has begun it goes on, and the order shows how it ends";
            let problem = Problem::new(504, "undecided", detail).with_location(format!("/orders/find/{order}"));
            return problem.into_response();
        }
        last_answer.unwrap_or_else(|| {
            events::given_up(self.route, upstream, "unavailable");
            let detail = format!("no replica of {upstream} could be reached; nothing was changed");
            Problem::new(503, "unavailable", detail).with_retry_after_s(RETRY_AFTER_S).into_response()
        })
    }

    fn outcome_unknown(&self) -> Response {
        let upstream = self.upstreams.name();
        events::given_up(self.route, upstream, "outcome-unknown");
        let detail = format!("{upstream} went away in the middle: outcome unknown, look before you try again");
        Problem::new(503, "outcome-unknown", detail).into_response()
    }
}

async fn handle(State(proxy): State<Arc<Proxy>>, mut request: Request) -> Response {
    let since = Instant::now();
    if proxy.incoming_traces == IncomingTraces::Ignore {
        headers::forget_trace(request.headers_mut());
    }
    let route = match decide::find_route(request.method(), request.uri().path()) {
        Ok(route) => route,
        Err(NoRoute::NotFound) => return own_answer(&request),
        Err(wrong_verb) => return no_route(&wrong_verb),
    };
    let trace = RequestTrace::begin(route.method.as_str(), route.pattern, request.uri().path(), request.headers());
    let response = trace.run(proxy.answer(route, request, &trace, since)).await;
    trace.answered(response.status().as_u16());
    events::answered(route, response.status(), since);
    response
}

/// What no service serves, the gateway may have itself.
fn own_answer(request: &Request) -> Response {
    match decide::find_own_route(request.method(), request.uri().path()) {
        Ok(route) => reference::answer(route.page),
        Err(problem) => no_route(&problem),
    }
}

async fn whole_answer(body: Incoming, until: tokio::time::Instant, timeout: Duration) -> Result<Body, RequestError> {
    match tokio::time::timeout_at(until, body.collect()).await {
        Ok(Ok(whole)) => Ok(Body::from(whole.to_bytes())),
        Ok(Err(error)) => Err(RequestError::Unknown(Box::new(error))),
        Err(_) => Err(RequestError::TimedOut(timeout)),
    }
}

/// Returns when the replica no longer answers its probes while another one does.
async fn gone_silent(upstreams: &Upstreams, replica: SocketAddr) {
    loop {
        tokio::time::sleep(SILENCE_CHECK_PAUSE).await;
        if upstreams.is_silent(replica) && upstreams.is_available() {
            return;
        }
    }
}

fn shed() -> Problem {
    let detail = "too many requests are under way; this one changed nothing";
    Problem::new(429, "overloaded", detail).with_retry_after_s(RETRY_AFTER_S)
}

fn no_route(problem: &NoRoute) -> Response {
    match problem {
        NoRoute::NotFound => Problem::new(404, "no-such-route", "there is no such route").into_response(),
        NoRoute::WrongVerb { allowed } => {
            let detail = format!("this route takes {allowed} only");
            let mut response = Problem::new(405, "wrong-verb", detail).into_response();
            if let Ok(value) = HeaderValue::from_str(allowed.as_str()) {
                response.headers_mut().insert(http::header::ALLOW, value);
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn proxy(arguments: &[&str]) -> Arc<Proxy> {
        let settings = Settings::try_parse_from(["gateway"].iter().chain(arguments)).expect("settings");
        Proxy::new(&settings, ["a", "b", "c"].map(|name| Upstreams::new(name, "127.0.0.1:1").expect("upstreams")))
    }

    /// A route that were given to the router would pass by the contract, and the OpenAPI document would not know it.
    #[tokio::test]
    async fn the_table_is_the_only_way_in() {
        assert!(!proxy(&[]).router().has_routes());
    }

    #[tokio::test]
    async fn a_place_that_becomes_free_while_somebody_waits_to_be_refused_is_taken() {
        let proxy = proxy(&["--max-requests", "1"]);
        let held = proxy.place().await.expect("it is empty");
        for _ in 0..2_000 {
            proxy.refusals.next(Instant::now());
        }
        let mut waiting = Box::pin(proxy.place());
        let nobody = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(nobody).is_pending(), "its turn is a second away");
        drop(held);
        assert!(waiting.await.is_some());
        assert!(proxy.place().await.is_some(), "given back");
    }
}
