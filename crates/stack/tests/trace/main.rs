//! One checkout is one connected trace through all services, also when it is undone, times out or is interrupted; its log
//! lines name it, and nothing that is exported holds a secret. The collector is inside the test.

#[path = "../common/mod.rs"]
mod common;
mod raw;
mod secrets;
mod tree;
#[path = "../common/wait.rs"]
mod wait;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use otlp_sink::{Link, Sink, Span, SpanKind};
use stack::{Answer, Progress, Shop, Stack};
use tokio::sync::Mutex;
use tree::Tree;
use wait::until;

/// Spans are exported within this time after they have ended.
const EXPORTED: Duration = Duration::from_secs(20);
/// A saga that was interrupted is decided within this time.
const SETTLE: Duration = Duration::from_secs(40);
/// In log time; what an interrupted saga takes at least, for the group must notice first.
const SLOW_SAGA_MS: &str = "1000";

struct World {
    shop: Shop,
    stack: Mutex<Stack>,
    sink: Sink,
}

fn main() -> ExitCode {
    let (sink, endpoint) = Sink::start_thread();
    common::run(
        |options| {
            options.definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trace/definitions").into();
            let own_debug_lines = "info,gateway=debug,order_svc=debug,orchestrator=debug,stock_svc=debug,payment_svc=debug,\
                                   starter=debug,participant=debug,redis_txn=debug,service_kit=debug";
            for (name, value) in [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_HEADERS", secrets::COLLECTOR_HEADER),
                ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
                ("OTEL_BSP_SCHEDULE_DELAY", "200"),
                ("OTEL_BLRP_SCHEDULE_DELAY", "200"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
                ("SLOW_SAGA_MS", SLOW_SAGA_MS),
                ("LOG_FORMAT", "json"),
                ("RUST_LOG", own_debug_lines),
            ] {
                options.envs.push((name.to_owned(), value.to_owned()));
            }
        },
        |stack| World { shop: Shop::new(stack.gateway_url()), stack: Mutex::new(stack), sink },
        async |world: World| world.stack.into_inner().stop().await.map(drop),
        vec![
            scenario!(paid_checkout_is_one_connected_trace),
            scenario!(refused_checkout_is_one_connected_trace_and_summarised),
            scenario!(unrecorded_refusal_is_found_by_its_summary),
            scenario!(answer_from_the_record_of_a_key_is_in_the_trace_of_its_request),
            scenario!(checkout_survives_the_kill_of_a_participant_in_one_trace),
            scenario!(checkout_survives_the_kill_of_the_orchestrator_in_one_trace),
            scenario!(checkout_that_times_out_is_one_connected_trace),
            scenario!(secrets::nothing_exported_holds_a_secret),
        ],
    )
}

async fn paid_checkout_is_one_connected_trace(world: Arc<World>) -> anyhow::Result<()> {
    let order = order_of_one(&world, 5).await?;
    ensure!(world.shop.checkout(&order).await?.status == 200);
    // Start, two commands, two replies, result: each is produced once and consumed once.
    let hops = [("saga.inbox", 3), ("stock.commands", 1), ("payment.commands", 1), ("order.results", 1)];
    // A window, a chunk each, the result; the orchestrator's checkpoint may or may not see the saga open.
    whole_trace(&world, &order, &hops, 4).await
}

async fn refused_checkout_is_one_connected_trace_and_summarised(world: Arc<World>) -> anyhow::Result<()> {
    let order = order_of_one(&world, 0).await?;
    ensure!(world.shop.checkout(&order).await?.status == 402);
    // Two undos and their replies more; payment has refused, and its undo is asked for all the same.
    let hops = [("saga.inbox", 5), ("stock.commands", 2), ("payment.commands", 2), ("order.results", 1)];
    whole_trace(&world, &order, &hops, 6).await?;
    let saga = saga_of(&world, &order).await?;
    let summary = summary_of(&world, &saga, "refused").await?;
    let trace = &Tree::of_saga(&world.sink.spans(), &saga).context("the trace")?.spans[0].trace.clone();
    ensure!(summary.links.iter().all(|link| link.trace == *trace) && summary.links.len() == 1, "{summary:?}");
    ensure!(summary.attributes["saga.reason"] == "insufficient-credit", "{summary:?}");
    Ok(())
}

async fn unrecorded_refusal_is_found_by_its_summary(world: Arc<World>) -> anyhow::Result<()> {
    let order = order_of_one(&world, 0).await?;
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traceparent = ("traceparent", format!("00-{trace}-{parent}-00"));
    let path = format!("/orders/checkout/{order}");
    let status = raw::post(world.gateway_address().await, &path, &[traceparent], "").await?;
    ensure!(status == 402, "{status}");
    let saga = saga_of(&world, &order).await?;
    let summary = summary_of(&world, &saga, "refused").await?;
    ensure!(summary.links == [Link { trace: trace.to_owned(), id: parent.to_owned() }], "{summary:?}");
    let spans = world.sink.spans();
    ensure!(Tree::of_trace(&spans, trace).spans.is_empty(), "the caller said that nothing is to be recorded");
    Ok(())
}

/// The second request with a key is answered without its handler.
async fn answer_from_the_record_of_a_key_is_in_the_trace_of_its_request(world: Arc<World>) -> anyhow::Result<()> {
    let order = order_of_one(&world, 0).await?;
    let path = format!("/orders/checkout/{order}");
    let traces = ["4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736"];
    for trace in traces {
        let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
        let headers = [("traceparent", traceparent), ("idempotency-key", order.clone())];
        let status = raw::post(world.gateway_address().await, &path, &headers, "").await?;
        ensure!(status == 402, "{status}");
    }
    until("the spans of the second request have arrived", EXPORTED, async || {
        let spans = world.sink.spans();
        let tree = Tree::of_trace(&spans, traces[1]);
        let services: Vec<_> = tree.spans.iter().map(|span| (span.service.as_str(), span.kind)).collect();
        let has = |service, kind| services.contains(&(service, kind));
        let is_whole = has("gateway", SpanKind::Server) && has("gateway", SpanKind::Client);
        (is_whole && has("order-svc", SpanKind::Server) && tree.count("send saga.inbox") == 0).then_some(())
    })
    .await
}

/// stock-svc is stopped, so that the saga stands in the middle, killed and started again.
async fn checkout_survives_the_kill_of_a_participant_in_one_trace(world: Arc<World>) -> anyhow::Result<()> {
    interrupted(&world, async || {
        let mut stack = world.stack.lock().await;
        stack.kill("stock-svc-1")?;
        stack.restart("stock-svc-1")
    })
    .await
}

/// The orchestrator is killed while the saga waits for stock-svc; its successor folds the log again and asks again.
async fn checkout_survives_the_kill_of_the_orchestrator_in_one_trace(world: Arc<World>) -> anyhow::Result<()> {
    interrupted(&world, async || {
        let mut stack = world.stack.lock().await;
        stack.kill("orchestrator-1")?;
        stack.resume("stock-svc-1")?;
        stack.restart("orchestrator-1")
    })
    .await
}

/// A checkout stands before stock-svc when `strike` comes; afterwards it is decided, as one connected trace.
async fn interrupted(world: &World, strike: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let order = order_of_one(world, 5).await?;
    world.stack.lock().await.pause("stock-svc-1")?;
    let striking = async {
        let saga = until("the checkout has begun", SETTLE, async || saga_of(world, &order).await.ok()).await?;
        // A process takes what it has not exported into its grave: so much has been exported.
        until("the command is on its way", EXPORTED, async || {
            let spans = world.sink.spans();
            (Tree::of_saga(&spans, &saga)?.count("send stock.commands") > 0).then_some(())
        })
        .await?;
        strike().await?;
        anyhow::Ok(saga)
    };
    let (answer, saga) = tokio::join!(world.shop.checkout(&order), striking);
    let (answer, saga) = (answer?, saga?);
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    connected(world, &saga, |tree| tree.count("process order.results") > 0).await?;
    summary_of(world, &saga, "completed").await.map(drop)
}

async fn checkout_that_times_out_is_one_connected_trace(world: Arc<World>) -> anyhow::Result<()> {
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let order = order_of_one(&world, 5).await?;
    world.stack.lock().await.pause("payment-svc-1")?;
    let resuming = async {
        let saga = until("the checkout has begun", SETTLE, async || saga_of(&world, &order).await.ok()).await?;
        until("the saga is being undone", SETTLE, async || {
            let spans = world.sink.spans();
            // The deadline's timer is the last of three; after it the undos go out.
            (Tree::of_saga(&spans, &saga)?.count("fold timer") >= 3).then_some(())
        })
        .await?;
        world.stack.lock().await.resume("payment-svc-1")?;
        anyhow::Ok(saga)
    };
    let (answer, saga) = tokio::join!(world.shop.checkout(&order), resuming);
    let saga = saga?;
    let Answer { status, .. } = answer?;
    ensure!(status == 409 || status == 504, "{status}");
    connected(&world, &saga, |tree| tree.count("process order.results") > 0).await?;
    summary_of(&world, &saga, "timed-out").await?;
    let found = until("the order is open again", SETTLE, async || {
        world.shop.find_order(&order).await.ok().filter(|order| order.status == "open")
    });
    let found = found.await?;
    ensure!(found.attempts.len() == 1 && found.attempts[0]["outcome"] == "timed_out", "{:?}", found.attempts);
    let stock = world.shop.find_item(&found.items[0].0).await?.stock;
    let credit = world.shop.find_user(&found.user_id).await?.credit;
    ensure!((stock, credit) == (5, 5), "{stock} pieces and {credit} credit are left of 5 and 5");
    let again = world.shop.checkout(&order).await?;
    ensure!(again.status == 200, "{}: {}", again.status, again.text());
    Ok(())
}

/// An order of one piece at a price of 1, by a user with this credit.
async fn order_of_one(world: &World, credit: u64) -> anyhow::Result<String> {
    let item = world.shop.create_item(1, 5).await?;
    let user = world.shop.create_user(credit).await?;
    world.shop.create_order(&user, &[(&item, 1)]).await
}

async fn saga_of(world: &World, order: &str) -> anyhow::Result<String> {
    world.shop.find_order(order).await?.saga_id.context("the order has a saga")
}

/// The trace has arrived, is connected, and each topic was passed so often, with at least so many Redis transactions.
async fn whole_trace(world: &World, order: &str, hops: &[(&str, usize)], transactions: usize) -> anyhow::Result<()> {
    let saga = saga_of(world, order).await?;
    connected(world, &saga, |tree| {
        let inbox = hops.iter().find(|(topic, _)| *topic == "saga.inbox").map_or(0, |(_, count)| *count);
        let folds = tree.count("fold start") + tree.count("fold reply");
        folds == inbox
            && tree.count("MULTI") >= transactions
            && tree.count("MULTI batch") >= transactions
            && hops.iter().all(|(topic, count)| {
                (tree.count(&format!("send {topic}")), tree.count(&format!("process {topic}"))) == (*count, *count)
            })
    })
    .await
}

/// Waits until the trace of a saga is without a defect and `is_whole`.
async fn connected(world: &World, saga: &str, is_whole: impl Fn(&Tree<'_>) -> bool) -> anyhow::Result<()> {
    let patience = until("the whole trace has arrived", EXPORTED, async || {
        let spans = world.sink.spans();
        let tree = Tree::of_saga(&spans, saga)?;
        (tree.defect().is_none() && is_whole(&tree)).then_some(())
    });
    if let Err(late) = patience.await {
        let spans = world.sink.spans();
        let tree = Tree::of_saga(&spans, saga).context("no span of the saga has arrived")?;
        let (defect, names) = (tree.defect(), tree.names());
        return Err(late.context(format!("{defect:?} in {names:#?}: {:#?}", tree.spans)));
    }
    Ok(())
}

async fn summary_of(world: &World, saga: &str, outcome: &str) -> anyhow::Result<Span> {
    let is_it = |span: &Span| {
        let attribute = |key: &str| span.attributes.get(key).map(String::as_str);
        span.name == "saga checkout" && (attribute("saga.id"), attribute("saga.outcome")) == (Some(saga), Some(outcome))
    };
    until("the saga is summarised", EXPORTED, async || world.sink.spans().into_iter().find(is_it)).await
}

impl World {
    async fn gateway_address(&self) -> String {
        self.stack.lock().await.gateway_url().trim_start_matches("http://").to_owned()
    }
}
