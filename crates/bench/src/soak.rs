//! Many checkouts without a fault, and what is left of them: as many keys in every Redis as before, and processes that
//! have not grown, services and servers. Orders, items and users are written before the first look, so they are in both counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use stack::{Kind, LONELY_HEAP_MB};
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
/// A service or a Redis may grow to so many times its memory after the warm-up, and [`GROWTH_MB`]. A paid order is a few dozen
/// bytes longer than a fresh one.
const GROWTH: f64 = 1.5;
/// See [`GROWTH`], megabytes.
const GROWTH_MB: f64 = 48.0;
/// What a broker may grow by besides: its Java machine touches its heap as it needs it, and after the warm-up it has touched
/// the young generation, a quarter of the largest heap, so the other three may be to come.
const HEAP_GROWTH_MB: f64 = LONELY_HEAP_MB as f64 * 0.75 * 1.048_576;

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

/// Resident memory by process, megabytes.
type Memory = BTreeMap<String, f64>;

/// Starts a stack, checks out, prints what is left, audits, ends it. An error when keys are left or a process has
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
        let [services, redis, kafka] = sums(&memory_mb(&course));
        println!(
            "{paid} paid, {:.0}/s; keys {}; services {services:.0} MB, Redis {redis:.0} MB, Kafka {kafka:.0} MB",
            phase.per_second(),
            shown(&keys(&course).await?)
        );
    }
    let after = forgotten(&course, &before).await?;
    println!("keys after:  {}", shown(&after));
    let memory_now = memory_mb(&course);
    for (name, (first, last)) in memory_pairs(&memory, &memory_now) {
        let bound = bound_mb(&name, first);
        println!("{name:<20} {first:>6.0} MB after the warm-up, {last:>6.0} MB now, at most {bound:>6.0} allowed");
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

/// Resident memory of all services together, megabytes.
pub fn services_mb(course: &Course) -> f64 {
    let [services, ..] = sums(&memory_mb(course));
    services
}

fn memory_mb(course: &Course) -> Memory {
    let processes = course.stack.processes().into_iter();
    processes.filter_map(|process| Some((process.name, cpu::memory(process.pid)? as f64 / 1e6))).collect()
}

/// Of the services, the Redis servers and the brokers.
fn sums(memory: &Memory) -> [f64; 3] {
    let [mut services, mut redis, mut kafka] = [0.0; 3];
    for (name, mb) in memory {
        if is_of(Kind::Redis, name) {
            redis += mb;
        } else if is_of(Kind::Kafka, name) {
            kafka += mb;
        } else {
            services += mb;
        }
    }
    [services, redis, kafka]
}

fn is_of(kind: Kind, name: &str) -> bool {
    name.starts_with(kind.name())
}

fn memory_pairs(first: &Memory, last: &Memory) -> BTreeMap<String, (f64, f64)> {
    first.iter().filter_map(|(name, first)| Some((name.clone(), (*first, *last.get(name)?)))).collect()
}

/// What a process may have that had `first` after the warm-up.
fn bound_mb(name: &str, first: f64) -> f64 {
    if is_of(Kind::Kafka, name) { first + HEAP_GROWTH_MB + GROWTH_MB } else { first * GROWTH + GROWTH_MB }
}

fn grown(first: &Memory, last: &Memory) -> Vec<String> {
    let has_grown = |(name, (first, last)): &(String, (f64, f64))| *last > bound_mb(name, *first);
    let grown = memory_pairs(first, last).into_iter().filter(has_grown);
    grown.map(|(name, (first, last))| format!("{name} from {first:.0} to {last:.0} MB")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(mb: [f64; 3]) -> Memory {
        ["order-svc-1", "redis-order", "kafka"].map(str::to_owned).into_iter().zip(mb).collect()
    }

    #[test]
    fn a_process_that_grows_is_named() {
        let first = memory([60.0, 400.0, 500.0]);
        assert!(grown(&first, &memory([130.0, 640.0, 940.0])).is_empty());
        assert_eq!(grown(&first, &memory([140.0, 400.0, 500.0])), ["order-svc-1 from 60 to 140 MB"]);
        assert_eq!(grown(&first, &memory([60.0, 650.0, 500.0])), ["redis-order from 400 to 650 MB"]);
        assert_eq!(grown(&first, &memory([60.0, 400.0, 960.0])), ["kafka from 500 to 960 MB"]);
    }

    #[test]
    fn a_broker_of_three_is_a_broker() {
        assert_eq!(bound_mb("kafka-2", 0.0), bound_mb("kafka", 0.0));
        let memory =
            [("gateway", 1.0), ("redis-stock", 2.0), ("redis-order", 4.0), ("kafka-1", 8.0), ("kafka-2", 16.0)];
        assert_eq!(sums(&memory.map(|(name, mb)| (name.to_owned(), mb)).into()), [1.0, 6.0, 24.0]);
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
