//! A collector that does not listen costs the services their telemetry and nothing else: checkouts are answered as ever,
//! what nobody takes is dropped and counted, and the drain without a collector ends in time.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/wait.rs"]
mod wait;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use otlp_sink::Silent;
use stack::{Http, Shop, Stack};
use tokio::runtime::Runtime;
use wait::until;

/// Checkouts of one scenario: with some forty spans each, many times what may wait.
const CHECKOUTS: usize = 60;
/// Spans and lines that may wait, so that the queues of every service are full after a few checkouts.
const MAX_QUEUED: &str = "64";
/// A checkout takes some milliseconds; one that waited for an export (10 s) would be far above.
const AT_ONCE: Duration = Duration::from_secs(5);
/// An export that nobody answers has failed within this time.
const COUNTED: Duration = Duration::from_secs(40);
/// The services' drain without open requests.
const DRAINED: Duration = Duration::from_secs(25);

struct World {
    shop: Shop,
    stack: Stack,
    admin: Vec<String>,
    /// The collector lives on it and goes with it.
    collector: Mutex<Option<Runtime>>,
}

fn main() -> ExitCode {
    let collector = Runtime::new().expect("a runtime");
    let (_, endpoint) = collector.block_on(Silent::start());
    common::run(
        |options| {
            for (name, value) in [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", MAX_QUEUED),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", MAX_QUEUED),
                ("OTEL_BLRP_MAX_QUEUE_SIZE", MAX_QUEUED),
                ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", MAX_QUEUED),
                ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
            ] {
                options.envs.push((name.to_owned(), value.to_owned()));
            }
        },
        |stack| World {
            shop: Shop::new(stack.gateway_url()),
            admin: stack.processes().into_iter().filter_map(|process| process.admin_address).collect(),
            stack,
            collector: Mutex::new(Some(collector)),
        },
        async |world: World| {
            let begin = Instant::now();
            let killed = world.stack.stop().await?;
            ensure!(killed.is_empty(), "they waited for their telemetry until they were killed: {killed:?}");
            ensure!(begin.elapsed() < DRAINED, "the drain took {:?}", begin.elapsed());
            Ok(())
        },
        vec![
            scenario!(checkouts_are_answered_while_the_collector_never_answers),
            scenario!(checkouts_are_answered_when_the_collector_is_gone),
        ],
    )
}

async fn checkouts_are_answered_while_the_collector_never_answers(world: Arc<World>) -> anyhow::Result<()> {
    world.check_out().await?;
    world.counted("dropped").await
}

async fn checkouts_are_answered_when_the_collector_is_gone(world: Arc<World>) -> anyhow::Result<()> {
    let collector = world.collector.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Its port closes, and with it every connection.
    collector.into_iter().for_each(Runtime::shutdown_background);
    world.counted("failed").await?;
    world.check_out().await
}

impl World {
    /// Half of the checkouts are paid, half are refused for want of credit; all of them at once.
    async fn check_out(&self) -> anyhow::Result<()> {
        let item = self.shop.create_item(1, CHECKOUTS as u64).await?;
        try_join_all((0..CHECKOUTS).map(async |n| {
            let (credit, status) = if n % 2 == 0 { (5, 200) } else { (0, 402) };
            let user = self.shop.create_user(credit).await?;
            let order = self.shop.create_order(&user, &[(&item, 1)]).await?;
            let begin = Instant::now();
            let answer = self.shop.checkout(&order).await?;
            ensure!(answer.status == status, "{} instead of {status}: {}", answer.status, answer.text());
            ensure!(begin.elapsed() < AT_ONCE, "it took {:?}", begin.elapsed());
            Ok(())
        }))
        .await?;
        ensure!(self.shop.find_item(&item).await?.stock == CHECKOUTS as u64 / 2);
        Ok(())
    }

    /// Every service says that spans have met this fate.
    async fn counted(&self, fate: &str) -> anyhow::Result<()> {
        let series = format!("saga_telemetry_items_total{{fate=\"{fate}\",signal=\"traces\"}} ");
        for admin in &self.admin {
            until(&format!("{admin} counts spans that were {fate}"), COUNTED, async || {
                let metrics = Http::default().get(&format!("http://{admin}/metrics")).await.ok()?.text();
                let count = metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok())?;
                (count > 0.0).then_some(())
            })
            .await?;
        }
        Ok(())
    }
}
