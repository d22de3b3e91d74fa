//! Keeps orders and checks them out: the shop's starter of sagas.
//!
//! [`decide`] is the order's state machine, [`starting`] the shop's half of the starter; [`rest`] and [`checkout`] are
//! the doors, [`poll`] the fall-back for requests whose answer comes home elsewhere.
//!
//! Deliberately not in it: how sagas run, and any other service's data.

pub mod answer;
pub mod batch;
pub mod checkout;
pub mod decide;
pub mod edit;
pub mod order;
pub mod poll;
pub mod readiness;
pub mod rest;
pub mod settings;
pub mod starting;
pub mod stock_client;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_stream::{Consumer, Publisher, TopicSpec};
use groundwork::{Groundwork, Needs};
use proto::quarantine::QUARANTINE;
use redis_txn::Store;
use rest_kit::idempotency::IdempotencyKeys;
use service_kit::process::delayed;
use service_kit::upstream::{UpstreamClient, Upstreams};
use service_kit::{admin, http};
use starter::Starter;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::checkout::Checkout;
use crate::poll::Poller;
use crate::rest::Shop;
pub use crate::settings::Settings;
use crate::starting::{Checkouts, Probe};

/// The service's name: client id, consumer group.
pub const SERVICE: &str = "order-svc";

/// The name in ordinals; results travel on `order.results`.
const STARTER: &str = "order";

/// Everything that can change a saga.
const INBOX_TOPIC: &str = "saga.inbox";

/// How our sagas ended.
const RESULTS_TOPIC: &str = "order.results";

/// After SIGTERM, how long this replica still takes requests while it says "not me": gateways look twice a second.
const LEAVE_PAUSE: Duration = Duration::from_millis(1_200);

/// Kept of a drain to tell those who wait that it is not decided.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long each part of the drain may take once no request is open.
const PART_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the service until `shutdown` is cancelled and what was taken is done.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_as(Build::default(), settings, shutdown).await
}

/// What another build of this program would do otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Build {
    /// Looks at every result before it is applied: a program with a bug panics.
    pub probe: Option<Probe>,
}

/// The same as another build: a measurement plays a program that is wrong.
pub async fn run_as(build: Build, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let instance = settings.process.instance_name();
    let upstreams = Upstreams::new("stock", &settings.stock_upstreams)?;
    let kafka = settings.kafka.settings(SERVICE, &instance);
    let topics = topics(settings.kafka.partitions);
    let [results, ..] = &topics;
    let needs = Needs {
        service: SERVICE,
        instance: &instance,
        redis: &settings.redis,
        kafka: &kafka,
        topics: &topics,
        lanes: results,
    };
    let Some(Groundwork { store, store_id, ground }) = groundwork::lay(needs, &shutdown).await? else { return Ok(()) };
    let publisher = Publisher::new(&kafka)?;
    let starter = starter(build, &settings, &store, store_id, &publisher);
    let consumer = Consumer::start_on(ground, &kafka, SERVICE, RESULTS_TOPIC, starter.runner())?;
    let parts = readiness::Parts {
        store: store.clone(),
        publisher: publisher.clone(),
        consumer: consumer.clone(),
        shutdown: shutdown.clone(),
    };
    upstreams.spawn_probe(shutdown.clone());
    let shop = Shop {
        requests: store.rest_queue(),
        checkout: Checkout {
            starter: starter.clone(),
            poller: Poller::start(store.clone()),
            wait: Duration::from_millis(settings.checkout_wait_ms),
            drain_ends: delayed(&shutdown, LEAVE_PAUSE + rest_drain(&settings).saturating_sub(LAST_ANSWERS)),
        },
        stock: stock_client::StockClient { upstreams, client: UpstreamClient::new() },
        batch_init: settings.batch_init,
        store: store.clone(),
    };
    serve(&settings, shop, parts, &shutdown).await?;

    starter.shutdown(PART_DEADLINE).await;
    consumer.shutdown(PART_DEADLINE).await;
    publisher.flush(PART_DEADLINE).await;
    store.shutdown().await;
    Ok(())
}

/// The first one's lanes are the service's.
fn topics(partitions: u32) -> [TopicSpec; 3] {
    let topic = |name: &str, log_append_time| TopicSpec { name: name.to_owned(), partitions, log_append_time };
    [topic(RESULTS_TOPIC, false), topic(INBOX_TOPIC, true), topic(QUARANTINE, false)]
}

fn starter(
    build: Build,
    settings: &Settings,
    store: &Store,
    store_id: Uuid,
    publisher: &Publisher,
) -> Starter<Checkouts> {
    let names = starter::Settings {
        name: STARTER.to_owned(),
        inbox_topic: INBOX_TOPIC.to_owned(),
        results_topic: RESULTS_TOPIC.to_owned(),
        max_waiters: settings.max_waiters,
        placement: settings.placement,
    };
    let (definition, inputs) = (settings.checkout_definition.clone(), settings.checkout_inputs.clone());
    let business = Checkouts { definition, inputs, probe: build.probe };
    Starter::new(names, Arc::new(business), store.clone(), store_id, publisher.clone())
}

/// Serves both ports until no request is open after `shutdown`.
async fn serve(
    settings: &Settings,
    shop: Shop,
    parts: readiness::Parts,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = http::listen("LISTEN", settings.process.listen)?;
    let admin_listener = http::listen("ADMIN_LISTEN", settings.process.admin_listen)?;
    tracing::info!(rest = %listener.local_addr()?, admin = %admin_listener.local_addr()?, "listening");

    let wants_requests = parts.clone();
    let keys = IdempotencyKeys::start(shop.store.clone(), shutdown.clone());
    let router =
        rest::router(Arc::new(shop), keys).merge(admin::internal_ready(Arc::new(move || wants_requests.look().ready)));
    let limits = http::Limits {
        port: "rest",
        // Everybody who may wait, and as many who come and go.
        max_connections: settings.max_waiters.saturating_mul(2),
        max_streams: u32::try_from(settings.max_waiters.saturating_mul(2)).unwrap_or(u32::MAX),
        drain_deadline: rest_drain(settings),
        ..http::Limits::default()
    };
    // The admin port outlives the REST port, so that a drain can be watched.
    let admin_shutdown = CancellationToken::new();
    let admin_router = admin::router(parts.probe());
    let admin =
        tokio::spawn(http::serve(admin_listener, admin_router, http::Limits::default(), admin_shutdown.clone()));
    http::serve(listener, router, limits, delayed(shutdown, LEAVE_PAUSE)).await;
    admin_shutdown.cancel();
    admin.await.context("serve the admin port")
}

/// How long open requests have in a drain; the rest of the process's time is for what comes after the last of them.
fn rest_drain(settings: &Settings) -> Duration {
    settings.process.drain_deadline() * 2 / 3
}
