//! Carries a strike out, and heals it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use stack::{Clocks, Detour, Poisoner, Stack};
use tokio::sync::Mutex;

use crate::forwarder::{Forwarder, Way};
use crate::plan::{GATEWAY, Kind, POISON_LANES, Strike};
use crate::resp::Resp;

/// A service drains within this time, or it is killed.
const DRAIN: Duration = Duration::from_secs(20);
/// Kafka may be struck at the same time, and is back within this time.
const POISON_PATIENCE: Duration = Duration::from_secs(180);

/// What is struck.
pub(crate) struct Target {
    pub(crate) stack: Mutex<Stack>,
    clocks: Option<Clocks>,
    ways: BTreeMap<String, Vec<Forwarder>>,
    /// Processes that do not run because of a strike.
    away: Mutex<BTreeSet<String>>,
    /// Processes that ended by themselves.
    deaths: Mutex<Vec<String>>,
    /// Service processes that were ended, by a strike or by themselves.
    ended: AtomicU64,
}

impl Target {
    /// A stack whose servers run; its services may be started now.
    pub(crate) async fn new(stack: Stack, clocks: Option<Clocks>) -> anyhow::Result<Self> {
        let mut ways = BTreeMap::new();
        for Detour { service, redis, brokers, .. } in stack.detours() {
            for (server, hops) in [("redis", std::slice::from_ref(redis)), ("kafka", brokers.as_slice())] {
                let mut forwarders = Vec::new();
                for hop in hops {
                    forwarders.push(Forwarder::start(hop.port, hop.server_port).await?);
                }
                ways.insert(format!("{service} to {server}"), forwarders);
            }
        }
        Ok(Self {
            stack: Mutex::new(stack),
            clocks,
            ways,
            away: Mutex::default(),
            deaths: Mutex::default(),
            ended: AtomicU64::new(0),
        })
    }

    /// One strike from beginning to end.
    pub(crate) async fn strike(&self, strike: &Strike) -> anyhow::Result<()> {
        self.begin(strike).await.with_context(|| strike.to_string())?;
        tokio::time::sleep(strike.lasts).await;
        self.end(strike).await.with_context(|| format!("the end of {strike}"))
    }

    async fn begin(&self, strike: &Strike) -> anyhow::Result<()> {
        let target = strike.target.as_str();
        // A gateway has no store in which it could leave anything.
        if matches!(strike.kind, Kind::Kill | Kind::Drain | Kind::Scale) && strike.role != GATEWAY {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        match strike.kind {
            Kind::Kill => {
                self.away.lock().await.insert(target.to_owned());
                self.stack.lock().await.kill(target)
            }
            Kind::Drain => {
                self.away.lock().await.insert(target.to_owned());
                self.stack.lock().await.terminate(target, DRAIN).map(drop)
            }
            Kind::Pause => self.stack.lock().await.pause(target),
            Kind::Scale => self.stack.lock().await.start_spare(target),
            Kind::Clock => self.set_clock(target, strike.amount),
            Kind::Cut => self.ask(target, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await,
            Kind::Full => self.ask(target, &["CONFIG", "SET", "maxmemory", "1"]).await,
            Kind::Sever => self.set_way(target, Way::Severed),
            Kind::Slow => self.set_way(target, Way::Slow(Duration::from_millis(strike.amount.unsigned_abs()))),
            Kind::Reset => self.set_way(target, Way::Reset),
            Kind::Poison => self.poison(target).await,
        }
    }

    async fn end(&self, strike: &Strike) -> anyhow::Result<()> {
        let target = strike.target.as_str();
        match strike.kind {
            Kind::Kill | Kind::Drain => {
                self.stack.lock().await.restart(target)?;
                self.away.lock().await.remove(target);
                Ok(())
            }
            Kind::Pause => self.stack.lock().await.resume(target),
            Kind::Scale => self.stack.lock().await.stop_spare(target, DRAIN).await.map(drop),
            Kind::Clock => self.set_clock(target, 0),
            Kind::Full => self.ask(target, &["CONFIG", "SET", "maxmemory", "0"]).await,
            Kind::Sever | Kind::Slow | Kind::Reset => self.set_way(target, Way::Open),
            Kind::Cut | Kind::Poison => Ok(()),
        }
    }

    /// Starts again what has ended by itself, as a supervisor would; says what it was.
    pub(crate) async fn revive(&self) -> anyhow::Result<Vec<String>> {
        let away = self.away.lock().await.clone();
        let mut stack = self.stack.lock().await;
        let mut ended = stack.ended();
        ended.retain(|name| !away.contains(name));
        for name in &ended {
            stack.restart(name)?;
        }
        self.ended.fetch_add(ended.len() as u64, Ordering::Relaxed);
        self.deaths.lock().await.extend(ended.iter().cloned());
        Ok(ended)
    }

    /// Processes that ended by themselves.
    pub(crate) async fn deaths(&self) -> Vec<String> {
        self.deaths.lock().await.clone()
    }

    /// How many processes have ended, by a strike or by themselves.
    pub(crate) fn ended_processes(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn set_way(&self, target: &str, way: Way) -> anyhow::Result<()> {
        let forwarders = self.ways.get(target).with_context(|| format!("no way {target}"))?;
        forwarders.iter().for_each(|forwarder| forwarder.set(way));
        Ok(())
    }

    fn set_clock(&self, target: &str, off_by_s: i64) -> anyhow::Result<()> {
        self.clocks.as_ref().context("clocks cannot jump here")?.set(target, off_by_s)
    }

    async fn ask(&self, target: &str, command: &'static [&'static str]) -> anyhow::Result<()> {
        let address = self.stack.lock().await.process(target)?.address;
        tokio::task::spawn_blocking(move || Resp::connect(&address)?.ask(command).map(drop)).await?
    }

    async fn poison(&self, topic: &str) -> anyhow::Result<()> {
        let brokers = self.stack.lock().await.brokers().to_owned();
        Poisoner::new(&brokers, POISON_PATIENCE)?.append(topic, 0..POISON_LANES).await
    }
}
