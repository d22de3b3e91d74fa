//! Transactions per second through one committer, closed loop: `throughput [callers] [seconds] [keys per transaction]`.
//!
//! Starts its own Redis, twice: with `appendfsync everysec` and with `always`. Each transaction reads and writes
//! counters out of 100 000; with three keys or more the last one is new, as step records and orders are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use local_servers::{Lifetime, Redis};
use redis_txn::{Queue, RedisArgs, Settings, Store, Transaction, Unread, View};

/// Enough that few transactions of a batch meet.
const COUNTERS: u64 = 100_000;

struct Add {
    keys: Vec<String>,
}

impl Transaction for Add {
    type Outcome = ();
    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend_from_slice(&self.keys);
    }
    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        for key in &self.keys {
            let value = view.get(key)?;
            let value: u64 = value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()).unwrap_or(0);
            view.set(key.as_str(), (value + 1).to_string());
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse().context("a number"));
    let (callers, seconds, keys) = (next(512)?, next(5)?, next(1)?);
    for fsync in ["everysec", "always"] {
        let folder = tempfile::tempdir()?;
        let redis = Redis::start_with(folder.path(), None, &[("appendfsync", fsync)], Lifetime::WithParent)?;
        let store = Store::connect(settings(&redis.address())).await?;
        let pids = [std::process::id(), redis.pid()];
        let before = pids.map(cpu_us);
        let (done, seconds) = load(&store, callers, Duration::from_secs(seconds), keys).await;
        let [client, server] = [0, 1].map(|one| (cpu_us(pids[one]) - before[one]) as f64 / done as f64);
        println!(
            "{fsync}: {:.0} transactions/s with {callers} callers, {keys} keys each; CPU per transaction: \
             client {client:.1} us, Redis {server:.1} us",
            done as f64 / seconds
        );
        store.shutdown().await;
    }
    Ok(())
}

fn settings(address: &str) -> Settings {
    let args = RedisArgs {
        redis: address.to_owned(),
        redis_password_file: String::new(),
        allow_unsafe_fsync: true,
        commit_max_batch: 256,
        commit_conflicts_before_turn: 2,
        commit_response_timeout_ms: 5_000,
        commit_rest_patience_ms: 5_000,
    };
    args.settings("throughput", "0").expect("no password file")
}

/// CPU time of a process so far, microseconds: a measure that a busy machine disturbs less than the rate.
fn cpu_us(pid: u32) -> u64 {
    /// Clock ticks of `/proc` are 10 ms on Linux.
    const TICK_US: u64 = 10_000;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // User and system time are fields 14 and 15; field 2, the name in brackets, may contain blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_US
}

/// How many were done and in how many seconds.
async fn load(store: &Store, callers: u64, length: Duration, keys: u64) -> (u64, f64) {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let start = Instant::now();
    let running: Vec<_> = (0..callers)
        .map(|caller| tokio::spawn(call(caller, keys, store.rest_queue(), Arc::clone(&done), Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(length).await;
    let result = (done.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    for caller in running {
        let _ = caller.await;
    }
    result
}

async fn call(caller: u64, keys: u64, queue: Queue, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let key = |place: u64| {
            if place >= 2 {
                format!("rec:{caller}:{round}:{place}")
            } else {
                let mixed = (caller * 1_000_003 + round * 4 + place).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                format!("counter:{}", (mixed >> 20) % COUNTERS)
            }
        };
        let keys = (0..keys).map(key).collect();
        if queue.run(Add { keys }).await.is_err() {
            return;
        }
        done.fetch_add(1, Ordering::Relaxed);
        round += 1;
    }
}
