//! One run: a stack of its own, data, warm-up, phases, audit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use stack::{Compilers, Data, Kind, Progress, Shop, Stack, StackOptions};

use crate::audit::{self, Told, Verdict};
use crate::client::Orders;
use crate::cpu::{self, Machine, Snapshot};
use crate::disk::Watch;
use crate::fsync::Fsync;
use crate::metrics::Windows;
use crate::open::{Backlog, Steady};
use crate::result::{Load, Phase, Run};
use crate::scenario::{Goods, Scenario};
use crate::tally::Tally;
use crate::{closed, hop_cost, open, report, stages};

/// Undecided orders of broken connections get this long before the audit.
const SETTLE: Duration = Duration::from_secs(60);
/// Connections of the warm-up.
pub const WARM_UP_CONNECTIONS: usize = 64;

/// What is measured, and on what.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// What the load does
    #[arg(long, value_enum, default_value_t = Scenario::Checkout)]
    pub scenario: Scenario,
    /// Closed loop: connections of each measured phase [default: 64,256, unless --rate is given]
    #[arg(long, value_delimiter = ',')]
    pub connections: Vec<usize>,
    /// Open loop: arrivals per second of each measured phase
    #[arg(long, value_delimiter = ',')]
    pub rate: Vec<f64>,
    /// Seconds of load before anything is measured: the JVM compiles
    #[arg(long, default_value_t = 30)]
    pub warmup_s: u64,
    /// Seconds of each measured phase
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Fresh orders; each is checked out once
    #[arg(long, default_value_t = 400_000)]
    pub orders: u64,
    /// Items and users, each
    #[arg(long, default_value_t = 100_000)]
    pub items: u64,
    /// Replicas of each service
    #[arg(long, default_value_t = 1)]
    pub replicas: u32,
    /// Brokers of Kafka: 1, or 3 with three copies of everything
    #[arg(long, default_value_t = 1)]
    pub brokers: u32,
    /// Partitions of each topic
    #[arg(long, default_value_t = 100)]
    pub partitions: u32,
    /// More settings for the services, NAME=VALUE
    #[arg(long = "env")]
    pub envs: Vec<String>,
    /// More settings for the brokers, name=value
    #[arg(long = "broker-setting")]
    pub broker_settings: Vec<String>,
    /// Also print CPU time inside the services, by stage; counting it costs some more
    #[arg(long)]
    pub stages: bool,
    /// `appendfsync` of the Redis servers: only a sweep varies it, and marks what it prints.
    #[arg(skip)]
    pub appendfsync: Fsync,
    /// One more replica of each service can be started: only `rebalance` does.
    #[arg(skip)]
    pub spares: u32,
    /// Programs that run in place of services: only `poison` has one.
    #[arg(skip)]
    pub own_programs: Vec<(Kind, PathBuf)>,
    /// Folder of the stack's data and logs
    #[arg(long, default_value = ".stack/bench")]
    pub dir: PathBuf,
}

/// A stack with data on it, and what its clients have been told.
pub struct Course {
    /// The stack.
    pub stack: Stack,
    authority: Arc<str>,
    goods: Goods,
    orders: Arc<Orders>,
    told: Told,
    counts_stages: bool,
    folder: PathBuf,
    /// Seconds that the data took to load.
    pub load_s: f64,
}

impl Plan {
    /// The loads of the measured phases, in this order.
    pub fn loads(&self) -> anyhow::Result<Vec<Load>> {
        ensure!(self.rate.iter().all(|rate| *rate > 0.0 && rate.is_finite()), "--rate needs numbers above 0");
        ensure!(!self.connections.contains(&0), "--connections needs numbers above 0");
        let connections =
            if self.connections.is_empty() && self.rate.is_empty() { vec![64, 256] } else { self.connections.clone() };
        let closed = connections.into_iter().map(Load::Connections);
        Ok(closed.chain(self.rate.iter().copied().map(Load::Rate)).collect())
    }

    /// The rate of a measurement that has one open loop, in which every checkout must be paid.
    pub fn one_rate(&self, otherwise: f64) -> anyhow::Result<f64> {
        let all_are_paid = !matches!(self.scenario, Scenario::Mix | Scenario::Refuse);
        ensure!(all_are_paid, "--scenario {}: here each request must be a checkout that is paid", self.scenario.name());
        ensure!(
            self.connections.is_empty(),
            "--connections does not go with an open loop: --rate says how many arrive"
        );
        ensure!(self.rate.len() <= 1, "--rate needs one number here");
        self.check()?;
        Ok(self.rate.first().copied().unwrap_or(otherwise))
    }

    /// What can be known to fail before anything runs.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.replicas > 0 && self.partitions > 0, "--replicas and --partitions need numbers above 0");
        ensure!(matches!(self.brokers, 1 | 3), "--brokers is 1 or 3");
        self.environment()?;
        self.of_brokers()?;
        self.loads().map(drop)
    }

    fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let switch = self.stages.then(|| Ok(("CPU_STAGES".to_owned(), "1".to_owned())));
        switch.into_iter().chain(self.envs.iter().map(|env| pair("--env", env))).collect()
    }

    fn of_brokers(&self) -> anyhow::Result<BTreeMap<String, String>> {
        self.broker_settings.iter().map(|setting| pair("--broker-setting", setting)).collect()
    }

    /// Does all of it and prints as it goes.
    pub async fn run(&self) -> anyhow::Result<Run> {
        let loads = self.loads()?;
        let mut course = Course::begin(self).await?;
        let mut run = Run::new(self.scenario, cpu::fixed_loop_ms());
        run.replicas = self.replicas;
        run.brokers = self.brokers;
        run.partitions = self.partitions;
        run.items = self.items;
        run.envs = self.environment()?;
        run.broker_settings = self.of_brokers()?;
        run.appendfsync = self.appendfsync;
        run.load_s = course.load_s;
        let mark = self.appendfsync.mark();
        println!("{}{mark}", report::head(&run));
        course.warm_up(Duration::from_secs(self.warmup_s)).await?;
        for load in loads {
            let phase = course.phase(load, Duration::from_secs(self.seconds)).await?;
            for line in report::phase(&phase) {
                println!("{line}{mark}");
            }
            run.phases.push(phase);
        }
        run.fixed_loop_ms[1] = cpu::fixed_loop_ms();
        run.ended_unix_s = Some(service_kit::clock::unix_ms() / 1_000);
        if let Some(table) = hop_cost::table(&run.phases) {
            print!("{table}");
        }
        println!("fixed CPU loop: {:.0} ms before, {:.0} ms after", run.fixed_loop_ms[0], run.fixed_loop_ms[1]);
        course.end().await?;
        Ok(run)
    }
}

impl Course {
    /// Starts a stack without a past and loads the data.
    pub async fn begin(plan: &Plan) -> anyhow::Result<Self> {
        let mut options = StackOptions::new(&std::path::absolute(&plan.dir)?)?;
        (options.data, options.compilers) = (Data::Forget, Compilers::Both);
        (options.replicas, options.spares) = (plan.replicas, plan.spares);
        (options.brokers, options.partitions) = (plan.brokers, plan.partitions);
        options.own_programs.clone_from(&plan.own_programs);
        options.definitions = stack::repository().join(plan.scenario.definitions());
        options.envs.extend(plan.scenario.settings());
        options.envs.extend(plan.environment()?);
        options.envs.extend(plan.appendfsync.of_services());
        options.redis_settings = plan.appendfsync.of_servers();
        options.kafka_settings = plan.of_brokers()?.into_iter().collect();
        let progress = Progress::for_people();
        let stack = Stack::start(options, &progress).await?;
        progress.finish();
        let goods = plan.scenario.goods(plan.items, plan.orders);
        let begin = Instant::now();
        goods.load(&Shop::new(stack.gateway_url())).await?;
        let load_s = begin.elapsed().as_secs_f64();
        audit::write(&address_of(&stack, Kind::OrderSvc)?, goods.varied_orders()).await?;
        Ok(Self {
            authority: stack.gateway_url().trim_start_matches("http://").into(),
            goods,
            orders: Arc::new(Orders::new(plan.scenario, goods, plan.orders)),
            told: Told::default(),
            counts_stages: plan.stages,
            folder: plan.dir.clone(),
            load_s,
            stack,
        })
    }

    /// Writes more orders, beside those of the load.
    pub async fn write_orders(&self, rows: impl Iterator<Item = (String, Bytes)> + Send) -> anyhow::Result<()> {
        audit::write(&address_of(&self.stack, Kind::OrderSvc)?, rows).await
    }

    /// Load that is not measured.
    pub async fn warm_up(&mut self, time: Duration) -> anyhow::Result<()> {
        self.warm_up_with(WARM_UP_CONNECTIONS, time).await
    }

    /// The same from so many connections.
    pub async fn warm_up_with(&mut self, connections: usize, time: Duration) -> anyhow::Result<()> {
        let (tally, elapsed) = self.load(Load::Connections(connections), time, Backlog::WorkOff).await?;
        println!("warm-up: {} paid in {:.1} s", tally.paid, elapsed.as_secs_f64());
        self.told.add(tally);
        Ok(())
    }

    /// One measured phase.
    pub async fn phase(&mut self, load: Load, time: Duration) -> anyhow::Result<Phase> {
        self.measure(load, time, Backlog::WorkOff).await.map(|(phase, _)| phase)
    }

    /// More than can be done, and how many of the arrivals were never sent.
    pub async fn overload(&mut self, rate: f64, time: Duration) -> anyhow::Result<(Phase, u64)> {
        self.measure(Load::Rate(rate), time, Backlog::Leave).await
    }

    async fn measure(&mut self, load: Load, time: Duration, backlog: Backlog) -> anyhow::Result<(Phase, u64)> {
        let windows_before = Windows::look(&self.stack.processes()).await?;
        let before = Snapshot::take(&self.processes());
        let stages_before = self.stages().await?;
        let (disk, machine) = (Watch::begin(&self.folder), Machine::look());
        let (tally, elapsed) = self.load(load, time, backlog).await?;
        let disk = disk.map(Watch::end);
        let stolen = machine.zip(Machine::look()).map(|(before, now)| now.stolen_since(before));
        let stages_after = self.stages().await?;
        let used_s = Snapshot::take(&self.processes()).since(&before);
        let windows = Windows::look(&self.stack.processes()).await? - windows_before;
        ensure!(!tally.ran_dry, "the fresh orders were used up before the time was over: raise --orders");
        let peak = |(name, pid): (String, u32)| Some((name, cpu::peak_memory(pid)? as f64 / 1e6));
        let memory_mb = self.processes().into_iter().filter_map(peak).collect();
        let mut phase = Phase::new(load, &tally, elapsed.as_secs_f64(), &used_s, memory_mb);
        (phase.disk, phase.stolen, phase.window) = (disk, stolen, windows.mean());
        if let (Some(before), Some(after)) = (stages_before, stages_after) {
            phase.stages_us = after.since(&before, &phase);
        }
        let unsent = tally.unsent;
        self.told.add(tally);
        Ok((phase, unsent))
    }

    /// Begins an open loop that goes on until it is told to stop.
    pub fn steady(&self, rate: f64) -> anyhow::Result<Steady> {
        Steady::begin(&self.authority, rate, &self.orders)
    }

    /// What clients of such a loop were told counts in the audit.
    pub fn add(&mut self, tally: Tally) {
        self.told.add(tally);
    }

    async fn load(&self, load: Load, time: Duration, backlog: Backlog) -> anyhow::Result<(Tally, Duration)> {
        let shown = tokio::spawn(show(load, Arc::clone(&self.orders)));
        let outcome = match load {
            Load::Connections(connections) => closed::run(&self.authority, connections, time, &self.orders).await,
            Load::Rate(rate) => open::run(&self.authority, rate, time, &self.orders, backlog).await,
        };
        shown.abort();
        // Aborting is its only end; afterwards nobody moves the line.
        let _ = shown.await;
        outcome
    }

    /// Audits the stores and ends the stack. An error when the stores and what was told do not agree.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.told.prepared = self.orders.taken();
        let audited = self.audit().await;
        self.stack.stop().await?;
        let verdict = audited?;
        println!(
            "audit passed: {} orders answered 200, {} paid, {} pieces and {} credit taken",
            self.told.paid.len(),
            verdict.paid,
            verdict.pieces,
            verdict.credit
        );
        Ok(())
    }

    async fn audit(&self) -> anyhow::Result<Verdict> {
        let at = audit::Addresses {
            order: address_of(&self.stack, Kind::OrderSvc)?,
            stock: address_of(&self.stack, Kind::StockSvc)?,
            payment: address_of(&self.stack, Kind::PaymentSvc)?,
        };
        let begin = Instant::now();
        loop {
            match audit::audit(&at, &self.goods, self.orders.times(), &self.told).await {
                Ok(verdict) => return Ok(verdict),
                Err(error) if begin.elapsed() > SETTLE => return Err(error.context("audit FAILED")),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn stages(&self) -> anyhow::Result<Option<stages::Snapshot>> {
        if !self.counts_stages {
            return Ok(None);
        }
        stages::Snapshot::take(&self.stack.processes()).await.map(Some)
    }

    /// What is measured: every process of the stack, and this one.
    fn processes(&self) -> Vec<(String, u32)> {
        let of_stack = self.stack.processes().into_iter().map(|process| (process.name.clone(), process.pid));
        of_stack.chain([("generator".to_owned(), std::process::id())]).collect()
    }
}

fn pair(option: &str, text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("{option} {text}: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Where the Redis of a service listens.
fn address_of(stack: &Stack, kind: Kind) -> anyhow::Result<String> {
    let name = kind.store().with_context(|| format!("{} has no store", kind.name()))?;
    Ok(stack.process(name).with_context(|| format!("{name} does not run"))?.address)
}

/// In a terminal, a moving line says how far a phase is. Never ends.
async fn show(load: Load, orders: Arc<Orders>) {
    let progress = ClearOnDrop(Progress::for_people());
    let (begin, first) = (Instant::now(), orders.begun());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut last = first;
    loop {
        ticks.tick().await;
        let begun = orders.begun();
        let seconds = begin.elapsed().as_secs();
        progress.0.update(&format!("{load}: {seconds} s, {} begun, {}/s now", begun - first, begun - last));
        last = begun;
    }
}

struct ClearOnDrop(Progress);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish();
    }
}
