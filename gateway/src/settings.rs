//! The gateway's settings.

use std::time::Duration;

use service_kit::process::{BadConfiguration, ProcessArgs};
use service_kit::upstream::UpstreamClient;

/// The one public port of the shop: passes requests on to the services.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "gateway", version)]
pub struct Settings {
    /// What every service has.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Replicas of order-svc: host:port,host:port or dns:host:port
    #[arg(long, env = "ORDER_UPSTREAMS", default_value = "127.0.0.1:8001")]
    pub order_upstreams: String,
    /// Replicas of stock-svc: host:port,host:port or dns:host:port
    #[arg(long, env = "STOCK_UPSTREAMS", default_value = "127.0.0.1:8002")]
    pub stock_upstreams: String,
    /// Replicas of payment-svc: host:port,host:port or dns:host:port
    #[arg(long, env = "PAYMENT_UPSTREAMS", default_value = "127.0.0.1:8003")]
    pub payment_upstreams: String,
    /// What the services speak: with 2 one connection to each replica carries all requests, with 1.1 each request that is
    /// under way has one
    #[arg(long, env = "UPSTREAM_HTTP", value_enum, default_value_t = UpstreamHttp::Two)]
    pub upstream_http: UpstreamHttp,
    /// Milliseconds for a request from its head to its answer; order-svc's wait for a checkout and MAX_REFUSAL_WAIT_MS together
    /// must be shorter
    #[arg(long, env = "REQUEST_TIMEOUT_MS", default_value_t = 30_000)]
    pub request_timeout_ms: u64,
    /// Most requests under way at once; more are answered 429 before anything is sent
    #[arg(long, env = "MAX_REQUESTS", default_value_t = 4_096)]
    pub max_requests: usize,
    /// Most milliseconds that a 429 waits for its turn, as who is refused at once comes back at once; turns are a millisecond
    /// apart, and a place that is free then is taken; with 0 none waits, and none for more than half of REQUEST_TIMEOUT_MS
    #[arg(long, env = "MAX_REFUSAL_WAIT_MS", default_value_t = 1_000)]
    pub max_refusal_wait_ms: u64,
    /// Most client connections at once, the rest waits; those beyond MAX_REQUESTS are there to be answered 429, and half of them
    /// may wait for it
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 12_288)]
    pub max_connections: usize,
    /// Largest request body in bytes; the shop's routes need none
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 65_536)]
    pub max_body_bytes: usize,
    /// Milliseconds for a request's head to arrive; also how long a kept-alive connection may be silent
    #[arg(long, env = "HEADER_TIMEOUT_MS", default_value_t = 60_000)]
    pub header_timeout_ms: u64,
    /// What becomes of a client's traceparent; one that says *sampled* is recorded whatever the sampling, so ignore it
    /// where clients are strangers
    #[arg(long, env = "INCOMING_TRACES", value_enum, default_value_t = IncomingTraces::Continue)]
    pub incoming_traces: IncomingTraces,
}

/// What becomes of a client's trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IncomingTraces {
    /// The request belongs to the client's trace.
    Continue,
    /// A new trace begins at the gateway.
    Ignore,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    #[value(name = "1.1")]
    One,
    /// HTTP/2 without TLS, by prior knowledge.
    #[value(name = "2")]
    Two,
}

impl UpstreamHttp {
    /// A client that speaks it.
    pub fn client(self) -> UpstreamClient {
        match self {
            Self::One => UpstreamClient::new(),
            Self::Two => UpstreamClient::http2(),
        }
    }
}

impl Settings {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), BadConfiguration> {
        let positive = [
            ("REQUEST_TIMEOUT_MS", self.request_timeout_ms),
            ("HEADER_TIMEOUT_MS", self.header_timeout_ms),
            ("MAX_REQUESTS", self.max_requests as u64),
            ("MAX_CONNECTIONS", self.max_connections as u64),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(BadConfiguration(format!("{name} must be at least 1"))),
            None => Ok(()),
        }
    }

    /// How many refusals may wait for their turn: who waits keeps a connection, and others must find one.
    pub(crate) fn waiting_room(&self) -> usize {
        self.max_connections.saturating_sub(self.max_requests) / 2
    }

    /// Longest wait of a refusal for its turn; who gets a place at the turn has at least half the time left.
    pub(crate) fn max_refusal_wait(&self) -> Duration {
        Duration::from_millis(self.max_refusal_wait_ms).min(self.request_timeout() / 2)
    }

    /// Time for a request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};
    use std::path::Path;

    #[test]
    fn the_docs_list_every_setting() {
        let page = service_kit::settings::settings_page("gateway", &Settings::command());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings/gateway.md");
        service_kit::settings::assert_documented(&path, &page);
    }

    #[test]
    fn half_of_the_connections_that_are_left_may_wait() {
        for (requests, connections, room) in [("4096", "12288", 4_096), ("256", "12288", 6_016), ("4096", "1000", 0)] {
            let flags = ["gateway", "--max-requests", requests, "--max-connections", connections];
            assert_eq!(Settings::try_parse_from(flags).expect("parsed").waiting_room(), room, "{flags:?}");
        }
    }

    #[test]
    fn zeros_are_refused() {
        let settings = Settings::try_parse_from(["gateway", "--max-requests", "0"]).expect("parsed");
        assert_eq!(settings.check().expect_err("refused").to_string(), "MAX_REQUESTS must be at least 1");
    }

    #[test]
    fn a_refusal_waits_for_half_the_time_of_a_request_at_most() {
        for (wait, timeout, at_most) in [("1000", "30000", 1_000), ("1000", "300", 150), ("0", "300", 0)] {
            let flags = ["gateway", "--max-refusal-wait-ms", wait, "--request-timeout-ms", timeout];
            let settings = Settings::try_parse_from(flags).expect("parsed");
            settings.check().expect("accepted");
            assert_eq!(settings.max_refusal_wait(), Duration::from_millis(at_most), "{flags:?}");
        }
    }
}
