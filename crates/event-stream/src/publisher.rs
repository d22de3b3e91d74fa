//! The producer: batches of records in, one receipt each out.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use telemetry::metrics;
use telemetry::stages::{Stage, in_stage};
use tokio::sync::Notify;

use crate::brokers::Brokers;
use crate::client_log;
use crate::error::{PublishError, StreamError};
use crate::record::Outgoing;
use crate::settings::KafkaSettings;
use crate::topics;
use hurry::{Hurry, SMALL_BATCH};

mod hurry;

/// While the queue is full, `send` looks again this often even if no delivery has told it to.
const FULL_QUEUE_LOOK: Duration = Duration::from_millis(20);
/// `flush` looks this often whether all is acknowledged.
const FLUSH_LOOK: Duration = Duration::from_millis(5);
/// How long the question for a topic may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before the next attempt to make a producer, which fails only for lack of threads or memory, and least time from the
/// making of one to the making of the next.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);
/// How often a publisher without a broker looks for one, and how long each look may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Idempotent producer, `acks=all`, bounded; replaced by itself after a fatal error.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// Resolves when every record of one `send` is acknowledged, or says that at least one outcome is unknown.
pub struct Receipt {
    state: Arc<ReceiptState>,
}

struct Shared {
    settings: KafkaSettings,
    current: RwLock<Arc<Generation>>,
    generations: AtomicU64,
    connected: AtomicBool,
    probing: AtomicBool,
    /// `None` where nothing lingers.
    hurry: Option<Hurry>,
}

/// One producer, from its making to a fatal error.
struct Generation {
    number: u64,
    news: Arc<News>,
    brokers: Brokers,
    /// `None` only while it is dropped.
    producer: Option<ThreadedProducer<DeliveryContext>>,
}

/// What the producer's callbacks tell those who send.
#[derive(Default)]
struct News {
    broken: AtomicBool,
    waiting_for_room: AtomicUsize,
    room: Notify,
}

struct DeliveryContext {
    number: u64,
    made: Instant,
    news: Arc<News>,
    shared: Weak<Shared>,
}

/// Counts the deliveries that are still open; the last one wakes the receipt.
struct ReceiptState {
    open: AtomicUsize,
    failure: OnceLock<String>,
    waker: AtomicWaker,
}

impl Publisher {
    /// Makes the producer; does not wait for a broker.
    pub fn new(settings: &KafkaSettings) -> Result<Self, StreamError> {
        settings.check()?;
        let mut failed = None;
        let shared = Arc::new_cyclic(|weak| {
            let first = Generation::new(settings, 0, weak.clone());
            let current = first.unwrap_or_else(|error| {
                failed = Some(error);
                Generation { number: 0, news: Arc::default(), brokers: Brokers::new(&settings.brokers), producer: None }
            });
            Shared {
                settings: settings.clone(),
                current: RwLock::new(Arc::new(current)),
                generations: AtomicU64::new(1),
                connected: AtomicBool::new(false),
                probing: AtomicBool::new(false),
                hurry: (settings.linger_ms > 0.0).then(|| hurry(weak.clone())).flatten(),
            }
        });
        match failed {
            Some(error) => Err(StreamError::kafka("make the producer", error)),
            None => {
                shared.probe();
                Ok(Self { shared })
            }
        }
    }

    /// Puts the records into the producer's queue in order, waiting while it is full (back-pressure), and returns
    /// the receipt for all of them.
    ///
    /// On `Err` the records before the one that was refused are on their way: the outcome is unknown.
    pub async fn send(&self, records: Vec<Outgoing>) -> Result<Receipt, PublishError> {
        in_stage(Stage::Produce, pin!(self.put(records))).await
    }

    async fn put(&self, records: Vec<Outgoing>) -> Result<Receipt, PublishError> {
        let generation = self.shared.current();
        generation.brokers.keep(generation.producer().client());
        let state = Arc::new(ReceiptState::new(records.len()));
        for record in &records {
            generation.put(record, &state).await.inspect_err(|_| {
                metrics::PUBLISH_FAILURES.add(1, &[]);
            })?;
        }
        for of_topic in records.chunk_by(|one, next| one.topic == next.topic) {
            metrics::PUBLISHED.add(of_topic.len() as u64, &[("topic", &of_topic[0].topic)]);
        }
        if let Some(hurry) = &self.shared.hurry
            && records.len() <= SMALL_BATCH
        {
            hurry.up();
        }
        Ok(Receipt { state })
    }

    /// How many partitions the topic has; `None` if there is no such topic. Asks a broker.
    pub async fn partitions(&self, topic: &str) -> Result<Option<u32>, StreamError> {
        let (generation, topic) = (self.shared.current(), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            if !topics::is_legal_name(&topic) {
                return Ok(None);
            }
            topics::found(generation.producer().client(), &topic, ANSWER_DEADLINE)
        });
        let found = asked.await.unwrap_or_else(|error| Err(StreamError::kafka("look for a topic", error)))?;
        Ok(found.map(|found| u32::try_from(found.partitions).unwrap_or(u32::MAX)))
    }

    /// Whether a broker connection is up (readiness).
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Waits until everything is acknowledged or the deadline has passed.
    pub async fn flush(&self, deadline: Duration) {
        let generation = self.shared.current();
        let end = Instant::now() + deadline;
        while generation.producer().in_flight_count() > 0 && Instant::now() < end {
            tokio::time::sleep(FLUSH_LOOK).await;
        }
    }
}

/// Without the thread small batches linger like others.
fn hurry(shared: Weak<Shared>) -> Option<Hurry> {
    let flush = move || {
        if let Some(shared) = shared.upgrade() {
            hurry::flush(shared.current().producer().client());
        }
    };
    let failed =
        |error: &std::io::Error| tracing::error!(%error, "the thread that hurries a producer cannot be started");
    Hurry::start(flush).inspect_err(failed).ok()
}

impl Future for Receipt {
    type Output = Result<(), PublishError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.waker.register(context.waker());
        if self.state.open.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        Poll::Ready(match self.state.failure.get() {
            Some(failure) => Err(PublishError(failure.clone())),
            None => Ok(()),
        })
    }
}

impl ReceiptState {
    fn new(records: usize) -> Self {
        Self { open: AtomicUsize::new(records), failure: OnceLock::new(), waker: AtomicWaker::new() }
    }

    fn settle(&self, failure: Option<String>) {
        if let Some(failure) = failure {
            // Only the first reason is kept.
            let _ = self.failure.set(failure);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.waker.wake();
        }
    }
}

impl Generation {
    fn new(settings: &KafkaSettings, number: u64, shared: Weak<Shared>) -> Result<Self, KafkaError> {
        let news = Arc::new(News::default());
        let context = DeliveryContext { number, made: Instant::now(), news: Arc::clone(&news), shared };
        let producer = settings.producer().create_with_context(context)?;
        Ok(Self { number, news, brokers: Brokers::new(&settings.brokers), producer: Some(producer) })
    }

    fn producer(&self) -> &ThreadedProducer<DeliveryContext> {
        self.producer.as_ref().expect("a generation has its producer until it is dropped")
    }

    /// Puts one record into the queue, waiting for room.
    async fn put(&self, record: &Outgoing, state: &Arc<ReceiptState>) -> Result<(), PublishError> {
        loop {
            match self.try_put(record, state) {
                Ok(()) => return Ok(()),
                Err(error) if self.news.broken.load(Ordering::Acquire) => return Err(PublishError(error.to_string())),
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    metrics::PUBLISH_QUEUE_FULL.add(1, &[]);
                    self.news.waiting_for_room.fetch_add(1, Ordering::Relaxed);
                    let _ = tokio::time::timeout(FULL_QUEUE_LOOK, self.news.room.notified()).await;
                    self.news.waiting_for_room.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error) => return Err(PublishError(error.to_string())),
            }
        }
    }

    fn try_put(&self, record: &Outgoing, state: &Arc<ReceiptState>) -> Result<(), KafkaError> {
        let mut kafka: BaseRecord<'_, (), [u8], Arc<ReceiptState>> =
            BaseRecord::with_opaque_to(&record.topic, Arc::clone(state))
                .partition(record.lane.0.cast_signed())
                .payload(&record.payload);
        if let Some(headers) = record.kafka_headers() {
            kafka = kafka.headers(headers);
        }
        self.producer().send(kafka).map_err(|(error, _)| error)
    }
}

impl Drop for Generation {
    /// The client's drop waits for its thread and settles what is in flight as failed: not on a runtime thread.
    fn drop(&mut self) {
        let Some(producer) = self.producer.take() else { return };
        let spawned = std::thread::Builder::new().name("drop-producer".into()).spawn(move || drop(producer));
        if let Err(error) = spawned {
            tracing::error!(%error, "the thread that drops a producer cannot be started");
        }
    }
}

impl Shared {
    fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().expect("no code panics while it holds the producer"))
    }

    /// Makes a new producer in the place of a broken one; with the old one go all its open receipts.
    fn replace(self: &Arc<Self>, broken: &News) -> Result<(), KafkaError> {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let new = Arc::new(Generation::new(&self.settings, number, Arc::downgrade(self))?);
        let old =
            std::mem::replace(&mut *self.current.write().expect("no code panics while it holds the producer"), new);
        broken.room.notify_waiters();
        drop(old);
        Ok(())
    }

    /// Starts to look for a broker, unless somebody does.
    fn probe(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::SeqCst) {
            return;
        }
        let weak = Arc::downgrade(self);
        let looking = move || {
            while let Some(shared) = weak.upgrade() {
                let generation = shared.current();
                generation.brokers.keep(generation.producer().client());
                if generation.producer().client().fetch_metadata(None, PROBE_INTERVAL).is_ok()
                    && !shared.connected.swap(true, Ordering::SeqCst)
                {
                    metrics::KAFKA_CONNECTED.set(1.0, &[]);
                    tracing::info!("a broker answers");
                }
                if shared.connected.load(Ordering::SeqCst) {
                    shared.probing.store(false, Ordering::SeqCst);
                    // Who lost the broker a moment ago took this thread for one that goes on looking.
                    if shared.connected.load(Ordering::SeqCst) || shared.probing.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
                drop((generation, shared));
                std::thread::sleep(PROBE_INTERVAL);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("probe-kafka".into()).spawn(looking) {
            tracing::error!(%error, "the thread that looks for a broker cannot be started");
        }
    }

    fn disconnected(self: &Arc<Self>) {
        if self.connected.swap(false, Ordering::SeqCst) {
            metrics::KAFKA_CONNECTED.set(0.0, &[]);
            tracing::warn!("no broker can be reached");
        }
        self.probe();
    }
}

impl DeliveryContext {
    /// A fatal error ends the producer. It arrives under the code of its cause, so the client has to be asked. This runs
    /// on the producer's own polling thread, which cannot end itself.
    fn check_broken(&self, shared: &Arc<Shared>) {
        let generation = shared.current();
        if generation.number != self.number {
            return;
        }
        let Some((_, reason)) = generation.producer().client().fatal_error() else { return };
        if self.news.broken.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(reason, "the producer met a fatal error and is made anew");
        metrics::PUBLISHER_REPLACED.add(1, &[]);
        let (news, shared) = (Arc::clone(&self.news), Arc::downgrade(shared));
        // A producer that breaks as soon as it is made (it is not allowed to write) is not made as fast as the broker refuses.
        let pause = REPLACE_PAUSE.saturating_sub(self.made.elapsed());
        let replacing = move || {
            std::thread::sleep(pause);
            while let Some(shared) = shared.upgrade()
                && let Err(error) = shared.replace(&news)
            {
                tracing::error!(%error, "the producer cannot be made anew");
                drop(shared);
                std::thread::sleep(REPLACE_PAUSE);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("replace-producer".into()).spawn(replacing) {
            tracing::error!(%error, "the thread that makes a producer cannot be started");
        }
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line("producer", level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error("producer", &error, reason);
        let Some(shared) = self.shared.upgrade() else { return };
        self.check_broken(&shared);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            shared.disconnected();
        }
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Arc<ReceiptState>;

    fn delivery(&self, outcome: &DeliveryResult<'_>, state: Arc<ReceiptState>) {
        match outcome {
            Ok(_) => state.settle(None),
            Err((error, _)) => {
                metrics::PUBLISH_FAILURES.add(1, &[]);
                if let Some(shared) = self.shared.upgrade() {
                    self.check_broken(&shared);
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) {
                        shared.disconnected();
                    }
                }
                state.settle(Some(error.to_string()));
            }
        }
        if self.news.waiting_for_room.load(Ordering::Relaxed) > 0 {
            self.news.room.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
