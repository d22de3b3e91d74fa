//! What telemetry costs: one stack for each way of exporting it, all running, and the load goes from one to the next, round
//! after round. So a ratio compares what was measured within seconds, while the machine's speed drifts over minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use otlp_sink::{Discard, Silent};
use stack::{Http, Stack};

use crate::cpu;
use crate::curve::median;
use crate::result::{Load, Phase};
use crate::run::{Course, Plan};

/// How a stack exports its telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mode {
    /// Not at all; the ratios compare with this one.
    Off,
    /// To a collector, with the default sampling.
    Default,
    /// To a collector, every trace.
    All,
    /// Every trace, to a port where nobody listens.
    Refused,
    /// Every trace, to a collector that accepts and never answers.
    Silent,
}

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Ways of exporting; off is always among them
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Default, Mode::All])]
    modes: Vec<Mode>,
    /// Rounds; each has every phase on every stack
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(flatten)]
    plan: Plan,
}

/// One stack and what was measured on it: its phases, round by round.
struct Measured {
    mode: Mode,
    course: Course,
    rounds: Vec<Vec<Phase>>,
}

/// Where the stacks may send their telemetry.
struct Endpoints {
    collector: String,
    silent: String,
    refused: String,
}

/// Starts the stacks, measures, prints the ratios, audits, ends the stacks.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "--rounds needs a number above 0");
    let loads = args.plan.loads()?;
    let mut modes = args.modes.clone();
    modes.push(Mode::Off);
    modes.sort_unstable();
    modes.dedup();
    let (discard, collector) = Discard::start_thread();
    let (_silent, silent) = Silent::start_thread();
    let refused = format!("http://127.0.0.1:{}", local_servers::free_port()?);
    let endpoints = Endpoints { collector, silent, refused };
    let mut all = Vec::new();
    for mode in modes {
        println!("{mode:?}:");
        let mut course = Course::begin(&exporting(&args.plan, mode, &endpoints)).await?;
        course.warm_up(Duration::from_secs(args.plan.warmup_s)).await?;
        all.push(Measured { mode, course, rounds: Vec::new() });
    }
    println!("load average before: {}; fixed CPU loop: {:.0} ms", load_average(), cpu::fixed_loop_ms());
    for round in 0..args.rounds {
        // Another one begins in every round, so that none always comes after the same neighbour.
        let first = round % all.len();
        for place in 0..all.len() {
            let next = (first + place) % all.len();
            all[next].round(&loads, Duration::from_secs(args.plan.seconds)).await?;
        }
    }
    println!("load average after: {}; fixed CPU loop: {:.0} ms", load_average(), cpu::fixed_loop_ms());
    report(&loads, &all);
    println!("the collector received {} bytes", discard.bytes());
    for Measured { mode, course, .. } in all {
        println!("{mode:?}: {}", items(&course.stack).await?);
        course.end().await?;
    }
    Ok(())
}

/// The plan of one stack, in a folder of its own.
fn exporting(plan: &Plan, mode: Mode, endpoints: &Endpoints) -> Plan {
    let mut plan = plan.clone();
    plan.dir.push(format!("telemetry-{mode:?}").to_lowercase());
    let endpoint = match mode {
        Mode::Off => None,
        Mode::Default | Mode::All => Some(&endpoints.collector),
        Mode::Refused => Some(&endpoints.refused),
        Mode::Silent => Some(&endpoints.silent),
    };
    plan.envs.extend(endpoint.map(|endpoint| format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}")));
    if matches!(mode, Mode::All | Mode::Refused | Mode::Silent) {
        plan.envs.push("OTEL_TRACES_SAMPLER=parentbased_always_on".to_owned());
    }
    plan
}

impl Measured {
    async fn round(&mut self, loads: &[Load], time: Duration) -> anyhow::Result<()> {
        let mut phases = Vec::new();
        for load in loads {
            let phase = self.course.phase(*load, time).await?;
            println!(
                "  {:<8} {load}: {:>6.0} checkouts/s, services {:>6.0} CPU µs each, p50 {:.1} ms, p99 {:.1} ms",
                format!("{:?}", self.mode),
                phase.per_second(),
                services_us(&phase),
                phase.latency_ms(50.0),
                phase.latency_ms(99.0)
            );
            phases.push(phase);
        }
        self.rounds.push(phases);
        Ok(())
    }
}

/// CPU time of the five services, microseconds per checkout.
fn services_us(phase: &Phase) -> f64 {
    let ours = |name: &str| !name.starts_with("redis") && name != "kafka" && name != "generator";
    phase.cpu_us.iter().filter(|(name, _)| ours(name)).map(|(_, used)| used).sum()
}

/// Each mode against *off*, load by load and round by round: the median, and the range of all rounds.
fn report(loads: &[Load], all: &[Measured]) {
    let Some(off) = all.iter().find(|measured| measured.mode == Mode::Off) else { return };
    println!("each round against off in the same round, median (least to most):");
    for (place, load) in loads.iter().enumerate() {
        for measured in all.iter().filter(|measured| measured.mode != Mode::Off) {
            let ratios = |figure: &dyn Fn(&Phase) -> f64| {
                let pairs = measured.rounds.iter().zip(&off.rounds);
                spread(pairs.map(|(with, without)| figure(&with[place]) / figure(&without[place])).collect())
            };
            println!(
                "  {:<8} {load}: throughput {}   CPU of the services {}   p50 {}",
                format!("{:?}", measured.mode),
                ratios(&Phase::per_second),
                ratios(&services_us),
                ratios(&|phase| phase.latency_ms(50.0))
            );
        }
    }
}

fn spread(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (ratios.first(), ratios.last()) else { return "not measured".to_owned() };
    format!("{:.3} ({least:.3} to {most:.3})", median(&ratios))
}

/// What became of the telemetry of all services of a stack.
async fn items(stack: &Stack) -> anyhow::Result<String> {
    let http = Http::default();
    let mut fates: BTreeMap<String, f64> = BTreeMap::new();
    for admin in stack.processes().into_iter().filter_map(|process| process.admin_address) {
        let metrics = http.get(&format!("http://{admin}/metrics")).await?.text();
        for line in metrics.lines().filter_map(|line| line.strip_prefix("saga_telemetry_items_total")) {
            let (labels, value) = line.rsplit_once(' ').context("a metric has a value")?;
            *fates.entry(labels.to_owned()).or_default() += value.parse::<f64>()?;
        }
    }
    let fates: Vec<String> = fates.into_iter().map(|(labels, count)| format!("{labels} {count}")).collect();
    Ok(if fates.is_empty() { "no telemetry".to_owned() } else { fates.join(", ") })
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_spread_is_the_median_and_the_ends() {
        assert_eq!(spread(vec![1.1, 0.9, 1.0]), "1.000 (0.900 to 1.100)");
        assert_eq!(spread(Vec::new()), "not measured");
    }

    #[test]
    fn each_way_of_exporting_has_its_settings_and_folder() {
        let endpoints =
            Endpoints { collector: "http://c".into(), silent: "http://s".into(), refused: "http://r".into() };
        let plan = Cli::parse_from(["bench", "--dir", "d"]).args.plan;
        let of = |mode| exporting(&plan, mode, &endpoints);
        assert!(of(Mode::Off).envs.is_empty() && of(Mode::Off).dir.ends_with("d/telemetry-off"));
        assert_eq!(of(Mode::Default).envs, ["OTEL_EXPORTER_OTLP_ENDPOINT=http://c"]);
        let silent = of(Mode::Silent).envs;
        assert_eq!(silent, ["OTEL_EXPORTER_OTLP_ENDPOINT=http://s", "OTEL_TRACES_SAMPLER=parentbased_always_on"]);
    }
}
