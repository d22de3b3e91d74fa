//! What happens here: one function per event, which writes the log line and counts.

use std::fmt::Display;
use std::time::Duration;

use redis_txn::CommitError;
use saga_core::ids::{Lane, SagaId};
use saga_core::record::SagaResult;
use telemetry::context;
use telemetry::logs::Throttle;
use telemetry::metrics::{
    STARTER_ALARMS, STARTER_DELIVERY_FAILED, STARTER_FENCED, STARTER_IGNORED, STARTER_PENDING, STARTER_PENDING_OLDEST,
    STARTER_REQUESTS, STARTER_RESENT, STARTER_RESULTS, STARTER_STAGE_SECONDS, STARTER_UNDO_NOTICES,
    STARTER_WINDOW_SIZE,
};
use tracing::{debug, error, info, warn};

use crate::apply::{Ignored, News};

/// A store that is away makes window after window fail: said this often.
static WINDOW_FAILED: Throttle = Throttle::new(Duration::from_secs(1));
/// The same for a broker that is away.
static DELIVERY_FAILED: Throttle = Throttle::new(Duration::from_secs(10));

/// What is pending now.
pub(crate) fn pending(count: usize, oldest: Duration) {
    STARTER_PENDING.set(count as f64, &[]);
    STARTER_PENDING_OLDEST.set(oldest.as_secs_f64(), &[]);
}

/// A window goes into its transaction.
pub(crate) fn window_closed(members: usize) {
    STARTER_WINDOW_SIZE.record(members as f64, &[]);
}

/// The EXEC of a window is known to have happened.
pub(crate) fn window_committed(lane: Lane, counts: [usize; 4], took: Duration) {
    let [started, joined, answered, abandoned] = counts;
    debug!(lane = lane.0, started, joined, answered, abandoned, "window committed");
    for (count, fate) in counts.into_iter().zip(["started", "joined", "answered", "abandoned"]) {
        if count > 0 {
            STARTER_REQUESTS.add(count as u64, &[("fate", fate)]);
        }
    }
    STARTER_STAGE_SECONDS.record(took.as_secs_f64(), &[("stage", "commit")]);
}

/// The starts of a window are in the inbox.
pub(crate) fn window_delivered(took: Duration) {
    STARTER_STAGE_SECONDS.record(took.as_secs_f64(), &[("stage", "publish")]);
}

/// A window has no outcome: its members are told.
pub(crate) fn window_failed(members: usize, error: &dyn Display) {
    if let Some(held_back) = WINDOW_FAILED.admit() {
        warn!(members, %error, held_back, "window failed");
    }
    STARTER_REQUESTS.add(members as u64, &[("fate", "failed")]);
}

/// Requests were refused before anything was read.
pub(crate) fn shed() {
    STARTER_REQUESTS.add(1, &[("fate", "shed")]);
}

/// A delivery has to be repeated.
pub(crate) fn delivery_failed(records: usize, error: &dyn Display) {
    if let Some(held_back) = DELIVERY_FAILED.admit() {
        warn!(records, %error, held_back, "delivery of starts failed, they are sent again");
    }
    STARTER_DELIVERY_FAILED.add(1, &[]);
}

/// Why starts were sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Occasion {
    Takeover,
    Sweep,
}

/// Pending starts were sent again from the store.
pub(crate) fn resent(lane: Lane, count: usize, occasion: Occasion) {
    let occasion = match occasion {
        Occasion::Takeover => "takeover",
        Occasion::Sweep => "sweep",
    };
    info!(lane = lane.0, count, occasion, "pending starts sent again");
    STARTER_RESENT.add(count as u64, &[("occasion", occasion)]);
}

/// A result has been applied; `took` is the time since its saga became pending, if that was here.
pub(crate) fn result_applied(result: &SagaResult, took: Option<Duration>) {
    let outcome = context::outcome_word(&result.outcome);
    debug!(saga.id = %result.saga, outcome, "result applied");
    STARTER_RESULTS.add(1, &[("outcome", outcome)]);
    if let Some(took) = took {
        STARTER_STAGE_SECONDS.record(took.as_secs_f64(), &[("stage", "saga")]);
    }
}

/// The subject shows that its saga is being undone.
pub(crate) fn undo_noted(saga: SagaId) {
    debug!(saga.id = %saga, "the saga is being undone, and that takes a while");
    STARTER_UNDO_NOTICES.add(1, &[]);
}

/// A record of the results topic changed nothing.
pub(crate) fn result_ignored(news: &News, why: Ignored) {
    let (saga, ordinal) = (news.saga(), news.ordinal());
    STARTER_IGNORED.add(1, &[("reason", why.word())]);
    if why.is_alarm() {
        error!(saga.id = %saga, ?ordinal, alarm = why.word(), "impossible result ignored");
        STARTER_ALARMS.add(1, &[("alarm", why.word())]);
    } else {
        debug!(saga.id = %saga, reason = why.word(), "result ignored");
    }
}

/// A record of the results topic is no result; the position moves past it.
pub(crate) fn result_malformed(lane: Lane, offset: i64, error: &dyn Display) {
    error!(lane = lane.0, offset, %error, "malformed result skipped");
    STARTER_ALARMS.add(1, &[("alarm", "malformed-result")]);
}

/// One of these results makes the code panic: they are applied one by one.
pub(crate) fn batch_panicked(lane: Lane, first: i64, records: usize, why: &str) {
    error!(lane = lane.0, first, records, why, "a batch of results panics");
}

/// One of the requests of a window panics or needs what cannot be read; nothing was written, and it is run again in halves.
pub(crate) fn window_halved(lane: Lane, members: usize, error: &CommitError) {
    error!(lane = lane.0, members, %error, "a window of starts is run again in halves");
}

/// A result makes the code panic, again and again; the position moves past it, its saga stays pending.
pub(crate) fn result_poison(lane: Lane, offset: i64, why: &str) {
    error!(lane = lane.0, offset, alarm = "poison", why, "result set aside");
    STARTER_ALARMS.add(1, &[("alarm", "poison")]);
}

/// Somebody else has moved the lane on.
pub(crate) fn fenced(lane: Lane, expected: i64, found: i64) {
    warn!(lane = lane.0, expected, found, "fenced");
    STARTER_FENCED.add(1, &[]);
}
