//! Many checkouts without a fault, and what is left of them: as many keys in every Redis as before, and processes that
//! have not grown. Orders, items and users are written before the first look, so they are in both counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::cpu;
use crate::result::Load;
use crate::run::{Course, Plan};

/// Length of one part; the counts are printed after each.
const PART: Duration = Duration::from_secs(30);
/// Orders beyond the checkouts that were asked for: the last part and the warm-up take some.
const SPARE_ORDERS: u64 = 500_000;
/// Connections, unless `--connections` says otherwise.
const CONNECTIONS: usize = 256;
/// What has ended is forgotten within this time.
const SETTLE: Duration = Duration::from_secs(60);
/// Keys are at rest when they have not changed for so long: longer than the pause between two notices of what has
/// ended.
const REST: Duration = Duration::from_secs(10);
/// A service may grow to so many times its memory after the warm-up, and [`GROWTH_MB`].
const GROWTH: f64 = 1.5;
/// See [`GROWTH`], megabytes.
const GROWTH_MB: f64 = 48.0;

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Checkouts that are paid at least
    #[arg(long, default_value_t = 1_000_000)]
    checkouts: u64,
    #[command(flatten)]
    plan: Plan,
}

/// Keys by store.
pub type Keys = BTreeMap<String, u64>;

/// Starts a stack, checks out, prints what is left, audits, ends it. An error when keys are left or a service has
/// grown.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let mut plan = args.plan.clone();
    plan.orders = plan.orders.max(args.checkouts + SPARE_ORDERS);
    let mut course = Course::begin(&plan).await?;
    course.warm_up(Duration::from_secs(plan.warmup_s)).await?;
    let before = at_rest(&course).await?;
    let memory = memory_mb(&course);
    println!("keys before: {}", shown(&before));
    let load = Load::Connections(plan.connections.first().copied().unwrap_or(CONNECTIONS));
    let mut paid = 0;
    while paid < args.checkouts {
        let phase = course.phase(load, PART).await?;
        paid += phase.paid;
        let now: f64 = memory_mb(&course).values().sum();
        println!(
            "{paid} paid, {:.0}/s; keys {}; services {now:.0} MB",
            phase.per_second(),
            shown(&keys(&course).await?)
        );
    }
    let after = forgotten(&course, &before).await?;
    println!("keys after:  {}", shown(&after));
    let memory_now = memory_mb(&course);
    for (name, (first, last)) in memory_pairs(&memory, &memory_now) {
        println!("{name:<16} {first:>6.0} MB after the warm-up, {last:>6.0} MB now");
    }
    course.end().await?;
    ensure!(after == before, "keys are left: {} before, {} after {paid} checkouts", shown(&before), shown(&after));
    let grown = grown(&memory, &memory_now);
    ensure!(grown.is_empty(), "grown: {}", grown.join(", "));
    Ok(())
}

/// The keys once they have come to rest.
pub async fn at_rest(course: &Course) -> anyhow::Result<Keys> {
    let (mut last, mut since, begin) = (keys(course).await?, Instant::now(), Instant::now());
    while since.elapsed() < REST && begin.elapsed() < SETTLE {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = keys(course).await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// The keys once they are what they were, or when the time for that is over.
pub async fn forgotten(course: &Course, before: &Keys) -> anyhow::Result<Keys> {
    let begin = Instant::now();
    loop {
        let now = keys(course).await?;
        if now == *before || begin.elapsed() > SETTLE {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn keys(course: &Course) -> anyhow::Result<Keys> {
    let mut keys = Keys::new();
    for process in course.stack.processes().into_iter().filter(|process| process.name.starts_with("redis")) {
        let count = dbsize(&process.address).await.with_context(|| format!("count the keys of {}", process.name))?;
        keys.insert(process.name, count);
    }
    Ok(keys)
}

async fn dbsize(address: &str) -> anyhow::Result<u64> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(b"DBSIZE\r\n").await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    line.trim().strip_prefix(':').with_context(|| format!("DBSIZE is answered {line:?}"))?.parse().context("a number")
}

/// For people.
pub fn shown(keys: &Keys) -> String {
    keys.iter().map(|(store, count)| format!("{store} {count}")).collect::<Vec<_>>().join(", ")
}

/// Resident memory of the services, megabytes.
pub fn memory_mb(course: &Course) -> BTreeMap<String, f64> {
    let ours = |name: &str| !name.starts_with("redis") && !name.starts_with("kafka");
    let services = course.stack.processes().into_iter().filter(|process| ours(&process.name));
    services.filter_map(|service| Some((service.name, cpu::memory(service.pid)? as f64 / 1e6))).collect()
}

fn memory_pairs(first: &BTreeMap<String, f64>, last: &BTreeMap<String, f64>) -> BTreeMap<String, (f64, f64)> {
    first.iter().filter_map(|(name, first)| Some((name.clone(), (*first, *last.get(name)?)))).collect()
}

fn grown(first: &BTreeMap<String, f64>, last: &BTreeMap<String, f64>) -> Vec<String> {
    let has_grown = |(_, (first, last)): &(String, (f64, f64))| *last > first * GROWTH + GROWTH_MB;
    let grown = memory_pairs(first, last).into_iter().filter(has_grown);
    grown.map(|(name, (first, last))| format!("{name} from {first:.0} to {last:.0} MB")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_grows_is_named() {
        let memory =
            |order: f64, stock: f64| BTreeMap::from([("order-svc".into(), order), ("stock-svc".into(), stock)]);
        assert!(grown(&memory(60.0, 40.0), &memory(130.0, 60.0)).is_empty());
        assert_eq!(grown(&memory(60.0, 40.0), &memory(60.0, 120.0)), ["stock-svc from 40 to 120 MB"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_of_a_real_redis_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let redis = tokio::task::spawn_blocking(move || local_servers::Redis::start(&path, None).expect("a Redis"));
        let redis = redis.await.expect("a Redis");
        assert_eq!(dbsize(&redis.address()).await.expect("a count"), 0);
        let mut stream = TcpStream::connect(redis.address()).await.expect("connected");
        stream.write_all(b"SET a 1\r\nSET b 2\r\n").await.expect("sent");
        let (mut line, mut answers) = (String::new(), BufReader::new(stream));
        answers.read_line(&mut line).await.expect("answered");
        answers.read_line(&mut line).await.expect("answered");
        assert_eq!(dbsize(&redis.address()).await.expect("a count"), 2);
    }
}
