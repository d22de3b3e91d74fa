//! One process of each kind is killed with SIGKILL in the middle of 200 checkouts and started again.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/drill.rs"]
mod drill;
#[path = "../common/wait.rs"]
mod wait;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use stack::{Clocks, Poisoner, Progress, Shop, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use wait::until;

/// Everything ends within this time after a service or a Redis is back.
const SETTLE: Duration = Duration::from_secs(30);
/// The same after Kafka is back.
const SETTLE_KAFKA: Duration = Duration::from_secs(60);

/// A record whose first field, its format, is 2.
const OF_A_LATER_FORMAT: &[u8] = &[0x08, 0x02];

/// Two hours: a client that waits by it would be silent for as long.
const SET_BACK_S: i64 = -7_200;

/// A store's data and an empty database change places.
const SWAP: &str = "SWAPDB 0 1";

struct World {
    shop: Shop,
    clocks: Option<Clocks>,
    stack: Mutex<Stack>,
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clocks = Clocks::find(folder.path());
    common::run(
        |options| {
            options.own_envs.push(("order-svc-1".to_owned(), "DRAIN_DEADLINE_S".to_owned(), "6".to_owned()));
            let clock = clocks.as_ref().map(|clocks| clocks.envs("payment-svc-1").expect("a clock of its own"));
            options.own_envs.extend(clock.into_iter().flatten());
        },
        |stack| World { shop: Shop::new(stack.gateway_url()), clocks: clocks.clone(), stack: Mutex::new(stack) },
        async |world: World| world.stack.into_inner().stop().await.map(drop),
        vec![
            scenario!(orchestrator_is_killed),
            scenario!(order_svc_is_killed),
            scenario!(stock_svc_is_killed),
            scenario!(payment_svc_is_killed),
            scenario!(gateway_is_killed),
            scenario!(redis_of_orders_is_killed),
            scenario!(redis_of_stock_is_killed),
            scenario!(redis_of_payment_is_killed),
            scenario!(redis_of_orchestrator_is_killed),
            scenario!(kafka_is_killed),
            scenario!(items_cannot_be_added_while_stock_is_away),
            scenario!(an_undo_that_hangs_is_shown_and_answered_as_undecided),
            scenario!(a_checkout_that_outlasts_the_drain_is_told_where_to_look),
            scenario!(a_service_whose_clock_is_set_back_far_ends_and_is_well_when_started_again),
            scenario!(a_service_does_not_start_over_a_store_that_lost_its_data),
            scenario!(a_store_that_must_not_be_believed_is_named_and_answers_nothing_false),
            // Last: the halted lanes stay so.
            scenario!(a_record_of_a_later_format_halts_its_lane_alone),
        ],
    )
}

async fn kill(world: Arc<World>, name: &str, settle: Duration) -> anyhow::Result<()> {
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let strike = async || world.stack.lock().await.kill(name);
    let heal = async || world.stack.lock().await.restart(name);
    drill::drill(&world.shop, settle, strike, heal).await
}

async fn orchestrator_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "orchestrator-1", SETTLE).await
}

async fn order_svc_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "order-svc-1", SETTLE).await
}

async fn stock_svc_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "stock-svc-1", SETTLE).await
}

async fn payment_svc_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "payment-svc-1", SETTLE).await
}

async fn gateway_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "gateway", SETTLE).await
}

async fn redis_of_orders_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "redis-order", SETTLE).await
}

async fn redis_of_stock_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "redis-stock", SETTLE).await
}

async fn redis_of_payment_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "redis-payment", SETTLE).await
}

async fn redis_of_orchestrator_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "redis-orchestrator", SETTLE).await
}

async fn kafka_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "kafka", SETTLE_KAFKA).await
}

/// `addItem` needs a price: without stock-svc it is 503, and nothing is added.
async fn items_cannot_be_added_while_stock_is_away(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(1, 5).await?;
    let user = shop.create_user(5).await?;
    let order = shop.create_order(&user, &[]).await?;
    let mut stack = world.stack.lock().await;
    stack.kill("stock-svc-1")?;
    let answer = shop.add_item(&order, &item, 1).await?;
    stack.restart("stock-svc-1")?;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
    ensure!(shop.find_order(&order).await?.items.is_empty());
    until("items can be added again", SETTLE, async || {
        let answer = shop.add_item(&order, &item, 1).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
}

/// Stock is taken, payment refuses, and stock is away when it should give back: the client is told that nothing is
/// decided, the order says that it is being undone, and when stock is back everything is as before.
async fn an_undo_that_hangs_is_shown_and_answered_as_undecided(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let item = shop.create_item(5, 10).await?;
    let user = shop.create_user(3).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    let status = async || shop.find_order(&order).await.ok().map(|order| order.status);
    world.stack.lock().await.pause("payment-svc-1")?;
    let take_stock_away = async {
        until("the stock is reserved", SETTLE, async || (shop.find_item(&item).await.ok()?.stock == 8).then_some(()))
            .await?;
        ensure!(status().await.as_deref() == Some("checking_out"));
        let mut stack = world.stack.lock().await;
        stack.kill("stock-svc-1")?;
        stack.resume("payment-svc-1")?;
        until("the order is being undone", SETTLE, async || (status().await? == "undoing").then_some(())).await
    };
    let (answer, taken_away) = tokio::join!(shop.checkout(&order), take_stock_away);
    let answer = answer?;
    taken_away?;
    ensure!(answer.status == 504, "{}: {}", answer.status, answer.text());
    ensure!(status().await.as_deref() == Some("undoing"));
    world.stack.lock().await.restart("stock-svc-1")?;
    until("the order is open again", SETTLE, async || (status().await? == "open").then_some(())).await?;
    ensure!(shop.find_item(&item).await?.stock == 10);
    ensure!(shop.find_user(&user).await?.credit == 3);
    let attempts = shop.find_order(&order).await?.attempts;
    ensure!(attempts.len() == 1 && attempts[0]["outcome"] == "refused", "{attempts:?}");
    Ok(())
}

/// The connection of whoever still waits when order-svc must end is not simply cut.
async fn a_checkout_that_outlasts_the_drain_is_told_where_to_look(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let mut stack = world.stack.lock().await;
    stack.wait_until_ready(&Progress::Silent).await?;
    let item = shop.create_item(5, 10).await?;
    let user = shop.create_user(10).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    // Not through the gateway, which would ask again.
    let replica = Shop::new(format!("http://{}", stack.process("order-svc-1")?.address));
    stack.pause("payment-svc-1")?;
    let asked = tokio::spawn({
        let order = order.clone();
        async move { replica.checkout(&order).await }
    });
    until("the stock is reserved", SETTLE, async || (shop.find_item(&item).await.ok()?.stock == 8).then_some(()))
        .await?;
    stack.terminate("order-svc-1", SETTLE)?;
    let answer = asked.await??;
    stack.restart("order-svc-1")?;
    stack.resume("payment-svc-1")?;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
    ensure!(answer.header("location").is_some_and(|place| place.contains(&order)), "{answer:?}");
    stack.wait_until_ready(&Progress::Silent).await?;
    until("it ends", SETTLE, async || (shop.find_order(&order).await.ok()?.status == "paid").then_some(())).await
}

/// It could not tell that its Kafka client is silent.
async fn a_service_whose_clock_is_set_back_far_ends_and_is_well_when_started_again(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let Some(clocks) = &world.clocks else {
        println!("skipped: libfaketime is not installed (apt-get install libfaketime)");
        return Ok(());
    };
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let strike = async || {
        clocks.set("payment-svc-1", SET_BACK_S)?;
        let has_ended = async || world.stack.lock().await.ended().contains(&"payment-svc-1".to_owned()).then_some(());
        until("it ends by itself", SETTLE, has_ended).await?;
        let log = std::fs::read_to_string(world.stack.lock().await.process("payment-svc-1")?.log_file)?;
        ensure!(log.contains("the time of day was set back by"), "it does not say why: {log}");
        Ok(())
    };
    let heal = async || {
        // A program that begins with another time of day than the machine's is one that libfaketime does not serve well.
        clocks.set("payment-svc-1", 0)?;
        world.stack.lock().await.restart("payment-svc-1")
    };
    drill::drill(&world.shop, SETTLE, strike, heal).await
}

/// Of what it answered over an empty store, "there is none" would be false, and an effect would happen once more.
async fn a_service_does_not_start_over_a_store_that_lost_its_data(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let mut stack = world.stack.lock().await;
    stack.wait_until_ready(&Progress::Silent).await?;
    let item = shop.create_item(5, 10).await?;
    let user = shop.create_user(10).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    ensure!(shop.checkout(&order).await?.status == 200);
    for (service, store) in [
        ("stock-svc-1", "redis-stock"),
        ("payment-svc-1", "redis-payment"),
        ("order-svc-1", "redis-order"),
        ("orchestrator-1", "redis-orchestrator"),
    ] {
        let store = stack.process(store)?.address;
        stack.terminate(service, SETTLE)?;
        // The empty database takes the place of the full one, until they change places again.
        tell_store(&store, SWAP).await?;
        stack.restart(service)?;
        until("it ends by itself", SETTLE, async || stack.ended().contains(&service.to_owned()).then_some(())).await?;
        let log = std::fs::read_to_string(stack.process(service)?.log_file)?;
        ensure!(log.contains("the store is empty, but group"), "{service} does not say why: {log}");
        if service == "stock-svc-1" {
            let answer = shop.get(&format!("/stock/find/{item}")).await?;
            ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
        }
        tell_store(&store, SWAP).await?;
        stack.restart(service)?;
        stack.wait_until_ready(&Progress::Silent).await?;
    }
    ensure!((shop.find_item(&item).await?.stock, shop.find_user(&user).await?.credit) == (8, 0));
    ensure!(shop.find_order(&order).await?.status == "paid");
    Ok(())
}

/// "There is none" would be false of what was there a moment ago.
async fn a_store_that_must_not_be_believed_is_named_and_answers_nothing_false(world: Arc<World>) -> anyhow::Result<()> {
    let (shop, mut stack) = (&world.shop, world.stack.lock().await);
    stack.wait_until_ready(&Progress::Silent).await?;
    let item = shop.create_item(5, 10).await?;
    let stock = stack.process("stock-svc-1")?;
    let admin = Shop::new(format!("http://{}", stock.admin_address.context("an admin port")?));
    let store = stack.process("redis-stock")?.address;
    let evicts = "CONFIG SET maxmemory-policy allkeys-lru";
    let keeps = "CONFIG SET maxmemory-policy noeviction";
    for (alarm, strike, heal) in [("store-replaced", SWAP, SWAP), ("store-evicts", evicts, keeps)] {
        let shows = async |value: &str| {
            let line = format!("saga_redis_distrusted{{alarm=\"{alarm}\"}} {value}");
            let text = admin.get("/metrics").await.ok()?.text();
            text.lines().any(|shown| shown == line).then_some(())
        };
        shows("0").await.with_context(|| format!("{alarm} is shown before anything is wrong"))?;
        tell_store(&store, strike).await?;
        let mut told = BTreeSet::new();
        until(&format!("{alarm} is shown and answered"), SETTLE, async || {
            told.insert(shop.get(&format!("/stock/find/{item}")).await.ok()?.status);
            shows("1").await.filter(|()| told.contains(&503))
        })
        .await?;
        ensure!(!told.contains(&404), "{alarm}: {told:?}");
        tell_store(&store, heal).await?;
        until(&format!("{alarm} is over"), SETTLE, async || shows("0").await).await?;
        until("the item is there", SETTLE, async || (shop.find_item(&item).await.ok()?.stock == 10).then_some(()))
            .await?;
    }
    Ok(())
}

/// Nobody can say what a later program means, so nobody passes it over.
async fn a_record_of_a_later_format_halts_its_lane_alone(world: Arc<World>) -> anyhow::Result<()> {
    let (shop, mut stack) = (&world.shop, world.stack.lock().await);
    stack.wait_until_ready(&Progress::Silent).await?;
    let poisoner = Poisoner::new(stack.brokers(), SETTLE)?;
    let struck = [
        ("stock-svc-1", "stock.commands", 3),
        ("orchestrator-1", "saga.inbox", 5),
        ("order-svc-1", "order.results", 7),
    ];
    for (_, topic, lane) in struck {
        poisoner.append_all(topic, [lane], &Bytes::from_static(OF_A_LATER_FORMAT)).await?;
    }
    for (service, topic, lane) in struck {
        let admin = stack.process(service)?.admin_address.context("an admin port")?;
        let admin = Shop::new(format!("http://{admin}"));
        let names_it = async || {
            admin.get("/readyz").await.ok().filter(|answer| answer.text().contains("unknown format")).map(drop)
        };
        until(&format!("{service} names the lane"), SETTLE, names_it).await?;
        let is_shown = async || {
            let metrics = admin.get("/metrics").await.ok()?.text();
            let is_one = |name: &str, label: &str| {
                let is_it = |line: &&str| line.starts_with(name) && line.contains(topic) && line.contains(label);
                metrics.lines().find(is_it).is_some_and(|line| line.ends_with(" 1"))
            };
            let halted = is_one("saga_stream_lane_halted{", &format!("lane=\"{lane}\""));
            (halted && is_one("saga_stream_lane_halts_total{", "reason=\"unknown-format\"")).then_some(())
        };
        until(&format!("{service} shows it in its metrics"), SETTLE, is_shown).await?;
    }
    drop(stack);
    // The first on a halted lane waits in vain; then that lane is avoided.
    let item = shop.create_item(5, 100).await?;
    until("checkouts go on", SETTLE_KAFKA, async || {
        let user = shop.create_user(5).await.ok()?;
        let order = shop.create_order(&user, &[(&item, 1)]).await.ok()?;
        (shop.checkout(&order).await.ok()?.status == 200).then_some(())
    })
    .await
}

async fn tell_store(store: &str, command: &str) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(store).await?;
    connection.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = [0; 5];
    connection.read_exact(&mut answer).await?;
    ensure!(&answer == b"+OK\r\n", "{}", String::from_utf8_lossy(&answer));
    Ok(())
}
