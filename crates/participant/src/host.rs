//! A whole participating service but for its rule and its REST routes: connects, checks, runs the lanes, serves, drains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use event_stream::{Consumer, KafkaArgs, Publisher, TopicSpec};
use groundwork::{Groundwork, Needs};
use proto::quarantine::QUARANTINE;
use redis_txn::{RedisArgs, Store};
use service_kit::admin::{self, Readiness};
use service_kit::http::{self, Limits};
use service_kit::process::{ProcessArgs, delayed};
use tokio_util::sync::CancellationToken;

use crate::business::Business;
use crate::runner::Participant;

/// After SIGTERM the gateway is given this long to notice that this replica drains, before its port closes.
const NOTICE: Duration = Duration::from_millis(1_000);
/// Most REST requests at once on one connection of a gateway.
const MAX_STREAMS: u32 = 4096;
/// Part of the drain deadline of a revoked lane that a lane loop uses; the rest is left to the group.
const LANE_DRAIN_PERCENT: u32 = 75;

/// The settings that every participating service has.
#[derive(Clone, Debug, clap::Args)]
pub struct ParticipantArgs {
    /// What every process has
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Kafka
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store of the service
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Whether batch_init is served: on or off
    #[arg(long, env = "BATCH_INIT", default_value = "on", value_enum, hide_possible_values = true)]
    pub batch_init: BatchInit,
}

/// Whether `batch_init` is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BatchInit {
    /// It is.
    On,
    /// It is answered 403.
    Off,
}

/// What a service is called.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Service and consumer group (`stock-svc`).
    pub service: &'static str,
    /// The participant, as definitions name it (`stock`): its commands travel on `<participant>.commands`.
    pub participant: &'static str,
}

/// Runs the service until `shutdown` is cancelled and it has drained. `rest` makes its routes over the store; what they run
/// besides ends with the token.
pub async fn run<B: Business>(
    names: Names,
    settings: &ParticipantArgs,
    business: B,
    rest: impl FnOnce(Store, CancellationToken) -> Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let instance = settings.process.instance_name();
    let kafka = settings.kafka.settings(names.service, &instance);
    let topics = topics(names, settings.kafka.partitions);
    let [commands, ..] = &topics;
    let needs = Needs {
        service: names.service,
        instance: &instance,
        redis: &settings.redis,
        kafka: &kafka,
        topics: &topics,
        lanes: commands,
    };
    let Some(Groundwork { store, ground, .. }) = groundwork::lay(needs, &shutdown).await? else { return Ok(()) };
    let publisher = Publisher::new(&kafka).context("make the producer")?;
    let drain = kafka.drain_deadline * LANE_DRAIN_PERCENT / 100;
    let runner = Participant::new(names.participant, business, store.clone(), publisher.clone(), drain);
    let consumer = Consumer::start_on(ground, &kafka, names.service, &commands.name, Arc::new(runner))
        .context("join the consumer group")?;
    let host = Host { store, publisher, consumer, shutdown };
    host.serve(names, settings, rest).await
}

/// The first one's lanes are the service's.
fn topics(names: Names, partitions: u32) -> [TopicSpec; 3] {
    let topic = |name: String, log_append_time| TopicSpec { name, partitions, log_append_time };
    let commands = format!("{}.commands", names.participant);
    [topic(commands, false), topic("saga.inbox".to_owned(), true), topic(QUARANTINE.to_owned(), false)]
}

/// The running parts.
#[derive(Clone)]
struct Host {
    store: Store,
    publisher: Publisher,
    consumer: Consumer,
    shutdown: CancellationToken,
}

impl Host {
    async fn serve(
        self,
        names: Names,
        settings: &ParticipantArgs,
        rest: impl FnOnce(Store, CancellationToken) -> Router,
    ) -> anyhow::Result<()> {
        let process = &settings.process;
        let rest_port = http::listen("LISTEN", process.listen)?;
        let admin_port = http::listen("ADMIN_LISTEN", process.admin_listen)?;
        let (rest_address, admin_address) = (rest_port.local_addr()?, admin_port.local_addr()?);
        let drain_deadline = process.drain_deadline();
        let limits = Limits { port: "rest", max_streams: MAX_STREAMS, drain_deadline, ..Limits::default() };
        // The admin port is up to the very end, to watch the drain.
        let ended = CancellationToken::new();
        let ready = self.clone();
        let admin_router = admin::router(Arc::new(move || ready.readiness()));
        let admin_task = tokio::spawn(http::serve(admin_port, admin_router, Limits::default(), ended.clone()));
        let ready = self.clone();
        let internal = admin::internal_ready(Arc::new(move || ready.readiness().ready));
        let router = rest(self.store.clone(), self.shutdown.clone()).merge(internal);
        tracing::info!(service = names.service, rest = %rest_address, admin = %admin_address, "serving");
        let rest_end = delayed(&self.shutdown, NOTICE);
        tokio::join!(http::serve(rest_port, router, limits, rest_end), self.drain_lanes(process.drain_deadline()));
        self.store.shutdown().await;
        ended.cancel();
        let _ = admin_task.await;
        Ok(())
    }

    /// After the signal: gives the lanes up; their answers are acknowledged or will be repeated by the next owner.
    async fn drain_lanes(&self, deadline: Duration) {
        self.shutdown.cancelled().await;
        self.consumer.shutdown(deadline).await;
        self.publisher.flush(deadline).await;
    }

    fn readiness(&self) -> Readiness {
        let lanes = self.consumer.lanes();
        let loaded = lanes.values().filter(|lane| lane.loaded).count();
        let halted: BTreeMap<String, String> = lanes
            .iter()
            .filter_map(|(lane, status)| Some((lane.to_string(), status.halted.as_ref()?.to_string())))
            .collect();
        let (redis, kafka) = (self.store.is_healthy(), self.publisher.is_connected());
        let draining = self.shutdown.is_cancelled();
        let all_loaded = self.consumer.has_joined() && loaded + halted.len() >= lanes.len();
        let details = serde_json::json!({
            "redis": redis,
            "kafka": kafka,
            "draining": draining,
            "lanes": { "owned": lanes.len(), "loaded": loaded, "halted": halted },
        });
        Readiness { ready: redis && kafka && all_loaded && !draining, details }
    }
}
