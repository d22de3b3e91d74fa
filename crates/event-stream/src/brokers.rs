//! Gives a client its brokers back that it has thrown away.
//!
//! A broker that is fenced, because its controller has not heard from it, answers that the cluster has no broker at all.
//! librdkafka then drops every broker that it knows and from then on asks nobody (its issue 5301; 2.12.1 does it): the
//! client would stay silent for ever. The same answer named no controller, and by that it is noticed here. It may come before
//! any look of ours has seen a controller, so a client that still looks for its first broker is given them as well: those it has
//! it keeps.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rdkafka::bindings::{rd_kafka_brokers_add, rd_kafka_controllerid};
use rdkafka::client::{Client, ClientContext};

/// Time between two looks, milliseconds.
const LOOK_INTERVAL_MS: u64 = 1_000;

/// A client without brokers is given them after each pause, until one of them has answered well; pauses double up to this, as the
/// client keeps every list that it was ever given.
const MAX_PAUSE_MS: u64 = 4_000;

/// The brokers of one client.
pub(crate) struct Brokers {
    list: CString,
    /// Whether the client knew a controller at the last look.
    was_connected: AtomicBool,
    began: Instant,
    looked_ms: AtomicU64,
    pause_ms: AtomicU64,
}

impl Brokers {
    /// Brokers as the client was told at first, `host:port,host:port`.
    pub(crate) fn new(list: &str) -> Self {
        // A list with a zero in it has been refused when the client was made.
        let list = CString::new(list).unwrap_or_default();
        Self {
            list,
            was_connected: AtomicBool::new(false),
            began: Instant::now(),
            looked_ms: AtomicU64::new(0),
            pause_ms: AtomicU64::new(LOOK_INTERVAL_MS),
        }
    }

    /// Looks whether the client has brokers, if it is time to; never waits.
    pub(crate) fn keep<C: ClientContext>(&self, client: &Client<C>) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked_ms = self.looked_ms.load(Ordering::Relaxed);
        let pause_ms = self.pause_ms.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(looked_ms) >= pause_ms;
        // Whoever comes at the same moment leaves it to the first.
        let claim = || self.looked_ms.compare_exchange(looked_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        if !is_due || claim().is_err() {
            return;
        }
        if has_controller(client) {
            self.was_connected.store(true, Ordering::Relaxed);
            self.pause_ms.store(LOOK_INTERVAL_MS, Ordering::Relaxed);
            return;
        }
        if self.was_connected.swap(false, Ordering::Relaxed) {
            tracing::warn!("the client was told of no broker and is given those that it began with");
        }
        self.add(client);
        self.pause_ms.store((pause_ms * 2).min(MAX_PAUSE_MS), Ordering::Relaxed);
    }

    #[allow(unsafe_code, reason = "the client's own function, called with a live handle and a C string")]
    fn add<C: ClientContext>(&self, client: &Client<C>) {
        // SAFETY: the handle lives as long as `client`; the library copies the list before it returns.
        unsafe { rd_kafka_brokers_add(client.native_ptr(), self.list.as_ptr()) };
    }
}

/// Whether the last answer about the cluster named a controller. A cluster that can work always names one.
#[allow(unsafe_code, reason = "the client's own function, called with a live handle")]
fn has_controller<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the handle lives as long as `client`. With a timeout of 0 it answers from memory.
    unsafe { rd_kafka_controllerid(client.native_ptr(), 0) >= 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use local_servers::{Kafka, KafkaOptions, free_port};
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, Producer};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_client_that_has_never_known_a_broker_is_given_some() {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
        let nobody = format!("127.0.0.1:{}", free_port().unwrap());
        let client: BaseProducer = ClientConfig::new().set("bootstrap.servers", nobody).create().unwrap();
        let brokers = Brokers::new(&kafka.brokers());
        let end = Instant::now() + PATIENCE;
        while client.client().fetch_metadata(None, Duration::from_millis(100)).is_err() {
            assert!(Instant::now() < end, "in vain: the broker is asked");
            brokers.keep(client.client());
        }
    }
}
