//! What a measurement of rebalances found out: table, JSON, picture.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::curve::median;
use crate::diagram::{Diagram, HEIGHT, Line, MARGIN, Scale, WIDTH};
use crate::run::Plan;
use crate::timeline::{Figures, SLOW, Seen, Span, Timeline, Which};

/// Most findings that are printed: the first ones say what is wrong. All are in the JSON.
const MAX_SHOWN: usize = 20;

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It starts, and lanes come to it.
    Comes,
    /// It gets SIGTERM, and its lanes go back.
    Goes,
}

/// One change of owners.
#[derive(Clone, Debug)]
pub struct Change {
    /// In which round.
    pub round: u32,
    /// Which replica.
    pub name: String,
    /// What it does.
    pub what: What,
    /// Lanes that have another owner afterwards.
    pub lanes: u64,
    /// Whether it ended by itself and well; true for one that comes.
    pub has_drained: bool,
    /// From the order to it until every lane was served again.
    pub served_after: Duration,
    /// From the order to it until what had waited was worked off.
    pub during: Span,
    /// The time without a change before it.
    pub quiet: Span,
}

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Checkouts that arrived per second.
    rate: f64,
    /// Replicas of each service, without the one that comes and goes.
    replicas: u32,
    /// Partitions of each topic.
    partitions: u32,
    /// Milliseconds of the fixed CPU loop, before and after: the speed of the machine.
    pub fixed_loop_ms: [f64; 2],
    /// The changes, in order.
    changes: Vec<Row>,
    /// The whole time.
    whole: Figures,
    /// By second.
    seconds: Vec<Figures>,
    /// Answers other than 200, and replicas that had to be killed.
    pub findings: Vec<String>,
}

/// A change as figures.
#[derive(Debug, Serialize)]
struct Row {
    round: u32,
    name: String,
    what: What,
    lanes: u64,
    /// When it began, seconds from the beginning of the load.
    at_s: f64,
    served_after_s: f64,
    during: Figures,
    quiet: Figures,
    /// The p99 during the change as a multiple of that before it.
    p99_ratio: f64,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Comes => "comes",
            Self::Goes => "goes",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what, lanes, served_after, .. } = self;
        write!(f, "{name} {what}, {lanes} lanes, served again after {:.1} s", served_after.as_secs_f64())
    }
}

impl Report {
    /// Puts changes and checkouts together.
    pub fn new(rate: f64, plan: &Plan, changes: &[Change], timeline: &Timeline) -> Self {
        let killed = changes.iter().filter(|change| !change.has_drained);
        let killed = killed.map(|change| format!("{change}: it did not end by itself, or not well"));
        let rows = changes.iter().map(|change| {
            // Those that were under way when the order came belong to the change, not to the quiet time before it.
            let during = timeline.figures(change.during, Which::UnderWay);
            let quiet = timeline.figures(change.quiet, Which::Whole);
            Row {
                round: change.round,
                name: change.name.clone(),
                what: change.what,
                lanes: change.lanes,
                at_s: change.during.from.as_secs_f64(),
                served_after_s: change.served_after.as_secs_f64(),
                p99_ratio: during.p99_ms / quiet.p99_ms,
                during,
                quiet,
            }
        });
        Self {
            rate,
            replicas: plan.replicas,
            partitions: plan.partitions,
            fixed_loop_ms: [f64::NAN; 2],
            changes: rows.collect(),
            whole: timeline.figures(timeline.whole(), Which::Begun),
            seconds: timeline.seconds(),
            findings: killed.chain(timeline.unpaid().map(|seen| finding(seen, changes))).collect(),
        }
    }

    /// A table for the terminal.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} checkouts/s, {} replicas of each service and one that comes and goes, {} partitions; quiet time in brackets\n\
             {:<6}{:<22}{:>6}{:>10}{:>16}{:>16}{:>16}{:>7}{:>9}{:>8}{:>14}{:>9}\n",
            self.rate,
            self.replicas,
            self.partitions,
            "round",
            "change",
            "lanes",
            "served s",
            "silence ms",
            "p50 ms",
            "p99 ms",
            "ratio",
            "max ms",
            "slow",
            "worst s",
            "not 200"
        );
        for row in &self.changes {
            text.push_str(&row.text());
        }
        text.push_str(&self.summary());
        for finding in self.findings.iter().take(MAX_SHOWN) {
            // Infallible: it writes into a String. So below.
            let _ = writeln!(text, "FINDING: {finding}");
        }
        if let Some(more @ 1..) = self.findings.len().checked_sub(MAX_SHOWN) {
            let _ = writeln!(text, "and {more} more");
        }
        text
    }

    fn summary(&self) -> String {
        let ratios: Vec<f64> = self.changes.iter().map(|row| row.p99_ratio).collect();
        let most = |figure: fn(&Figures) -> f64| self.changes.iter().map(|row| figure(&row.during)).fold(0.0, f64::max);
        let during: usize = self.changes.iter().map(|row| row.during.checkouts).sum();
        let slow: usize = self.changes.iter().map(|row| row.during.slow).sum();
        let worst = self.changes.iter().map(|row| row.during.worst_second).min().unwrap_or_default();
        let statuses: Vec<String> =
            self.whole.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        format!(
            "over all changes: longest silence {:.0} ms, slowest checkout {:.0} ms, {slow} of {during} checkouts took {} s or \
             longer, {worst} answers in the worst second; p99 against quiet time {:.2} (median), at most {:.2}\n\
             answers of the whole time: {}; longest silence {:.0} ms\nfixed CPU loop: {:.0} ms before, {:.0} ms after\n",
            most(|during| during.silence_ms),
            most(|during| during.max_ms),
            SLOW.as_secs(),
            median(&ratios),
            ratios.iter().copied().fold(0.0, f64::max),
            statuses.join(", "),
            self.whole.silence_ms,
            self.fixed_loop_ms[0],
            self.fixed_loop_ms[1]
        )
    }

    /// Answers and the slowest checkout by second, as SVG; the changes stand below by their number in the table.
    pub fn picture(&self) -> String {
        let (width, height) = (2.0 * (WIDTH + MARGIN) + MARGIN, HEIGHT + 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        let count = self.seconds.len().max(1) as f64;
        let marks = self.changes.iter().enumerate().map(|(at, row)| (row.at_s / count, format!("{}", at + 1)));
        let marks: Vec<(f64, String)> = marks.collect();
        let mut draw = |left, title, figure: fn(&Figures) -> f64| {
            let points =
                self.seconds.iter().enumerate().map(|(at, second)| ((at as f64 + 0.5) / count, figure(second)));
            let points: Vec<(f64, f64)> = points.filter(|(_, y)| y.is_finite()).collect();
            let scale = Scale::linear(points.iter().map(|(_, y)| *y));
            let lines = vec![Line { points, ..Line::default() }];
            let x_title = "the changes, in the order of the table";
            Diagram { left, top: MARGIN, title, x_title, x_marks: marks.clone(), scale, lines }.draw(&mut svg);
        };
        draw(MARGIN, "checkouts answered 200, by second", |second| second.worst_second as f64);
        draw(WIDTH + 2.0 * MARGIN, "slowest checkout by the second of its arrival, ms", |second| second.max_ms);
        svg.push_str("</svg>\n");
        svg
    }
}

impl Row {
    fn text(&self) -> String {
        let Self { during, quiet, .. } = self;
        let pair = |figure: fn(&Figures) -> f64| format!("{:.0} ({:.0})", figure(during), figure(quiet));
        let not_200 = during.checkouts as u64 - during.statuses.get("200").copied().unwrap_or_default();
        format!(
            "{:<6}{:<22}{:>6}{:>10.1}{:>16}{:>16}{:>16}{:>7.2}{:>9.0}{:>8}{:>14}{:>9}\n",
            self.round,
            format!("{} {}", self.name, self.what),
            self.lanes,
            self.served_after_s,
            pair(|figures| figures.silence_ms),
            pair(|figures| figures.p50_ms),
            pair(|figures| figures.p99_ms),
            self.p99_ratio,
            during.max_ms,
            during.slow,
            pair(|figures| figures.worst_second as f64),
            not_200
        )
    }
}

/// A checkout that was not paid, in words.
fn finding(seen: &Seen, changes: &[Change]) -> String {
    let answered = seen.due + seen.latency;
    let during = changes.iter().find(|change| seen.due < change.during.to && answered > change.during.from);
    let before = || changes.iter().rfind(|change| change.during.from <= seen.due);
    let place = during.map(|change| ("while", change)).or_else(|| Some(("some time after", before()?)));
    let change = place.map_or_else(String::new, |(place, change)| {
        format!(", {place} {} {} in round {}", change.name, change.what, change.round)
    });
    let answer = seen.ended.status().map_or_else(|| "got no answer".to_owned(), |status| format!("was told {status}"));
    let order = if seen.order.is_empty() {
        "an order that could not be sent".to_owned()
    } else {
        format!("order {}", seen.order)
    };
    format!(
        "{order}, due {:.3} s after the beginning{change}, {answer} after {:.0} ms",
        seen.due.as_secs_f64(),
        seen.latency.as_secs_f64() * 1e3
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::timeline::tests::{seen, stalled};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: Plan,
    }

    fn change(from_s: u64, to_s: u64, what: What) -> Change {
        let span = |from, to| Span { from: Duration::from_secs(from), to: Duration::from_secs(to) };
        Change {
            round: 1,
            name: "stock-svc-3".to_owned(),
            what,
            lanes: 33,
            has_drained: true,
            served_after: Duration::from_millis(900),
            during: span(from_s, to_s),
            quiet: span(from_s - 1, from_s),
        }
    }

    fn report(log: Vec<Seen>, changes: &[Change]) -> Report {
        Report::new(100.0, &Cli::parse_from(["bench"]).plan, changes, &Timeline::new(log))
    }

    #[test]
    fn a_change_stands_beside_its_quiet_time() {
        let mut log = stalled(6);
        log.push(seen(1_999, 1_500, Some(200)));
        let report = report(log, &[change(2, 4, What::Comes)]);
        let line =
            report.text().lines().nth(2).expect("a line").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let expected = "1 stock-svc-3 comes 33 0.9 1010 (10) 15 (5) 995 (5) 199.00 1500 2 0 (100) 0";
        assert_eq!(line, expected.split(' ').collect::<Vec<_>>());
        assert!(report.findings.is_empty());
        assert!(report.text().contains("2 of 201 checkouts took 1 s"), "{}", report.text());
    }

    #[test]
    fn whatever_is_not_200_is_named_with_its_change() {
        let mut log = stalled(6);
        log.extend([seen(2_501, 30_000, Some(504)), seen(4_501, 3, None)]);
        let mut goes = change(2, 4, What::Goes);
        goes.has_drained = false;
        let report = report(log, &[goes]);
        assert_eq!(report.findings.len(), 3, "{:?}", report.findings);
        assert!(report.findings[0].starts_with("stock-svc-3 goes"));
        let while_it_went =
            "order 2501, due 2.501 s after the beginning, while stock-svc-3 goes in round 1, was told 504 after";
        assert!(report.findings[1].starts_with(while_it_went), "{}", report.findings[1]);
        assert!(report.findings[2].contains("some time after stock-svc-3 goes in round 1, got no answer"));
        assert!(report.text().contains("FINDING: order 4501"));
        assert!(report.text().contains("200: 600, 504: 1, none: 1"), "{}", report.text());
    }

    #[test]
    fn the_picture_has_a_mark_for_each_change() {
        let report = report(stalled(9), &[change(2, 4, What::Comes), change(6, 7, What::Goes)]);
        let svg = report.picture();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">1</text>") && svg.contains(">2</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
