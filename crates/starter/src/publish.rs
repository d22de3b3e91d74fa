//! Sends starts: only such as are known to be pending in the store, and again whenever it is unknown whether they
//! arrived. A start that arrives twice is absorbed by its ordinal.

use std::sync::Arc;
use std::time::Duration;

use event_stream::{Outgoing, PublishError, Publisher};
use proto::Wire;
use saga_core::record::{InboxEvent, Start};
use saga_core::starter::PendingStart;
use service_kit::backoff::Backoff;
use telemetry::context::{self, Message};
use telemetry::stages::{self, Stage};

use crate::events;

/// First pause after a delivery that failed; the producer has tried for its own 30 s before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between attempts: an outage is over when the broker says so, not a minute later.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The record of one start, in its saga's lane.
fn record(inbox: &Arc<str>, start: Start) -> Outgoing {
    let lane = start.ordinal.lane;
    let message = Message { topic: inbox, lane: lane.0, offset: None, saga: start.saga, about: &"start" };
    let span = context::send_span(&message, &start.trace);
    let headers = context::to_headers(&context::of_span(&span, &start.trace));
    Outgoing { topic: inbox.clone(), lane, payload: InboxEvent::Start(start).encode(), headers }
}

/// The records of many starts.
pub(crate) fn records(inbox: &Arc<str>, entries: Vec<PendingStart>) -> Vec<Outgoing> {
    let _scope = stages::enter(Stage::Encode);
    entries.into_iter().map(|entry| record(inbox, entry.start)).collect()
}

/// Sends once and waits for the acknowledgements.
pub(crate) async fn send(publisher: &Publisher, records: Vec<Outgoing>) -> Result<(), PublishError> {
    publisher.send(records).await?.await
}

/// Sends once, and says whether all of it has arrived.
pub(crate) async fn try_once(publisher: &Publisher, records: Vec<Outgoing>) -> bool {
    let count = records.len();
    let sent = send(publisher, records).await;
    if let Err(error) = &sent {
        events::delivery_failed(count, error);
    }
    sent.is_ok()
}

/// Sends until all is acknowledged. Cancel-safe: what is left is sent by the lane's next owner, or by the sweep. `failed` runs
/// after each attempt that failed.
pub(crate) async fn deliver(publisher: &Publisher, records: Vec<Outgoing>, mut failed: impl FnMut()) {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    while !try_once(publisher, records.clone()).await {
        failed();
        tokio::time::sleep(backoff.pause()).await;
    }
}
