//! Measures checkouts per second on this machine: a closed loop through the gateway of a stack of its own, and an audit of
//! the stores afterwards.
//!
//! Deliberately not in it: faults, and any figure that it did not measure in this run.

mod audit;
mod cpu;
mod load;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use stack::{Data, Kind, Progress, Shop, Stack, StackOptions};

use crate::cpu::Snapshot;
use crate::load::FreshOrders;

/// Price of every item; an order of `batch_init` has two pieces.
const ITEM_PRICE: u64 = 1;
/// Pieces of each item and credit of each user: more than any run can take.
const PLENTY: u64 = 1_000_000_000;
/// Undecided orders of broken connections get this long before the audit.
const SETTLE: Duration = Duration::from_secs(30);

/// Closed-loop load of checkouts on a stack that is started for it and ended afterwards
#[derive(Parser)]
struct Args {
    /// Connections of each measured phase
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    connections: Vec<usize>,
    /// Seconds of load before anything is measured: the JVM compiles
    #[arg(long, default_value_t = 30)]
    warmup_s: u64,
    /// Seconds of each measured phase
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Fresh orders; each is checked out once
    #[arg(long, default_value_t = 400_000)]
    orders: u64,
    /// Items and users, each
    #[arg(long, default_value_t = 100_000)]
    items: u64,
    /// Replicas of each service
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Partitions of each topic
    #[arg(long, default_value_t = 100)]
    partitions: u32,
    /// More settings for the services, NAME=VALUE
    #[arg(long = "env")]
    envs: Vec<String>,
    /// Folder of the stack's data and logs
    #[arg(long, default_value = ".stack/bench")]
    dir: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut options = StackOptions::new(&std::path::absolute(&args.dir)?)?;
    options.data = Data::Forget;
    options.replicas = args.replicas;
    options.partitions = args.partitions;
    for env in &args.envs {
        let (name, value) = env.split_once('=').with_context(|| format!("--env {env}: write NAME=VALUE"))?;
        options.envs.push((name.to_owned(), value.to_owned()));
    }
    let stack = Stack::start(options, &Progress::for_people()).await?;
    let measured = measure(&args, &stack).await;
    stack.stop().await?;
    measured
}

async fn measure(args: &Args, stack: &Stack) -> anyhow::Result<()> {
    let shop = Shop::new(stack.gateway_url());
    let authority = stack.gateway_url().trim_start_matches("http://").to_owned();
    load_data(args, &shop).await?;
    let orders = Arc::new(FreshOrders::new(args.orders));
    println!("fixed CPU loop before: {:.0} ms", cpu::fixed_loop_ms());
    let widest = args.connections.iter().copied().max().context("--connections needs a number")?;
    let warm_up = load::closed_loop(&authority, widest, Duration::from_secs(args.warmup_s), &orders).await?;
    println!("warm-up: {} paid in {:.1} s", warm_up.paid, warm_up.elapsed.as_secs_f64());
    let (mut told_paid, mut told_refused) = (warm_up.paid_orders, warm_up.refused_orders);
    for connections in &args.connections {
        let before = Snapshot::take(&processes(stack));
        let phase = load::closed_loop(&authority, *connections, Duration::from_secs(args.seconds), &orders).await?;
        let used = Snapshot::take(&processes(stack)).since(&before);
        for line in report::lines(*connections, &phase, &used) {
            println!("{line}");
        }
        told_paid.extend(phase.paid_orders);
        told_refused.extend(phase.refused_orders);
    }
    println!("fixed CPU loop after: {:.0} ms", cpu::fixed_loop_ms());
    audit_stores(args, stack, orders.taken(), &told_paid, &told_refused).await
}

async fn load_data(args: &Args, shop: &Shop) -> anyhow::Result<()> {
    let begin = Instant::now();
    let (items, orders) = (args.items, args.orders);
    for path in [
        format!("/stock/batch_init/{items}/{PLENTY}/{ITEM_PRICE}"),
        format!("/payment/batch_init/{items}/{PLENTY}"),
        format!("/orders/batch_init/{orders}/{items}/{items}/{ITEM_PRICE}"),
    ] {
        let answer = shop.post(&path).await?;
        ensure!(answer.is_success(), "POST {path}: {} {}", answer.status, answer.text());
    }
    println!("loaded {items} items, {items} users, {orders} orders in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// What is measured: every process of the stack by kind or store, and this one.
fn processes(stack: &Stack) -> Vec<(String, u32)> {
    let mut processes: Vec<(String, u32)> =
        stack.processes().into_iter().map(|process| (process.name.clone(), process.pid)).collect();
    processes.push(("generator".to_owned(), std::process::id()));
    processes
}

async fn audit_stores(
    args: &Args,
    stack: &Stack,
    taken: u64,
    told_paid: &[u64],
    told_refused: &[u64],
) -> anyhow::Result<()> {
    let store = |kind: Kind| {
        let name = kind.store().with_context(|| format!("{} has no store", kind.name()))?;
        let all = stack.processes();
        let process = all.into_iter().find(|process| process.name == name);
        Ok::<_, anyhow::Error>(process.with_context(|| format!("{name} does not run"))?.address)
    };
    let at = audit::Addresses {
        order: store(Kind::OrderSvc)?,
        stock: store(Kind::StockSvc)?,
        payment: store(Kind::PaymentSvc)?,
    };
    let loaded = audit::Loaded { items: args.items, stock: PLENTY, users: args.items, credit: PLENTY, orders: taken };
    let begin = Instant::now();
    let verdict = loop {
        match audit::audit(&at, &loaded, told_paid, told_refused).await {
            Ok(verdict) => break verdict,
            Err(error) if begin.elapsed() > SETTLE => return Err(error.context("audit FAILED")),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    println!(
        "audit passed: {} orders answered 200, {} paid, {} pieces and {} credit taken",
        told_paid.len(),
        verdict.paid,
        verdict.pieces,
        verdict.credit
    );
    Ok(())
}
