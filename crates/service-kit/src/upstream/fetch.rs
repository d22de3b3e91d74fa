//! Reads JSON from whichever replica answers.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde::de::DeserializeOwned;
use telemetry::context::{self, UpstreamSpan};

use super::{Outgoing, UpstreamClient, Upstreams};
use crate::backoff::Backoff;

/// First pause after a round in which no replica answered.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between rounds.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A replica answered with a status that is not 200 and that another replica would give as well (404).
    #[error("{upstream} answered {status}")]
    Status {
        /// The service.
        upstream: &'static str,
        /// What it said.
        status: u16,
    },
    /// Nobody answered in time.
    #[error("{upstream} did not answer within {timeout_ms} ms: {last}")]
    Away {
        /// The service.
        upstream: &'static str,
        /// The time given.
        timeout_ms: u64,
        /// The last thing that went wrong.
        last: String,
    },
    /// The answer is not what was expected.
    #[error("{upstream} answered what cannot be read: {reason}")]
    Unreadable {
        /// The service.
        upstream: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Upstreams {
    /// `GET path` from the replicas of `key` in their order, until one answers or the timeout passes; 5xx and broken
    /// connections count as no answer. `route` is the path with its parameters, for spans; every attempt has one in the
    /// current trace and carries its context.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        client: &UpstreamClient,
        key: &str,
        route: &'static str,
        path: &str,
        timeout: Duration,
    ) -> Result<T, FetchError> {
        let upstream = self.name;
        let unreadable = |reason: String| FetchError::Unreadable { upstream, reason };
        let trace = context::current();
        let mut outgoing = Outgoing::get(path).map_err(|error| unreadable(format!("the path {path}: {error}")))?;
        let mut attempts = 0;
        let deadline = Instant::now() + timeout;
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut last = String::from("no replica is known");
        loop {
            let replicas = self.ranked(key);
            for (index, address) in replicas.iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                // A silent replica must leave time for the next one.
                let attempt = if index + 1 < replicas.len() { left / 2 } else { left };
                let span = UpstreamSpan::begin("GET", route, path, *address, attempts, &trace);
                attempts += 1;
                context::inject(&span.context(&trace), &mut outgoing.headers);
                let answer = client.request_whole(*address, &outgoing, attempt).await;
                match &answer {
                    Ok((status, _)) => span.answered(status.as_u16()),
                    Err(error) => span.failed(error.word()),
                }
                match answer {
                    Ok((StatusCode::OK, body)) => {
                        return serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()));
                    }
                    Ok((status, _)) if status.is_server_error() => last = format!("{address} answered {status}"),
                    Ok((status, _)) => return Err(FetchError::Status { upstream, status: status.as_u16() }),
                    Err(error) => {
                        if error.certainly_never_sent() {
                            self.mark_refused(*address);
                        }
                        last = format!("{address}: {error}");
                    }
                }
            }
            let pause = backoff.pause();
            if Instant::now() + pause >= deadline {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                return Err(FetchError::Away { upstream, timeout_ms, last });
            }
            tokio::time::sleep(pause).await;
        }
    }
}
