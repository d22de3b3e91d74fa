//! What is left of the throughput when far more arrives than can be done, and how soon all of it is back.
//!
//! A closed loop finds the peak, before each overload and after the last. Checkouts arrive at multiples of it, whatever the
//! answers are, and then, for a while, at a rate that the system can carry. That begins when everything that was sent has been
//! answered; the time until then counts as not yet back. What the generator has no connection left for is never sent.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::cpu;
use crate::result::{Load, Phase};
use crate::run::{Course, Plan, WARM_UP_CONNECTIONS};

/// Share of the peak that arrives after an overload.
const AFTERWARDS: f64 = 0.7;
/// Length of that, in seconds: the system has to be back before its end.
const AFTERWARDS_S: u64 = 10;
/// A second counts as good from this share of what is expected on.
const GOOD: f64 = 0.9;
/// Connections that find the peak, unless `--connections` says otherwise.
const PEAK_CONNECTIONS: usize = 256;

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Multiples of the peak that arrive, one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [2.0, 5.0, 10.0])]
    factors: Vec<f64>,
    /// Most requests that the gateway lets in (MAX_REQUESTS); the peak is what so many connections reach. A limit below what
    /// the processors could do leaves some of them to the generator
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    plan: Plan,
}

/// One overload and what came after it.
struct Bout {
    factor: f64,
    overload: Phase,
    /// Arrivals that were never sent.
    unsent: u64,
    /// From the last arrival to the last answer.
    worked_off: Duration,
    afterwards: Phase,
}

/// Starts a stack, overloads it, prints the table, audits, ends it. An error when a checkout was told anything but 200,
/// 4xx or 429.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.factors.iter().all(|factor| *factor > 1.0), "--factors needs numbers above 1");
    let mut plan = args.plan.clone();
    plan.envs.extend(args.limit.map(|limit| format!("MAX_REQUESTS={limit}")));
    let asked = plan.connections.first().copied().unwrap_or(PEAK_CONNECTIONS);
    let connections = args.limit.map_or(asked, |limit| asked.min(limit));
    let mut course = Course::begin(&plan).await?;
    course.warm_up_with(connections.min(WARM_UP_CONNECTIONS), Duration::from_secs(plan.warmup_s)).await?;
    println!("fixed CPU loop: {:.0} ms", cpu::fixed_loop_ms());
    let seconds = Duration::from_secs(plan.seconds);
    let mut peaks = vec![find_peak(&mut course, connections, seconds).await?];
    let mut bouts = Vec::new();
    for factor in args.factors.iter().copied() {
        let peak = peaks.last().map_or(0.0, Phase::per_second);
        let begun = Instant::now();
        let (overload, unsent) = course.overload(factor * peak, seconds).await?;
        let worked_off = begun.elapsed().saturating_sub(Duration::from_secs_f64(overload.seconds));
        let load = Load::Rate(AFTERWARDS * peak);
        let afterwards = course.phase(load, Duration::from_secs(AFTERWARDS_S)).await?;
        peaks.push(find_peak(&mut course, connections, seconds).await?);
        bouts.push(Bout { factor, overload, unsent, worked_off, afterwards });
    }
    println!("fixed CPU loop: {:.0} ms", cpu::fixed_loop_ms());
    let cores = std::thread::available_parallelism()?.get() as f64;
    print!("{}", table(&peaks, &bouts, cores));
    let memory = bouts.last().map(|bout| &bout.overload.memory_mb).into_iter().flatten();
    let memory: Vec<String> = memory.map(|(process, mb)| format!("{process} {mb:.0}")).collect();
    println!("peak memory MB: {}", memory.join(", "));
    course.end().await?;
    let phases = bouts.iter().flat_map(|bout| [&bout.overload, &bout.afterwards]).chain(&peaks);
    let unknown: u64 = phases.map(|phase| phase.unknown).sum();
    ensure!(unknown == 0, "{unknown} checkouts were answered 5xx or not at all");
    Ok(())
}

async fn find_peak(course: &mut Course, connections: usize, time: Duration) -> anyhow::Result<Phase> {
    let peak = course.phase(Load::Connections(connections), time).await?;
    println!("peak: {:.0} checkouts/s from {connections} connections", peak.per_second());
    Ok(peak)
}

/// There is a peak before and after each bout; ratios are to the mean of both. *by core left* compares what each core did that the generator left alone:
/// it is a client, and elsewhere in real life.
fn table(peaks: &[Phase], bouts: &[Bout], cores: f64) -> String {
    let mut text = String::from(
        "overload      sent/s   unsent/s   decided/s   of peak   by core left   429/s   5xx   p99 ms of the decided   generator's cores   back after\n",
    );
    let by_core_left = |phase: &Phase| phase.per_second() / (cores - generator_cores(phase));
    for (Bout { factor, overload, unsent, worked_off, afterwards }, peaks) in bouts.iter().zip(peaks.windows(2)) {
        let mean = |of: &dyn Fn(&Phase) -> f64| peaks.iter().map(of).sum::<f64>() / peaks.len() as f64;
        let ended = overload.paid + overload.refused + overload.unknown;
        let sent = (ended + overload.shed) as f64 / overload.seconds;
        let back = back_after_s(afterwards, AFTERWARDS * peaks[0].per_second());
        let back = back.map_or_else(
            || format!("not within {AFTERWARDS_S} s"),
            |second| format!("{:.1} s", worked_off.as_secs_f64() + second as f64),
        );
        // Infallible: it writes into a String.
        let _ = writeln!(
            text,
            "{factor:>7.1}x {sent:>11.0} {:>10.0} {:>11.0} {:>9.2} {:>14.2} {:>7.0} {:>5} {:>23.0} {:>19.2} {back:>12}",
            *unsent as f64 / overload.seconds,
            overload.per_second(),
            overload.per_second() / mean(&Phase::per_second),
            by_core_left(overload) / mean(&by_core_left),
            overload.shed as f64 / overload.seconds,
            overload.unknown + afterwards.unknown,
            overload.latency_ms(99.0),
            generator_cores(overload),
        );
    }
    text
}

fn generator_cores(phase: &Phase) -> f64 {
    let ended = phase.paid + phase.refused + phase.unknown;
    let generator_us = phase.cpu_us.get("generator").copied().unwrap_or(f64::NAN);
    generator_us / 1e6 * ended as f64 / phase.seconds
}

/// The first second from which on every second is good; the last one of a phase is not whole.
fn back_after_s(afterwards: &Phase, expected: f64) -> Option<usize> {
    let whole = usize::try_from(AFTERWARDS_S).unwrap_or(usize::MAX).min(afterwards.paid_by_second.len());
    let seconds = &afterwards.paid_by_second[..whole];
    let good = seconds.iter().rev().take_while(|paid| **paid as f64 >= GOOD * expected).count();
    (good > 0).then_some(seconds.len() - good)
}

#[cfg(test)]
mod tests {
    use crate::result::tests::run;

    use super::*;

    fn phase(paid_by_second: &[u64]) -> Phase {
        let mut phase = run(64, 1000, 10.0, 1.0).phases.remove(0);
        phase.paid_by_second = paid_by_second.to_vec();
        phase
    }

    #[test]
    fn it_is_back_when_every_later_second_is_good() {
        let cases: [(&[u64], Option<usize>); 4] = [
            (&[100; 10], Some(0)),
            (&[10, 100, 20, 100, 100, 100, 100, 100, 100, 95], Some(3)),
            (&[100, 100, 100, 100, 100, 100, 100, 100, 100, 20], None),
            (&[0, 100, 100, 100, 100, 100, 100, 100, 100, 100, 3], Some(1)),
        ];
        for (paid, expected) in cases {
            assert_eq!(back_after_s(&phase(paid), 100.0), expected, "{paid:?}");
        }
    }

    #[test]
    fn goodput_is_compared_with_the_peak() {
        let peaks = [9_000, 11_000].map(|paid| {
            let mut peak = run(256, paid, 10.0, 1.0).phases.remove(0);
            peak.cpu_us.insert("generator".to_owned(), 100.0);
            peak
        });
        let mut overload = run(256, 9_000, 10.0, 1.0).phases.remove(0);
        overload.shed = 11_000;
        // 0.45 cores, after 0.1.
        overload.cpu_us.insert("generator".to_owned(), 500.0);
        let text = table(
            &peaks,
            &[Bout {
                factor: 2.0,
                overload,
                unsent: 30,
                worked_off: Duration::from_millis(1_300),
                afterwards: phase(&[700; 10]),
            }],
            2.0,
        );
        let line: Vec<&str> = text.lines().nth(1).expect("a line").split_whitespace().collect();
        assert_eq!(line[..7], ["2.0x", "2000", "3", "900", "0.90", "1.10", "1100"]);
        assert_eq!(line[line.len() - 2..], ["1.3", "s"]);
    }
}
