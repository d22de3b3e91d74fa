//! The client of a fetching thread: it wakes the thread, and tells a line of its log from an empty queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use saga_core::ids::Lane;

use crate::client_log;

#[derive(Default)]
pub(crate) struct FetchContext {
    /// Lines of the client's log so far.
    logged: AtomicU64,
}

impl ClientContext for FetchContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.logged.fetch_add(1, Ordering::Relaxed);
        client_log::line("fetcher", level, facility, text);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error("fetcher", &error, reason);
    }
}

impl ConsumerContext for FetchContext {}

/// What a look into the client's queue gave.
pub(crate) enum Polled<'consumer> {
    Something(KafkaResult<BorrowedMessage<'consumer>>),
    /// A line of the client's log, which lies in the same queue: there may be more behind it.
    LogLine,
    Nothing,
}

/// Takes the next thing from the queue. `BaseConsumer::poll` answers `None` for a line of the log too; taken for an empty
/// queue, it would leave everything behind it lying there, and the client wakes nobody for a queue that was not empty.
pub(crate) fn take(consumer: &BaseConsumer<FetchContext>) -> Polled<'_> {
    let logged = || consumer.context().logged.load(Ordering::Relaxed);
    let before = logged();
    match consumer.poll(Duration::ZERO) {
        Some(polled) => Polled::Something(polled),
        None if logged() != before => Polled::LogLine,
        None => Polled::Nothing,
    }
}

/// A consumer that wakes this thread when it has something.
pub(crate) fn new_consumer(config: &ClientConfig) -> KafkaResult<BaseConsumer<FetchContext>> {
    let mut consumer: BaseConsumer<FetchContext> = config.create_with_context(FetchContext::default())?;
    let thread = std::thread::current();
    consumer.set_nonempty_callback(move || thread.unpark());
    Ok(consumer)
}

pub(crate) fn lane_of(partition: i32) -> Option<Lane> {
    u32::try_from(partition).ok().map(Lane)
}

/// Whether the client does not know where to read on.
pub(crate) fn is_lost_position(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}
