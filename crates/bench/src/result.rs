//! What a run found out, as a file: `./dev bench` writes it, `./dev bench compare` reads it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::disk::Silence;
use crate::fsync::Fsync;
use crate::scenario::Scenario;
use crate::stages;
use crate::tally::Tally;

/// Changes when an older program could not read the file.
const FORMAT: u32 = 1;
/// Quantiles of latency that are kept, in per cent.
const PERCENTILES: [f64; 12] = [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

/// One run: a stack, a scenario, some phases.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Format of this file.
    pub format: u32,
    /// What the load did.
    pub scenario: Scenario,
    /// Replicas of each service.
    pub replicas: u32,
    /// Brokers of Kafka; older files do not say it and mean one.
    #[serde(default = "one")]
    pub brokers: u32,
    /// Partitions of each topic.
    pub partitions: u32,
    /// Items that were loaded.
    pub items: u64,
    /// More settings of the services.
    pub envs: BTreeMap<String, String>,
    /// More settings of the brokers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub broker_settings: BTreeMap<String, String>,
    /// `appendfsync` of the Redis servers; older files do not say it and mean `always`.
    #[serde(default)]
    pub appendfsync: Fsync,
    /// Cores of the machine.
    pub cores: usize,
    /// Seconds that the data took to load.
    pub load_s: f64,
    /// Milliseconds of the fixed CPU loop, before and after: the speed of the machine.
    pub fixed_loop_ms: [f64; 2],
    /// When it was over, seconds since 1970; older files do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_s: Option<u64>,
    /// What was measured.
    pub phases: Vec<Phase>,
}

/// How the checkouts of a phase came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// From this many connections, each one after the other.
    Connections(usize),
    /// At this rate per second.
    Rate(f64),
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connections(connections) => write!(f, "{connections} connections"),
            Self::Rate(rate) => write!(f, "{rate}/s"),
        }
    }
}

/// One measured phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// How the checkouts came.
    pub load: Load,
    /// How long, in seconds.
    pub seconds: f64,
    /// Paid or refused before the phase's end: an open loop waits for the rest, which does not count as throughput.
    pub in_time: u64,
    /// Answers 200.
    pub paid: u64,
    /// Answers 4xx other than 429.
    pub refused: u64,
    /// Answers 429.
    pub shed: u64,
    /// Answers 5xx and none.
    pub unknown: u64,
    /// Latency in milliseconds at each of the percentiles.
    pub latency_ms: Vec<(f64, f64)>,
    /// Answers 200 of each second.
    pub paid_by_second: Vec<u64>,
    /// CPU time of each process, microseconds per checkout that ended.
    pub cpu_us: BTreeMap<String, f64>,
    /// Peak resident memory of each process so far, megabytes.
    pub memory_mb: BTreeMap<String, f64>,
    /// How long the disk stood still; `None` where that cannot be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Silence>,
    /// Part of the processors' time that other machines of the same host had, 0 to 1; `None` where that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stolen: Option<f64>,
    /// Requests in one window of a starter, on the average; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<f64>,
    /// With `--stages`: CPU time inside each service, microseconds per checkout that ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages_us: stages::Table,
}

impl Phase {
    /// Puts together what was seen and used.
    pub fn new(
        load: Load,
        tally: &Tally,
        seconds: f64,
        cpu_s: &BTreeMap<String, f64>,
        memory_mb: BTreeMap<String, f64>,
    ) -> Self {
        let at = |percentile: f64| tally.latency_us.value_at_percentile(percentile) as f64 / 1e3;
        let per_checkout = 1e6 / tally.ended().max(1) as f64;
        Self {
            load,
            seconds,
            in_time: tally.in_time,
            paid: tally.paid,
            refused: tally.refused,
            shed: tally.shed,
            unknown: tally.unknown,
            latency_ms: PERCENTILES.map(|percentile| (percentile, at(percentile))).to_vec(),
            paid_by_second: tally.seconds.iter().map(|second| second.paid).collect(),
            cpu_us: cpu_s.iter().map(|(name, used)| (name.clone(), used * per_checkout)).collect(),
            memory_mb,
            disk: None,
            stolen: None,
            window: None,
            stages_us: BTreeMap::new(),
        }
    }

    /// Checkouts that ended, however: what CPU time is divided by.
    pub fn ended(&self) -> u64 {
        self.paid + self.refused + self.unknown
    }

    /// Checkouts per second that were decided, paid or refused, before the phase's end.
    pub fn per_second(&self) -> f64 {
        self.in_time as f64 / self.seconds.max(1e-9)
    }

    /// Latency at one of the kept percentiles.
    pub fn latency_ms(&self, percentile: f64) -> f64 {
        let found = self.latency_ms.iter().find(|(kept, _)| (kept - percentile).abs() < 1e-9);
        found.map_or(f64::NAN, |(_, ms)| *ms)
    }

    /// CPU time of all processes, microseconds per checkout.
    pub fn cpu_us_in_all(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

impl Run {
    /// A run without phases.
    pub fn new(scenario: Scenario, fixed_loop_ms: f64) -> Self {
        Self {
            format: FORMAT,
            scenario,
            replicas: 0,
            brokers: one(),
            partitions: 0,
            items: 0,
            envs: BTreeMap::new(),
            broker_settings: BTreeMap::new(),
            appendfsync: Fsync::default(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            load_s: 0.0,
            fixed_loop_ms: [fixed_loop_ms; 2],
            ended_unix_s: None,
            phases: Vec::new(),
        }
    }

    /// Reads a file that [`Self::write`] wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let run: Self = serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))?;
        ensure!(run.format == FORMAT, "{} has format {}, this program reads {FORMAT}", path.display(), run.format);
        Ok(run)
    }

    /// Writes it as JSON.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(path, self)
    }
}

fn one() -> u32 {
    1
}

/// Writes what was found out as JSON.
pub fn write(path: &Path, found: &impl Serialize) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(found)?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(connections: usize, paid: u64, p99_ms: f64, cpu_us: f64) -> Run {
        let mut run = Run::new(Scenario::Checkout, 200.0);
        run.phases.push(Phase {
            load: Load::Connections(connections),
            seconds: 10.0,
            in_time: paid,
            paid,
            refused: 0,
            shed: 0,
            unknown: 0,
            latency_ms: vec![(50.0, p99_ms / 4.0), (99.0, p99_ms), (100.0, p99_ms * 2.0)],
            paid_by_second: vec![paid / 10; 10],
            cpu_us: BTreeMap::from([("kafka".to_owned(), cpu_us)]),
            memory_mb: BTreeMap::new(),
            disk: None,
            stolen: None,
            window: None,
            stages_us: BTreeMap::new(),
        });
        run
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/one.json");
        let written = run(64, 1000, 40.0, 500.0);
        written.write(&path).unwrap();
        let read = Run::read(&path).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&written).unwrap());
        std::fs::write(&path, "{}").unwrap();
        assert!(Run::read(&path).is_err());
    }

    #[test]
    fn figures_follow_from_the_tally() {
        let mut tally = Tally::new(std::time::Instant::now(), None).unwrap();
        for (order, status) in [200, 200, 402, 429].into_iter().enumerate() {
            let ended = crate::tally::Ended::from_status(Some(status));
            tally.record(order.to_string(), ended, std::time::Duration::from_millis(10));
        }
        let cpu = BTreeMap::from([("a".to_owned(), 0.003), ("b".to_owned(), 0.006)]);
        let phase = Phase::new(Load::Rate(4.0), &tally, 1.0, &cpu, BTreeMap::new());
        assert!((phase.per_second() - 3.0).abs() < 1e-9);
        assert!((phase.cpu_us_in_all() - 3000.0).abs() < 1e-6, "three checkouts ended, one was shed");
        assert!((phase.latency_ms(99.0) - 10.0).abs() < 0.1);
    }
}
