//! Finds the replicas and asks each whether it wants requests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use telemetry::logs::Throttle;
use telemetry::metrics::UPSTREAM_READY;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{MAX_REPLICAS, Replica, Source, Upstreams};
use crate::admin::INTERNAL_READY_PATH;
use crate::client::{Outgoing, RequestError, UpstreamClient};

/// Pause between two rounds of probes, with up to a tenth of jitter.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// Time for one probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Probes in a row without an answer that make a replica count as not ready: one may be a busy moment.
pub(super) const MAX_SILENT_PROBES: u32 = 2;

/// How often names are resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(2);

/// The replicas are not asked meanwhile, so a DNS server that stays silent is not waited for longer.
const RESOLVE_PATIENCE: Duration = Duration::from_millis(500);

/// Tried again every [`RESOLVE_INTERVAL`].
static NOT_RESOLVED: Throttle = Throttle::new(Duration::from_secs(60));

/// What a probe, or a request, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ready,
    /// It answered that it does not want requests.
    NotReady,
    Refused,
    Silent,
}

impl Upstreams {
    /// Starts the task that resolves names and asks each replica `GET /internal/ready`, until `shutdown`.
    pub fn spawn_probe(self: &Arc<Self>, shutdown: CancellationToken) -> JoinHandle<()> {
        let upstreams = self.clone();
        UPSTREAM_READY.read(&[("upstream", self.name)], self, |upstreams| upstreams.counts().1 as f64);
        tokio::spawn(async move { shutdown.run_until_cancelled(upstreams.probe_for_ever()).await.unwrap_or(()) })
    }

    async fn probe_for_ever(self: Arc<Self>) {
        let client = UpstreamClient::new();
        let ask = Outgoing::get(INTERNAL_READY_PATH).expect("a constant path");
        let has_names = self.sources.iter().any(|source| !matches!(source, Source::Fixed(_)));
        let (mut resolving, mut resolve_at) = (None::<JoinHandle<()>>, Instant::now());
        loop {
            // One at a time, however long it takes: what it finds counts whenever it comes.
            let is_idle = resolving.as_ref().is_none_or(JoinHandle::is_finished);
            if has_names && is_idle && Instant::now() >= resolve_at {
                let upstreams = self.clone();
                let task = resolving.insert(tokio::spawn(async move { upstreams.resolve().await }));
                let _late = tokio::time::timeout(RESOLVE_PATIENCE, task).await;
                resolve_at = Instant::now() + RESOLVE_INTERVAL;
            }
            let replicas = self.replicas();
            let answers = join_all(replicas.iter().map(|replica| probe(&client, &ask, replica.address))).await;
            for (replica, answer) in replicas.iter().zip(answers) {
                self.set_ready(replica, answer);
            }
            tokio::time::sleep(PROBE_PAUSE.mul_f64(rand::random_range(0.9..=1.1))).await;
        }
    }

    /// Looks every name up and takes over what it finds. A name that cannot be resolved keeps what was last known of it: a DNS
    /// server in trouble must not take the service away, nor the replicas of the other names.
    async fn resolve(&self) {
        let resolved = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, source) in self.sources.iter().enumerate() {
            match source {
                Source::Fixed(address) => drop(resolved().insert(place, BTreeSet::from([*address]))),
                Source::OneOf(host_port) | Source::AllOf(host_port) => match look_up(host_port).await {
                    Ok(found) => {
                        let wanted = if matches!(source, Source::AllOf(_)) { usize::MAX } else { 1 };
                        drop(resolved().insert(place, found.into_iter().take(wanted).collect()));
                    }
                    Err(error) => {
                        if let Some(held_back) = NOT_RESOLVED.admit() {
                            let upstream = self.name;
                            tracing::warn!(upstream, host_port, %error, held_back, "cannot resolve an upstream");
                        }
                    }
                },
            }
        }
        let addresses: BTreeSet<SocketAddr> = resolved().values().flatten().copied().collect();
        if !addresses.is_empty() {
            self.take_over(addresses);
        }
    }

    /// These are the replicas from now on; what was known of those that stay is kept.
    pub(super) fn take_over(&self, addresses: BTreeSet<SocketAddr>) {
        if addresses.len() > MAX_REPLICAS {
            tracing::warn!(upstream = self.name, found = addresses.len(), MAX_REPLICAS, "too many replicas");
        }
        let known = self.replicas();
        let kept = |address| known.iter().find(|replica| replica.address == address).cloned();
        let next: Vec<_> = addresses
            .into_iter()
            .take(MAX_REPLICAS)
            .map(|address| kept(address).unwrap_or_else(|| Replica::new(address)))
            .collect();
        *self.replicas.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        let now = self.replicas();
        for gone in known.iter().filter(|replica| !now.iter().any(|kept| kept.address == replica.address)) {
            let (upstream, replica, known_replicas) = (self.name, gone.address, now.len());
            tracing::info!(upstream, %replica, known_replicas, "upstream replica has left the name");
        }
    }

    pub(super) fn set_ready(&self, replica: &Replica, answer: Answer) {
        let silent_probes = match answer {
            Answer::Silent => replica.silent_probes.fetch_add(1, Ordering::Relaxed) + 1,
            Answer::Ready | Answer::NotReady | Answer::Refused => {
                replica.silent_probes.store(0, Ordering::Relaxed);
                0
            }
        };
        let ready = match answer {
            Answer::Ready => true,
            Answer::NotReady | Answer::Refused => false,
            Answer::Silent => replica.is_ready() && silent_probes < MAX_SILENT_PROBES,
        };
        if replica.ready.swap(ready, Ordering::Relaxed) != ready {
            let (known, ready_count) = self.counts();
            tracing::info!(
                upstream = self.name,
                replica = %replica.address,
                ready,
                answer = ?answer,
                ready_replicas = ready_count,
                known_replicas = known,
                "upstream replica changed"
            );
        }
    }
}

async fn probe(client: &UpstreamClient, ask: &Outgoing, address: SocketAddr) -> Answer {
    match client.request_whole(address, ask, PROBE_TIMEOUT).await {
        Ok((StatusCode::OK, _)) => Answer::Ready,
        Ok(_) => Answer::NotReady,
        Err(RequestError::NeverSent(_)) => Answer::Refused,
        Err(RequestError::Unknown(_) | RequestError::TimedOut(_)) => Answer::Silent,
    }
}

/// IPv4 first: `localhost` often resolves to both, and services listen on 127.0.0.1.
async fn look_up(host_port: &str) -> std::io::Result<Vec<SocketAddr>> {
    let mut found: Vec<_> = tokio::net::lookup_host(host_port).await?.collect();
    found.sort_by_key(|address| (address.is_ipv6(), *address));
    found.dedup();
    Ok(found)
}
