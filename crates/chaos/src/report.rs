//! What a campaign showed, as tables that can be pasted into a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::audit::Told;
use crate::campaign::{Outcome, Struck};
use crate::plan::Kind;

/// The silence after a strike is looked for this long after it was healed, milliseconds.
const AFTERMATH_MS: u64 = 8_000;
/// A checkout that is sent so long after a replica was killed must succeed, milliseconds.
const RECOVERED_MS: u64 = 5_000;

/// The report as Markdown.
pub fn markdown(outcome: &Outcome) -> String {
    let mut text = String::new();
    let statuses = statuses(&outcome.evidence.told);
    let asked = outcome.evidence.told.len();
    // Infallible: it writes into a String. So below.
    let _ = writeln!(text, "Verdict: {}\n", outcome.verdict);
    let _ = writeln!(text, "{asked} requests to check out, {} orders: {statuses}.", outcome.evidence.orders.len());
    if let Some(settled) = outcome.settled {
        let _ = writeln!(text, "Everything had ended {:.1} s after the last fault.", settled.as_secs_f64());
    }
    let _ = writeln!(text, "\n| fault | role | times | longest silence, s |\n|---|---|---|---|");
    for ((kind, role), (times, silence_ms)) in silences(&outcome.struck, &outcome.evidence.told) {
        let _ = writeln!(text, "| {kind} | {role} | {times} | {:.1} |", silence_ms as f64 / 1e3);
    }
    let (ok, not_ok) = after_kills(&outcome.struck, &outcome.evidence.told);
    let _ = writeln!(
        text,
        "\nSent at least {} s after the SIGKILL of a replica, before the next fault: {ok} decided, {not_ok} not.",
        RECOVERED_MS / 1_000
    );
    for (what, count) in &outcome.keys {
        let _ = writeln!(text, "Keys left, {what}: {count}.");
    }
    text
}

fn statuses(told: &[Told]) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for told in told {
        let status = told.status.map_or_else(|| "broken".to_owned(), |status| status.to_string());
        *counts.entry(status).or_default() += 1;
    }
    counts.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>().join(", ")
}

/// How often each kind struck each role, and the longest time without any success in the strike and soon after it.
fn silences(struck: &[Struck], told: &[Told]) -> BTreeMap<(Kind, String), (u32, u64)> {
    let mut successes: Vec<u64> =
        told.iter().filter(|told| told.status == Some(200)).map(|told| told.done_ms).collect();
    successes.sort_unstable();
    let mut silences: BTreeMap<(Kind, String), (u32, u64)> = BTreeMap::new();
    for struck in struck {
        let (from, until) = (struck.at_ms, struck.healed_ms + AFTERMATH_MS);
        let after = &successes[successes.partition_point(|at| *at < from)..];
        // The success that ends the last silence may come later.
        let within = after.partition_point(|at| *at < until);
        let ends = &after[..(within + 1).min(after.len())];
        let starts = std::iter::once(&from).chain(ends);
        let longest = ends.iter().zip(starts).map(|(end, start)| end - start).max().unwrap_or(until - from);
        let entry = silences.entry((struck.strike.kind, struck.strike.role().to_owned())).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(longest);
    }
    silences
}

/// Checkouts that were sent when a killed replica should not matter any more: decided, and not.
fn after_kills(struck: &[Struck], told: &[Told]) -> (u64, u64) {
    let mut counts = (0, 0);
    for (index, one) in struck.iter().enumerate() {
        let replicated = one.strike.target.ends_with(|last: char| last.is_ascii_digit());
        let alone = |other: &Struck| other.at_ms == one.at_ms || other.at_ms > one.healed_ms;
        if one.strike.kind != Kind::Kill || !replicated || !struck[index + 1..].iter().all(alone) {
            continue;
        }
        let next =
            struck[index + 1..].iter().map(|other| other.at_ms).find(|at| *at > one.healed_ms).unwrap_or(u64::MAX);
        for told in told.iter().filter(|told| told.sent_ms > one.at_ms + RECOVERED_MS && told.done_ms < next) {
            match told.status {
                Some(200 | 402 | 404 | 409) => counts.0 += 1,
                _ => counts.1 += 1,
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Strike;

    fn struck(at_ms: u64, healed_ms: u64, target: &str) -> Struck {
        let strike = Strike { kind: Kind::Kill, target: target.to_owned(), lasts: Duration::ZERO };
        Struck { at_ms, healed_ms, strike }
    }

    fn told(sent_ms: u64, done_ms: u64, status: u16) -> Told {
        Told { order: 0, sent_ms, done_ms, status: Some(status) }
    }

    #[test]
    fn silence_is_the_longest_gap_between_successes() {
        let history: Vec<Told> = [900, 1_100, 3_600, 3_700].map(|at| told(at - 50, at, 200)).into();
        let silences = silences(&[struck(1_000, 2_000, "stock-svc-2")], &history);
        assert_eq!(silences[&(Kind::Kill, "stock-svc".to_owned())], (1, 2_500));
        let late = [told(0, 30_000, 200)];
        let silences = super::silences(&[struck(1_000, 2_000, "kafka"), struck(40_000, 41_000, "gateway")], &late);
        assert_eq!(silences[&(Kind::Kill, "kafka".to_owned())], (1, 29_000));
        assert_eq!(silences[&(Kind::Kill, "gateway".to_owned())], (1, 9_000), "nothing ever after");
    }

    #[test]
    fn only_what_was_sent_late_enough_counts() {
        let history = [told(4_000, 30_000, 504), told(7_000, 7_100, 200), told(7_000, 7_200, 504)];
        assert_eq!(after_kills(&[struck(1_000, 2_000, "stock-svc-2")], &history), (1, 1));
        assert_eq!(after_kills(&[struck(1_000, 2_000, "redis-stock")], &history), (0, 0));
    }
}
