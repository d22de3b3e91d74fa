//! Runs sagas: folds the records of `saga.inbox` and sends what follows from them. One loop per lane; the log is the
//! truth, and a checkpoint in Redis only shortens what has to be folded again.
//!
//! Deliberately not in it: any particular saga. Definitions are data, inputs and outputs are opaque.

pub mod admin;
pub mod ages;
pub mod checkpoint;
pub mod decide;
pub mod definitions;
pub mod emit;
pub mod fold;
pub mod fold_version;
pub mod homes;
mod hop;
pub mod lane_core;
pub mod lane_loop;
mod pass_over;
pub mod poison;
pub mod settings;
pub mod summary;
mod upkeep;
pub mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use event_stream::{Consumer, KafkaSettings, Publisher, TopicSpec};
use groundwork::{Groundwork, Needs};
use proto::quarantine::QUARANTINE;
use redis_txn::Store;
use saga_core::lane::SUPPORTED_FOLD_VERSION;
use service_kit::clock::unix_ms;
use service_kit::http::{Limits, listen, serve};
use telemetry::metrics;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::ages::AGES;
use crate::definitions::Definitions;
use crate::emit::{INBOX, commands_topic};
use crate::homes::Homes;
use crate::lane_loop::{Runner, Shared};
use crate::poison::{Probe, Suspects};
use crate::settings::Settings;
use crate::view::Registry;

/// The consumer group of all orchestrators.
pub const GROUP: &str = "orchestrator";
/// Name of the service in client ids, commit keys and telemetry.
pub const SERVICE: &str = "orchestrator";
/// Share of the drain deadline that a lane may use for its last checkpoint; the rest is for giving it up.
const SETTLE_SHARE: f64 = 0.8;
/// How long the producer may take at the end for what was sent.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// How long leaving the group may take once the lanes have been given up.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at the numbers that `/metrics` shows as gauges.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until `shutdown` is cancelled and the lanes have been given up.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_as(Build::default(), settings, shutdown).await
}

/// What another build of this program would do otherwise.
pub struct Build {
    /// The fold is known up to this version: tests play older and newer programs side by side.
    pub supported_fold_version: u32,
    /// Looks at every record before it is folded: a program with a bug panics.
    pub probe: Option<Probe>,
}

impl Default for Build {
    fn default() -> Self {
        Self { supported_fold_version: SUPPORTED_FOLD_VERSION, probe: None }
    }
}

/// The same as another build: tests and measurements play programs that are older, newer or wrong.
pub async fn run_as(build: Build, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let instance = settings.process.instance_name();
    let definitions = Definitions::load(&settings.definitions_dir, &settings.participants)?;
    let kafka = settings.kafka.settings(SERVICE, &instance);
    let needs = Needs {
        service: SERVICE,
        instance: &instance,
        redis: &settings.redis,
        kafka: &kafka,
        topics: &topics(&settings),
        lanes: &inbox(&settings),
    };
    let Some(Groundwork { store, ground, .. }) = groundwork::lay(needs, &shutdown).await? else { return Ok(()) };
    let listener = listen("ADMIN_LISTEN", settings.process.admin_listen)?;
    let publisher = Publisher::new(&kafka).context("make the producer")?;
    let registry = Registry::default();
    let shared = Shared {
        store: store.clone(),
        publisher: publisher.clone(),
        definitions: Arc::new(definitions),
        registry: registry.clone(),
        epoch: Instant::now(),
        checkpoint_interval: settings.checkpoint_interval(),
        checkpoint_records: settings.checkpoint_records,
        drain_deadline: kafka.drain_deadline.mul_f64(SETTLE_SHARE),
        summaries: settings.summaries(),
        suspects: Suspects::default(),
        homes: Homes::default(),
        supported_fold_version: build.supported_fold_version,
        probe: build.probe,
    };
    let runner = Arc::new(Runner::new(Arc::new(shared)));
    let consumer = Consumer::start_on(ground, &kafka, GROUP, INBOX, runner).context("join the group")?;
    let admin = Admin {
        instance,
        partitions: settings.kafka.partitions,
        supported_fold_version: build.supported_fold_version,
        consumer: consumer.clone(),
        registry: registry.clone(),
        store: store.clone(),
        publisher: publisher.clone(),
        shutdown: shutdown.clone(),
    };
    let ended = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, routes(Arc::new(admin)), Limits::default(), ended.clone()));
    shutdown.run_until_cancelled(show_gauges(&registry)).await;
    drain(&kafka, &consumer, &publisher, &store).await;
    ended.cancel();
    serving.await.context("serve the admin port")
}

fn inbox(settings: &Settings) -> TopicSpec {
    TopicSpec { name: INBOX.to_owned(), partitions: settings.kafka.partitions, log_append_time: true }
}

/// The topics that must be there. Results topics are named by the starts.
fn topics(settings: &Settings) -> Vec<TopicSpec> {
    let partitions = settings.kafka.partitions;
    let commands = settings.participants.iter().map(|participant| TopicSpec {
        name: commands_topic(participant),
        partitions,
        log_append_time: false,
    });
    let quarantine = TopicSpec { name: QUARANTINE.to_owned(), partitions, log_append_time: false };
    [inbox(settings), quarantine].into_iter().chain(commands).collect()
}

fn routes(admin: Arc<Admin>) -> axum::Router {
    let readiness = admin.clone();
    service_kit::admin::router(Arc::new(move || readiness.readiness())).merge(admin::router(admin))
}

/// Never ends.
async fn show_gauges(registry: &Registry) {
    metrics::QUARANTINED.add(0, &[("topic", INBOX)]);
    let mut ticks = tokio::time::interval(GAUGE_INTERVAL);
    loop {
        ticks.tick().await;
        show(registry);
    }
}

fn show(registry: &Registry) {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    metrics::SAGAS_OPEN.set(registry.sum(|numbers| &numbers.open) as f64, &[]);
    metrics::SAGAS_PARKED.set(registry.sum(|numbers| &numbers.parked) as f64, &[]);
    metrics::UNACKNOWLEDGED.set(registry.sum(|numbers| &numbers.unacknowledged) as f64, &[]);
    for (place, age) in AGES.into_iter().enumerate() {
        metrics::SAGAS_OPEN_BY_AGE.set(registry.sum(|numbers| &numbers.ages.open[place]) as f64, &[("age", age)]);
        metrics::SAGAS_ATTENTION.set(registry.sum(|numbers| &numbers.ages.attention[place]) as f64, &[("age", age)]);
    }
    // The start has the broker's time: clocks that disagree must not show an age below zero.
    let age = |since_ms: Option<u64>| seconds(since_ms.map_or(0, |since_ms| unix_ms().saturating_sub(since_ms)));
    metrics::SAGA_OLDEST.set(age(registry.oldest_ms().map(i64::unsigned_abs)), &[]);
    metrics::FLOOR_AGE.set(seconds(registry.max(|numbers| &numbers.ages.floor_ms)), &[]);
    metrics::CHECKPOINT_AGE.set(age(registry.unsaved_since_ms()), &[]);
}

/// Gives all lanes up, each with a last checkpoint, and leaves nothing unsent.
async fn drain(kafka: &KafkaSettings, consumer: &Consumer, publisher: &Publisher, store: &Store) {
    consumer.shutdown(kafka.drain_deadline + LEAVE_DEADLINE).await;
    publisher.flush(FLUSH_DEADLINE).await;
    store.shutdown().await;
}
