//! What records that nobody can read, or at which a program panics, cost everybody else: quiet phases and phases with such
//! records in turns, so that each poisoned phase has a quiet one before and after it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use stack::quarantined;

use crate::cpu;
use crate::curve::median;
use crate::poison_records::{Counts, Records, Source};
use crate::result::{self, Load, Phase};
use crate::run::{Course, Plan};

/// Arrivals per second, unless `--rate` says otherwise: some tenth of what two cores can do.
const RATE: f64 = 300.0;
/// Everything is set aside within this time after the last phase.
const SETTLE: Duration = Duration::from_secs(30);
/// Pause between two looks at the quarantine, each of which reads all of it.
const LOOK: Duration = Duration::from_secs(1);
/// Latency may grow by this factor.
const WANTED: f64 = 2.0;

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Poisoned phases; before, between and after them there is a quiet one of the same length
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// What is wrong with the records
    #[arg(long, value_enum, default_value_t = Records::Unreadable)]
    records: Records,
    /// Such records per second, in turns for each topic that gets them
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    poison_rate: u32,
    /// Where the result goes, as JSON
    #[arg(long, default_value = "target/bench/poison.json")]
    out: PathBuf,
    #[command(flatten)]
    plan: Plan,
}

/// Everything that was found out.
#[derive(Debug, Serialize)]
struct Report {
    /// What was wrong with the records.
    records: Records,
    /// How many of them came per second.
    poison_rate: u32,
    partitions: u32,
    replicas: u32,
    /// Milliseconds of the fixed CPU loop, before and after: the speed of the machine.
    fixed_loop_ms: [f64; 2],
    /// Quiet and poisoned ones in turns, the first and the last are quiet.
    phases: Vec<Phase>,
    /// One for each poisoned phase.
    ratios: Vec<Ratio>,
    sent: Counts,
    quarantined: Counts,
}

/// Latency of a poisoned phase as a multiple of the mean of its two quiet neighbours.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratio {
    p50: f64,
    p99: f64,
}

/// Starts a stack, poisons it, prints the table, audits, ends it. An error when a checkout was answered anything but 200, a
/// lane stands still, or the quarantine does not hold what was sent.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let mut plan = args.plan.clone();
    if let Some((kind, program)) = args.records.with_a_bug() {
        let program = std::env::current_exe().context("find this program")?.with_file_name(program);
        plan.own_programs.push((kind, program));
    }
    let load = Load::Rate(plan.one_rate(RATE)?);
    let time = Duration::from_secs(plan.seconds);
    let mut course = Course::begin(&plan).await?;
    let count = args.of_one_phase() * u64::from(args.rounds);
    course.write_orders(args.records.orders(count)).await?;
    course.warm_up(Duration::from_secs(plan.warmup_s)).await?;
    let mut fixed_loop_ms = [cpu::fixed_loop_ms(); 2];
    let mut source = Source::new(args.records, &course.stack, plan.partitions)?;
    let mut phases = vec![course.phase(load, time).await?];
    for round in 0..args.rounds {
        let (phase, poisoned) = tokio::join!(course.phase(load, time), args.poison(&mut source, round));
        poisoned?;
        phases.push(phase?);
        phases.push(course.phase(load, time).await?);
    }
    fixed_loop_ms[1] = cpu::fixed_loop_ms();
    let (sent, undecided) = source.end().await;
    let quarantined = set_aside(course.stack.brokers(), &sent).await?;
    let (records, poison_rate) = (args.records, args.poison_rate);
    let (partitions, replicas) = (plan.partitions, plan.replicas);
    let ratios = ratios(&phases);
    let report =
        Report { records, poison_rate, partitions, replicas, fixed_loop_ms, phases, ratios, sent, quarantined };
    print!("{}", report.text());
    result::write(&args.out, &report)?;
    println!("{}", args.out.display());
    let look = course.stack.look().await;
    course.end().await?;
    ensure!(look.is_complete(plan.partitions), "not every lane is served: {}", look.missing(plan.partitions));
    report.check()?;
    undecided
}

impl Args {
    /// Records of one poisoned phase.
    fn of_one_phase(&self) -> u64 {
        u64::from(self.poison_rate) * self.plan.seconds
    }

    /// Brings the records of one phase, each in its time.
    async fn poison(&self, source: &mut Source, round: u32) -> anyhow::Result<()> {
        let begin = Instant::now();
        let count = self.of_one_phase();
        for number in 0..count {
            let due = begin + Duration::from_secs_f64(number as f64 / f64::from(self.poison_rate));
            tokio::time::sleep_until(due.into()).await;
            source.bring(u64::from(round) * count + number).await?;
        }
        Ok(())
    }
}

/// What lies in the quarantine once it is as much as was sent, or when the time for that is over.
async fn set_aside(brokers: &str, sent: &Counts) -> anyhow::Result<Counts> {
    let end = Instant::now() + SETTLE;
    loop {
        let found = quarantined(brokers).await.context("look into the quarantine")?;
        if found.values().sum::<u64>() >= sent.values().sum() || Instant::now() > end {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Of every second phase, which have a neighbour on both sides.
fn ratios(phases: &[Phase]) -> Vec<Ratio> {
    let ratio = |phases: &[Phase]| {
        let of = |percentile| {
            let quiet = f64::midpoint(phases[0].latency_ms(percentile), phases[2].latency_ms(percentile));
            phases[1].latency_ms(percentile) / quiet
        };
        Ratio { p50: of(50.0), p99: of(99.0) }
    };
    phases.windows(3).step_by(2).map(ratio).collect()
}

impl Report {
    fn text(&self) -> String {
        let mut text =
            format!("{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "", "paid/s", "not 200", "p50 ms", "p99 ms", "max ms");
        for (number, phase) in self.phases.iter().enumerate() {
            let name = if number % 2 == 0 { "quiet".to_owned() } else { format!("poison {}", number.div_ceil(2)) };
            // Infallible: it writes into a String. So below.
            let _ = writeln!(
                text,
                "{name:<12}{:>10.0}{:>10}{:>10.1}{:>10.1}{:>10.1}",
                phase.per_second(),
                not_paid(phase),
                phase.latency_ms(50.0),
                phase.latency_ms(99.0),
                phase.latency_ms(100.0)
            );
        }
        for (number, Ratio { p50, p99 }) in self.ratios.iter().enumerate() {
            let _ = writeln!(text, "poison {} against its neighbours: p50 {p50:.2}, p99 {p99:.2}", number + 1);
        }
        let p99: Vec<f64> = self.ratios.iter().map(|ratio| ratio.p99).collect();
        let most = p99.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(text, "p99: {:.2} (median), at most {most:.2}; wanted: at most {WANTED}", median(&p99));
        let counts = |counts: &Counts| {
            let each: Vec<String> = counts.iter().map(|(topic, count)| format!("{topic} {count}")).collect();
            format!("{} ({})", counts.values().sum::<u64>(), each.join(", "))
        };
        let _ = writeln!(text, "sent: {}\nin the quarantine: {}", counts(&self.sent), counts(&self.quarantined));
        let [before, after] = self.fixed_loop_ms;
        let _ = writeln!(text, "fixed CPU loop: {before:.0} ms before, {after:.0} ms after");
        text
    }

    /// Latency is a figure of this machine and this hour; the rest must be right on any.
    fn check(&self) -> anyhow::Result<()> {
        let not_paid: u64 = self.phases.iter().map(not_paid).sum();
        ensure!(not_paid == 0, "{not_paid} checkouts were not answered 200");
        ensure!(
            self.quarantined == self.sent,
            "sent were {:?}, in the quarantine lie {:?}",
            self.sent,
            self.quarantined
        );
        Ok(())
    }
}

fn not_paid(phase: &Phase) -> u64 {
    phase.refused + phase.shed + phase.unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::run;

    fn phases(p99_ms: &[f64]) -> Vec<Phase> {
        p99_ms.iter().map(|p99_ms| run(64, 1000, *p99_ms, 1.0).phases.remove(0)).collect()
    }

    fn report(phases: Vec<Phase>, sent: u64, quarantined: u64) -> Report {
        let counts = |count| Counts::from([("saga.inbox".to_owned(), count)]);
        Report {
            records: Records::Unreadable,
            poison_rate: 20,
            partitions: 100,
            replicas: 1,
            fixed_loop_ms: [200.0; 2],
            ratios: ratios(&phases),
            phases,
            sent: counts(sent),
            quarantined: counts(quarantined),
        }
    }

    #[test]
    fn a_poisoned_phase_is_compared_with_its_two_neighbours() {
        let ratios = ratios(&phases(&[40.0, 90.0, 80.0, 80.0, 120.0]));
        let p99: Vec<f64> = ratios.iter().map(|ratio| ratio.p99).collect();
        assert!(p99.len() == 2 && (p99[0] - 1.5).abs() < 1e-9 && (p99[1] - 0.8).abs() < 1e-9, "{p99:?}");
        let text = report(phases(&[40.0, 90.0, 80.0, 80.0, 120.0]), 3, 3).text();
        let names: Vec<&str> = text.lines().skip(1).take(5).filter_map(|line| line.get(..8)).map(str::trim).collect();
        assert_eq!(names, ["quiet", "poison 1", "quiet", "poison 2", "quiet"]);
        assert!(text.contains("p99: 1.15 (median), at most 1.50"), "{text}");
    }

    #[test]
    fn what_is_missing_in_the_quarantine_fails() {
        let quiet = || phases(&[40.0; 3]);
        assert!(report(quiet(), 3, 3).check().is_ok());
        assert!(report(quiet(), 3, 2).check().is_err());
        assert!(report(quiet(), 2, 3).check().is_err(), "too many too");
        let mut refused = quiet();
        refused[1].shed = 1;
        assert!(report(refused, 3, 3).check().is_err());
    }
}
