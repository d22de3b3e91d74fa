//! Two replicas of each service: one is killed, or stopped for five seconds and continued, in the middle of 200
//! checkouts; and all are restarted one after the other, which nobody notices.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/drill.rs"]
mod drill;
mod rolling;
#[path = "../common/wait.rs"]
mod wait;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use stack::{Progress, Shop, Stack};
use tokio::sync::Mutex;

/// Everything ends within this time after the fault is over.
const SETTLE: Duration = Duration::from_secs(30);
/// How long a process is stopped: longer than the session timeout, so that its lanes get another owner.
const STOPPED: Duration = Duration::from_secs(5);

struct World {
    shop: Shop,
    stack: Mutex<Stack>,
}

fn main() -> ExitCode {
    common::run(
        |options| (options.replicas, options.gateways) = (2, 2),
        |stack| World { shop: Shop::new(stack.gateway_url()), stack: Mutex::new(stack) },
        async |world: World| world.stack.into_inner().stop().await.map(drop),
        vec![
            scenario!(one_of_two_orchestrators_is_killed),
            scenario!(one_of_two_order_svcs_is_killed),
            scenario!(one_of_two_stock_svcs_is_killed),
            scenario!(one_of_two_payment_svcs_is_killed),
            scenario!(one_of_two_orchestrators_is_stopped_and_continued),
            scenario!(one_of_two_order_svcs_is_stopped_and_continued),
            scenario!(one_of_two_stock_svcs_is_stopped_and_continued),
            scenario!(one_of_two_payment_svcs_is_stopped_and_continued),
            scenario!(the_gateway_is_stopped_and_continued),
            scenario!(rolling::restarts_of_all_services_go_unnoticed),
        ],
    )
}

async fn kill(world: Arc<World>, name: &str) -> anyhow::Result<()> {
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let strike = async || world.stack.lock().await.kill(name);
    let heal = async || world.stack.lock().await.restart(name);
    drill::drill(&world.shop, SETTLE, strike, heal).await
}

async fn stop(world: Arc<World>, name: &str) -> anyhow::Result<()> {
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let strike = async || world.stack.lock().await.pause(name);
    let heal = async || {
        tokio::time::sleep(STOPPED).await;
        world.stack.lock().await.resume(name)
    };
    drill::drill(&world.shop, SETTLE, strike, heal).await
}

async fn one_of_two_orchestrators_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "orchestrator-1").await
}

async fn one_of_two_order_svcs_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "order-svc-1").await
}

async fn one_of_two_stock_svcs_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "stock-svc-2").await
}

async fn one_of_two_payment_svcs_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    kill(world, "payment-svc-1").await
}

async fn one_of_two_orchestrators_is_stopped_and_continued(world: Arc<World>) -> anyhow::Result<()> {
    stop(world, "orchestrator-2").await
}

async fn one_of_two_order_svcs_is_stopped_and_continued(world: Arc<World>) -> anyhow::Result<()> {
    stop(world, "order-svc-2").await
}

async fn one_of_two_stock_svcs_is_stopped_and_continued(world: Arc<World>) -> anyhow::Result<()> {
    stop(world, "stock-svc-1").await
}

async fn one_of_two_payment_svcs_is_stopped_and_continued(world: Arc<World>) -> anyhow::Result<()> {
    stop(world, "payment-svc-2").await
}

async fn the_gateway_is_stopped_and_continued(world: Arc<World>) -> anyhow::Result<()> {
    stop(world, "gateway").await
}
