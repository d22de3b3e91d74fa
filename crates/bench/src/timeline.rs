//! What the checkouts of a long open loop saw, one by one, and figures of a stretch of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::tally::Ended;

/// A checkout that took at least this long stood still.
pub const SLOW: Duration = Duration::from_secs(1);
/// Length of the worst second.
const SECOND: Duration = Duration::from_secs(1);
/// The worst second is looked for in steps of this.
const STEP: Duration = Duration::from_millis(100);

/// One checkout. Times count from the beginning of the load.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which order; empty when it was never sent.
    pub order: String,
    /// When it should have begun.
    pub due: Duration,
    /// From then to its answer.
    pub latency: Duration,
    /// How it ended.
    pub ended: Ended,
}

/// A stretch of time, its end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

/// Which checkouts count to a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that should have begun in it.
    Begun,
    /// Those that should have begun in it and were answered in it too.
    Whole,
    /// Those that were under way at any time in it, whenever they began.
    UnderWay,
}

/// All checkouts of a load.
#[derive(Debug)]
pub struct Timeline {
    /// In the order in which they should have begun.
    seen: Vec<Seen>,
    /// When the answers 200 came, in order.
    paid_at: Vec<Duration>,
}

/// How it was in a stretch of time. Latencies and statuses are those of the checkouts that count to it, silence and
/// seconds those of the answers that came in it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Length of the stretch.
    pub seconds: f64,
    /// Checkouts that count to it.
    pub checkouts: usize,
    /// Latency, milliseconds.
    pub p50_ms: f64,
    /// Latency, milliseconds.
    pub p99_ms: f64,
    /// Longest latency, milliseconds.
    pub max_ms: f64,
    /// How many took [`SLOW`] or longer.
    pub slow: usize,
    /// Longest time without an answer 200, milliseconds: whole if it began before, up to the stretch's end if it ends later.
    pub silence_ms: f64,
    /// Answers 200 in the worst second.
    pub worst_second: usize,
    /// Answers by status; `none` for those that got none.
    pub statuses: BTreeMap<String, u64>,
}

impl Timeline {
    /// Puts them in order.
    pub fn new(mut seen: Vec<Seen>) -> Self {
        seen.sort_by_key(|seen| seen.due);
        let paid = seen.iter().filter(|seen| seen.ended == Ended::Paid);
        let mut paid_at: Vec<Duration> = paid.map(|seen| seen.due + seen.latency).collect();
        paid_at.sort_unstable();
        Self { seen, paid_at }
    }

    /// Until the last answer.
    pub fn whole(&self) -> Span {
        let to = self.seen.iter().map(|seen| seen.due + seen.latency).max().unwrap_or_default();
        Span { from: Duration::ZERO, to }
    }

    /// Those that were not paid.
    pub fn unpaid(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.ended != Ended::Paid)
    }

    /// The figures of a stretch.
    pub fn figures(&self, span: Span, which: Which) -> Figures {
        let begun = &self.seen[..self.seen.partition_point(|seen| seen.due < span.to)];
        let counts = |seen: &&Seen| {
            let answered = seen.due + seen.latency;
            match which {
                Which::Begun => seen.due >= span.from,
                Which::Whole => seen.due >= span.from && answered <= span.to,
                Which::UnderWay => answered > span.from,
            }
        };
        let seen: Vec<&Seen> = begun.iter().filter(counts).collect();
        let mut latencies: Vec<Duration> = seen.iter().map(|seen| seen.latency).collect();
        latencies.sort_unstable();
        let mut statuses = BTreeMap::new();
        for seen in &seen {
            let status = seen.ended.status().map_or_else(|| "none".to_owned(), |status| status.to_string());
            *statuses.entry(status).or_default() += 1;
        }
        Figures {
            seconds: span.to.saturating_sub(span.from).as_secs_f64(),
            checkouts: seen.len(),
            p50_ms: percentile_ms(&latencies, 50.0),
            p99_ms: percentile_ms(&latencies, 99.0),
            max_ms: percentile_ms(&latencies, 100.0),
            slow: latencies.len() - latencies.partition_point(|latency| *latency < SLOW),
            silence_ms: longest_silence(&self.paid_at, span).as_secs_f64() * 1e3,
            worst_second: worst_second(&self.paid_at, span),
            statuses,
        }
    }

    /// Figures of each whole second from the beginning on.
    pub fn seconds(&self) -> Vec<Figures> {
        let whole = self.whole().to.as_secs();
        let second = |second| Span { from: Duration::from_secs(second), to: Duration::from_secs(second + 1) };
        (0..whole).map(|at| self.figures(second(at), Which::Begun)).collect()
    }
}

/// The smallest of the sorted latencies that so many per cent do not exceed.
fn percentile_ms(sorted: &[Duration], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.max(1) - 1).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

/// A silence that begins before the stretch counts whole, one that ends after it as far as it lies in it: what a change
/// holds up is not put down to the quiet time before it.
fn longest_silence(sorted: &[Duration], span: Span) -> Duration {
    let first = sorted.partition_point(|at| *at <= span.from);
    let behind = sorted.partition_point(|at| *at < span.to);
    let before = first.checked_sub(1).map_or(span.from, |last| sorted[last]);
    let within = sorted.get(first..behind).unwrap_or_default().iter().copied();
    let ends = within.clone().chain([span.to]);
    [before].into_iter().chain(within).zip(ends).map(|(from, to)| to.saturating_sub(from)).max().unwrap_or_default()
}

/// The fewest answers in any second that lies in the stretch; one that is shorter counts as the second from its
/// beginning.
fn worst_second(sorted: &[Duration], span: Span) -> usize {
    let until = |end: Duration| sorted.partition_point(|at| *at < end);
    let last = span.to.saturating_sub(SECOND);
    let begins = std::iter::successors(Some(span.from), |begin| Some(*begin + STEP)).take_while(|begin| *begin <= last);
    begins.chain([span.from.max(last)]).map(|begin| until(begin + SECOND) - until(begin)).min().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn span(from_ms: u64, to_ms: u64) -> Span {
        Span { from: ms(from_ms), to: ms(to_ms) }
    }

    pub(crate) fn seen(due_ms: u64, latency_ms: u64, status: Option<u16>) -> Seen {
        let ended = Ended::from_status(status);
        Seen { order: due_ms.to_string(), due: ms(due_ms), latency: ms(latency_ms), ended }
    }

    /// A hundred a second for so long; from 2 s to 3 s nothing is answered, and then all of it at once.
    pub(crate) fn stalled(seconds: u64) -> Vec<Seen> {
        let latency = |due| if (2_000..3_000).contains(&due) { 3_000 - due + 5 } else { 5 };
        (0..seconds * 100).map(|number| number * 10).map(|due| seen(due, latency(due), Some(200))).collect()
    }

    #[test]
    fn a_silence_is_the_longest_time_between_two_answers() {
        let answers = [ms(100), ms(200), ms(1_200), ms(1_300), ms(4_000)];
        let cases = [
            (span(0, 5_000), 2_700, "the longest one"),
            (span(0, 1_000), 800, "up to the end, although it ends later"),
            (span(300, 1_250), 1_000, "whole, although it began before"),
            (span(2_000, 3_000), 1_700, "without an answer in the stretch"),
            (span(1_200, 1_250), 50, "from an answer at its beginning"),
            (span(0, 150), 100, "to the first answer"),
            (span(4_100, 9_000), 5_000, "after the last one"),
        ];
        for (span, expected, why) in cases {
            assert_eq!(longest_silence(&answers, span), ms(expected), "{why}");
        }
        assert_eq!(longest_silence(&[], span(1_000, 3_000)), ms(2_000));
    }

    #[test]
    fn the_worst_second_has_the_fewest_answers() {
        // Ten a second, but none from 2 350 to 3 050 ms.
        let answers: Vec<Duration> =
            (0..100).map(|at| at * 100).filter(|at| !(2_350..3_050).contains(at)).map(ms).collect();
        assert_eq!(worst_second(&answers, span(0, 2_000)), 10);
        assert_eq!(worst_second(&answers, span(0, 9_000)), 3);
        assert_eq!(worst_second(&answers, span(2_500, 2_600)), 4, "shorter than a second");
        assert_eq!(worst_second(&[], span(0, 9_000)), 0);
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let latencies: Vec<Duration> = (1..=200).map(ms).collect();
        let of = |percent| percentile_ms(&latencies, percent);
        assert!([(50.0, 100.0), (99.0, 198.0), (100.0, 200.0)].iter().all(|(p, ms)| (of(*p) - ms).abs() < 1e-9));
        assert!((percentile_ms(&[ms(7)], 50.0) - 7.0).abs() < 1e-9);
        assert!(percentile_ms(&[], 50.0).is_nan());
    }

    #[test]
    fn a_stall_shows_in_the_stretch_in_which_checkouts_should_have_begun() {
        let mut all = stalled(5);
        all.reverse();
        let timeline = Timeline::new(all);
        let quiet = timeline.figures(span(0, 2_000), Which::Begun);
        assert_eq!((quiet.checkouts, quiet.slow, quiet.worst_second), (200, 0, 100));
        assert!((quiet.max_ms - 5.0).abs() < 1e-9);
        let stall = timeline.figures(span(2_000, 3_000), Which::Begun);
        assert_eq!((stall.checkouts, stall.slow), (100, 1), "only the first waits for a second");
        assert!((stall.max_ms - 1_005.0).abs() < 1e-9 && (stall.p50_ms - 505.0).abs() < 1e-9, "{stall:?}");
        assert!((stall.silence_ms - 1_005.0).abs() < 1e-9, "{stall:?}");
        assert_eq!(stall.statuses, BTreeMap::from([("200".to_owned(), 100)]));
        let seconds: Vec<f64> = timeline.seconds().iter().map(|second| second.max_ms).collect();
        assert_eq!(seconds.len(), 4, "the last one is not whole: {seconds:?}");
    }

    #[test]
    fn what_was_under_way_counts_where_it_was_held_up() {
        let timeline = Timeline::new(vec![
            seen(100, 10, Some(200)),
            seen(900, 5_000, Some(200)),
            seen(1_500, 10, Some(200)),
            seen(1_990, 20, Some(200)),
        ]);
        let of = |span, which| (timeline.figures(span, which).checkouts, timeline.figures(span, which).max_ms);
        assert_eq!(of(span(0, 1_000), Which::Begun), (2, 5_000.0));
        assert_eq!(of(span(0, 1_000), Which::Whole), (1, 10.0));
        assert_eq!(of(span(1_000, 2_000), Which::UnderWay), (3, 5_000.0));
        assert_eq!(of(span(2_000, 3_000), Which::UnderWay), (2, 5_000.0));
        assert_eq!(of(span(2_000, 3_000), Which::Begun).0, 0);
    }

    #[test]
    fn whoever_was_not_told_200_is_found_and_ends_no_silence() {
        let timeline = Timeline::new(vec![
            seen(0, 10, Some(200)),
            seen(100, 10, Some(504)),
            seen(200, 10, None),
            seen(300, 10, Some(200)),
        ]);
        let orders: Vec<&str> = timeline.unpaid().map(|seen| seen.order.as_str()).collect();
        assert_eq!(orders, ["100", "200"]);
        let figures = timeline.figures(timeline.whole(), Which::Begun);
        let statuses = [("200", 2), ("504", 1), ("none", 1)].map(|(status, count)| (status.to_owned(), count));
        assert_eq!(figures.statuses, BTreeMap::from(statuses));
        assert!((figures.silence_ms - 300.0).abs() < 1e-9, "{figures:?}");
    }
}
