//! What a campaign showed, as tables that can be pasted into a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::audit::availability::{Kept, promises};
use crate::audit::{Evidence, Told};
use crate::campaign::Outcome;
use crate::plan::{Kind, Struck};

/// The silence after a strike is looked for this long after it was healed, milliseconds.
const AFTERMATH_MS: u64 = 8_000;

/// The report as Markdown.
pub fn markdown(outcome: &Outcome) -> String {
    let evidence = &outcome.evidence;
    let mut text = String::new();
    let (asked, orders) = (evidence.told.len(), evidence.orders.len());
    let faults = evidence.struck.iter().map(|struck| struck.fault + 1).max().unwrap_or_default();
    let pairs = evidence.struck.len().saturating_sub(faults);
    // Infallible: it writes into a String. So below.
    let _ = writeln!(text, "Verdict: {}\n", outcome.verdict);
    let _ = writeln!(text, "{faults} faults, {pairs} of them pairs.");
    let _ = writeln!(text, "{asked} requests to check {orders} orders out: {}.", statuses(&evidence.told));
    let (whole, broken) = (evidence.during.whole, evidence.during.broken);
    let _ = writeln!(text, "{whole} looks at the stores meanwhile; {broken} more could not read all of them.");
    if let Some(settled) = outcome.settled {
        let _ = writeln!(text, "Everything had ended {:.1} s after the last answer.", settled.as_secs_f64());
    }
    let _ = writeln!(text, "\n| fault | role | alone | longest silence, s | in pairs | longest silence, s |");
    let _ = writeln!(text, "|---|---|---:|---:|---:|---:|");
    for ((kind, role), [alone, paired]) in silences(&evidence.struck, &evidence.told) {
        let cells = [alone, paired].map(Silence::cells);
        let _ = writeln!(text, "| {kind} | {role} | {} | {} |", cells[0], cells[1]);
    }
    availability(evidence, &mut text);
    remains(evidence, &mut text);
    text
}

fn availability(evidence: &Evidence, text: &mut String) {
    let mut rows: BTreeMap<&str, AfterKill> = BTreeMap::new();
    for promise in promises(evidence) {
        let row = rows.entry(&promise.struck.strike.role).or_default();
        let kept = promise.kept(&evidence.told);
        row.kills += 1;
        row.kept.decided += kept.decided;
        row.kept.undecided += kept.undecided;
        row.felt_ms = row.felt_ms.max(promise.felt_ms(&evidence.told));
        for told in promise.in_flight(&evidence.told) {
            *row.in_flight.entry(status(told)).or_default() += 1;
        }
    }
    let _ = writeln!(
        text,
        "\n| killed alone | kills judged | sent when over: decided | not | felt for at most, s | answers before that |\n\
         |---|---:|---:|---:|---:|---|"
    );
    for (role, AfterKill { kills, kept, felt_ms, in_flight }) in rows {
        let (Kept { decided, undecided }, felt_s) = (kept, felt_ms as f64 / 1e3);
        let _ = writeln!(text, "| {role} | {kills} | {decided} | {undecided} | {felt_s:.1} | {} |", listed(&in_flight));
    }
}

/// What was seen of all kills of one role that came alone.
#[derive(Default)]
struct AfterKill {
    kills: u64,
    kept: Kept,
    /// The longest of them.
    felt_ms: u64,
    in_flight: BTreeMap<String, u64>,
}

fn remains(evidence: &Evidence, text: &mut String) {
    let _ = writeln!(text, "\n| store | keys | before | after |\n|---|---|---:|---:|");
    for keys in &evidence.keys {
        let _ = writeln!(text, "| {} | {} | {} | {} |", keys.store, keys.kind, keys.before, keys.after);
    }
    let _ = writeln!(text, "\n| process | MiB before | after |\n|---|---:|---:|");
    for memory in &evidence.memory {
        let (before, after) = (memory.before_kb / 1024, memory.after_kb / 1024);
        let _ = writeln!(text, "| {} | {before} | {after} |", memory.process);
    }
}

fn status(told: &Told) -> String {
    told.status.map_or_else(|| "broken".to_owned(), |status| status.to_string())
}

fn statuses(told: &[Told]) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for told in told {
        *counts.entry(status(told)).or_default() += 1;
    }
    listed(&counts)
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>().join(", ")
}

/// How often something struck, and the longest time without any success in the strike and soon after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Silence {
    times: u32,
    longest_ms: u64,
}

impl Silence {
    fn cells(self) -> String {
        match self.times {
            0 => "0 |".to_owned(),
            times => format!("{times} | {:.1}", self.longest_ms as f64 / 1e3),
        }
    }
}

/// By kind and role: alone, and in pairs.
fn silences(struck: &[Struck], told: &[Told]) -> BTreeMap<(Kind, String), [Silence; 2]> {
    let mut successes: Vec<u64> =
        told.iter().filter(|told| told.status == Some(200)).map(|told| told.done_ms).collect();
    successes.sort_unstable();
    let mut silences: BTreeMap<(Kind, String), [Silence; 2]> = BTreeMap::new();
    for one in struck {
        let (from, until) = (one.at_ms, one.healed_ms + AFTERMATH_MS);
        let after = &successes[successes.partition_point(|at| *at < from)..];
        // The success that ends the last silence may come later.
        let within = after.partition_point(|at| *at < until);
        let ends = &after[..(within + 1).min(after.len())];
        let starts = std::iter::once(&from).chain(ends);
        let longest = ends.iter().zip(starts).map(|(end, start)| end - start).max().unwrap_or(until - from);
        let is_paired = struck.iter().filter(|other| other.fault == one.fault).count() > 1;
        let entry = silences.entry((one.strike.kind, one.strike.role.clone())).or_default();
        let silence = &mut entry[usize::from(is_paired)];
        silence.times += 1;
        silence.longest_ms = silence.longest_ms.max(longest);
    }
    silences
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Strike;

    fn struck(fault: usize, at_ms: u64, healed_ms: u64, role: &str) -> Struck {
        let (target, lasts) = (role.to_owned(), Duration::ZERO);
        let strike = Strike { kind: Kind::Kill, role: role.to_owned(), target, lasts, amount: 0 };
        Struck { fault, at_ms, healed_ms, strike }
    }

    fn told(sent_ms: u64, done_ms: u64, status: u16) -> Told {
        Told { order: 0, sent_ms, done_ms, status: Some(status) }
    }

    fn alone(longest_ms: u64) -> [Silence; 2] {
        [Silence { times: 1, longest_ms }, Silence::default()]
    }

    #[test]
    fn silence_is_the_longest_gap_between_successes() {
        let history: Vec<Told> = [900, 1_100, 3_600, 3_700].map(|at| told(at - 50, at, 200)).into();
        let silences = silences(&[struck(0, 1_000, 2_000, "stock-svc")], &history);
        assert_eq!(silences[&(Kind::Kill, "stock-svc".to_owned())], alone(2_500));
        let late = [told(0, 30_000, 200)];
        let struck = [struck(0, 1_000, 2_000, "kafka"), struck(1, 40_000, 41_000, "gateway")];
        let silences = super::silences(&struck, &late);
        assert_eq!(silences[&(Kind::Kill, "kafka".to_owned())], alone(29_000));
        assert_eq!(silences[&(Kind::Kill, "gateway".to_owned())], alone(9_000), "nothing ever after");
    }

    #[test]
    fn a_pair_is_counted_apart() {
        let pair = [struck(0, 1_000, 2_000, "kafka"), struck(0, 1_000, 3_000, "gateway")];
        let silences = silences(&pair, &[told(0, 4_000, 200)]);
        let paired = [Silence::default(), Silence { times: 1, longest_ms: 3_000 }];
        assert_eq!(silences[&(Kind::Kill, "kafka".to_owned())], paired);
    }
}
