//! What taking turns is worth: several committers on one Redis that all write the same key, with turns and without.
//!
//! No Kafka and no services: between two batches of a participant so much else happens that committers seldom meet.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use local_servers::Redis;
use redis_txn::{Settings, Store, Transaction, Unread, View};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cpu;
use crate::curve::median;

/// The key that everybody wants.
const HOT: &str = "hot";

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Committers, one thread each; the replicas of a service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=16))]
    committers: u64,
    /// Lanes of each committer; each has one transaction waiting at any time
    #[arg(long, default_value_t = 33, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    lanes: u32,
    /// Rounds; each measures with turns and without
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Conflicts in a row after which a turn is taken; the services' default
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    turn_after: u32,
    /// Folder of the Redis
    #[arg(long, default_value = ".stack/bench-hot-key")]
    dir: PathBuf,
}

/// What one measurement came to.
struct Measured {
    committed_per_s: f64,
    execs_per_s: f64,
}

/// Measures and prints the ratios.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    println!("{} committers of {} lanes, all of which write one key", args.committers, args.lanes);
    let before = cpu::fixed_loop_ms();
    let mut ratios = Vec::new();
    for round in 1..=args.rounds {
        let with = measure(args, args.turn_after).await?;
        let without = measure(args, 0).await?;
        ratios.push(with.committed_per_s / without.committed_per_s);
        for (what, measured) in [("with turns", &with), ("without", &without)] {
            let Measured { committed_per_s, execs_per_s } = measured;
            println!("round {round}, {what}: {committed_per_s:.0} transactions/s in {execs_per_s:.0} EXECs/s");
        }
    }
    let (least, most) =
        ratios.iter().fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(*ratio), most.max(*ratio)));
    println!("with turns against without: {:.2} ({least:.2} to {most:.2})", median(&ratios));
    println!("fixed CPU loop: {before:.0} ms before, {:.0} ms after", cpu::fixed_loop_ms());
    Ok(())
}

async fn measure(args: &Args, turn_after: u32) -> anyhow::Result<Measured> {
    if args.dir.exists() {
        std::fs::remove_dir_all(&args.dir).with_context(|| format!("empty {}", args.dir.display()))?;
    }
    let redis = Redis::start(&args.dir, None)?;
    let committed = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let committers: Vec<_> = (0..args.committers)
        .map(|number| {
            let settings = settings(&redis.address(), number, turn_after);
            let (committed, stop, lanes) = (committed.clone(), stop.clone(), args.lanes);
            std::thread::spawn(move || committer(settings, lanes, &committed, &stop))
        })
        .collect();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for committer in committers {
        committer.join().map_err(|_| anyhow::anyhow!("a committer panicked"))??;
    }
    let took_s = begun.elapsed().as_secs_f64();
    let committed = committed.load(Ordering::Relaxed);
    let value = number(
        Store::connect(settings(&redis.address(), args.committers, 0)).await?.read(&[HOT.to_owned()]).await?[0]
            .as_ref(),
    );
    ensure!(value == committed, "the key counts {value}, committed were {committed}");
    let execs = execs(&redis.address()).await?;
    Ok(Measured { committed_per_s: committed as f64 / took_s, execs_per_s: execs as f64 / took_s })
}

/// How many EXECs the Redis has seen, those that came to nothing included.
async fn execs(address: &str) -> anyhow::Result<u64> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(b"INFO commandstats\r\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "INFO commandstats does not tell of EXEC");
        if let Some(stats) = line.strip_prefix("cmdstat_exec:calls=") {
            return stats.split(',').next().unwrap_or_default().parse().context("a number of calls");
        }
    }
}

fn settings(address: &str, number: u64, conflicts_before_turn: u32) -> Settings {
    Settings {
        address: address.to_owned(),
        password: redis_txn::Password::default(),
        process: format!("committer-{number}"),
        max_batch: 256,
        conflicts_before_turn,
        response_timeout: Duration::from_secs(5),
        rest_patience: Duration::from_secs(5),
    }
}

/// A replica: its own runtime, connection and lanes.
fn committer(settings: Settings, lanes: u32, committed: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let process = settings.process.clone();
        let store = Store::connect(settings).await?;
        let mut loops = JoinSet::new();
        for lane in 0..lanes {
            let (queue, committed, stop) = (store.lane_queue(lane), committed.clone(), stop.clone());
            let own = format!("{process}:{lane}");
            loops.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    queue.run(Count { own: own.clone() }).await?;
                    committed.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = loops.join_next().await {
            ended??;
        }
        store.shutdown().await;
        Ok(())
    })
}

/// Counts on the hot key and on the lane's own.
struct Count {
    own: String,
}

impl Transaction for Count {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend([HOT.to_owned(), self.own.clone()]);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        for key in [HOT, &self.own] {
            let next = number(view.get(key)?.as_ref()) + 1;
            view.set(key, next.to_string());
        }
        Ok(())
    }
}

fn number(value: Option<&Bytes>) -> u64 {
    value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
}
