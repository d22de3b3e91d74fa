//! Ratios of two runs, phase by phase.

use std::fmt::Write as _;

use crate::result::{Phase, Run};

/// Two fixed loops that differ by more than this share make ratios doubtful.
pub const DOUBTFUL_SPREAD: f64 = 0.1;

/// Runs that lie further apart are no neighbours, seconds: the machine drifts, whatever the fixed loop says.
const FAR_APART_S: u64 = 30 * 60;

/// A table of B's figures as a multiple of A's, for every load that both have.
pub fn table(a: &Run, b: &Run) -> String {
    let mut text = String::new();
    // Infallible: it writes into a String. So below.
    let _ = writeln!(text, "B as a multiple of A; above 1 is more (better for throughput, worse for the others)");
    let _ = writeln!(text, "{:<18} {:>10} {:>8} {:>8} {:>8}", "load", "per second", "p50", "p99", "CPU");
    let mut pairs = 0;
    for (of_a, of_b) in a.phases.iter().flat_map(|of_a| b.phases.iter().map(move |of_b| (of_a, of_b))) {
        if of_a.load != of_b.load {
            continue;
        }
        pairs += 1;
        let ratio = |figure: &dyn Fn(&Phase) -> f64| figure(of_b) / figure(of_a);
        let _ = writeln!(
            text,
            "{:<18} {:>10.2} {:>8.2} {:>8.2} {:>8.2}",
            of_a.load.to_string(),
            ratio(&Phase::per_second),
            ratio(&|phase| phase.latency_ms(50.0)),
            ratio(&|phase| phase.latency_ms(99.0)),
            ratio(&Phase::cpu_us_in_all),
        );
    }
    if pairs == 0 {
        text.push_str("no load is in both\n");
    }
    let loops = [a.fixed_loop_ms, b.fixed_loop_ms].concat();
    let (least, most) = (loops.iter().copied().fold(f64::MAX, f64::min), loops.iter().copied().fold(0.0, f64::max));
    let spread = most / least - 1.0;
    let _ = writeln!(text, "fixed CPU loop: {least:.0} to {most:.0} ms, spread {:.0} %", spread * 100.0);
    if spread > DOUBTFUL_SPREAD {
        text.push_str("the machine was not equally fast for both: these ratios are doubtful\n");
    }
    if let (Some(a), Some(b)) = (a.ended_unix_s, b.ended_unix_s)
        && a.abs_diff(b) > FAR_APART_S
    {
        let _ = writeln!(text, "{} minutes lie between them: these ratios are doubtful", a.abs_diff(b) / 60);
    }
    for (name, run) in [("A", a), ("B", b)] {
        if let Some(warning) = run.appendfsync.warning() {
            let _ = writeln!(text, "{name} ran with appendfsync {}, {warning}", run.appendfsync.name());
        }
    }
    if a.brokers != b.brokers {
        let _ = writeln!(text, "A ran with brokers: {}, B with {}", a.brokers, b.brokers);
    }
    if a.scenario != b.scenario {
        let _ = writeln!(text, "A is the scenario {}, B is {}", a.scenario.name(), b.scenario.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::result::tests::run;

    use super::*;

    #[test]
    fn ratios_are_b_over_a() {
        let text = table(&run(64, 1000, 40.0, 500.0), &run(64, 2000, 30.0, 250.0));
        let line = text.lines().find(|line| line.starts_with("64 connections")).unwrap();
        let figures: Vec<&str> = line.split_whitespace().skip(2).collect();
        assert_eq!(figures, ["2.00", "0.75", "0.75", "0.50"]);
        assert!(!text.contains("doubtful"));
    }

    #[test]
    fn a_machine_that_drifted_is_named() {
        let mut slow = run(64, 1000, 40.0, 500.0);
        slow.fixed_loop_ms = [200.0, 300.0];
        assert!(table(&run(64, 1000, 40.0, 500.0), &slow).contains("doubtful"));
    }

    #[test]
    fn runs_that_are_no_neighbours_are_named() {
        let at = |ended_unix_s| crate::result::Run { ended_unix_s, ..run(64, 1000, 40.0, 500.0) };
        let table = |a, b| table(&at(a), &at(b));
        assert!(table(Some(10_000), Some(1_000)).contains("150 minutes lie between"));
        assert!(!table(Some(10_000), Some(9_000)).contains("doubtful"));
        assert!(!table(None, Some(9_000)).contains("doubtful"));
    }

    #[test]
    fn a_run_that_may_forget_is_named() {
        let (safe, mut quick) = (run(64, 1000, 40.0, 500.0), run(64, 2000, 40.0, 500.0));
        quick.appendfsync = crate::fsync::Fsync::No;
        assert!(table(&safe, &quick).contains("B ran with appendfsync no, not safe: Redis may forget"));
        assert!(!table(&safe, &safe).contains("not safe"));
    }

    #[test]
    fn different_loads_are_not_compared() {
        assert!(table(&run(64, 1000, 40.0, 500.0), &run(256, 1000, 40.0, 500.0)).contains("no load is in both"));
    }
}
