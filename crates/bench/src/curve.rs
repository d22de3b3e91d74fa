//! What a sweep measured, as figures: medians over the rounds, and ratios within each round.

use std::fmt::Write as _;

use crate::compare::DOUBTFUL_SPREAD;
use crate::fsync::Fsync;
use crate::result::{Phase, Run};

/// The runs of a sweep.
#[derive(Debug)]
pub struct Measured {
    /// What was varied.
    pub name: String,
    /// Its values.
    pub values: Vec<Value>,
    /// By value, then by round; nothing where a run failed or was not made.
    pub runs: Vec<Vec<Option<Run>>>,
    /// Which runs failed, and why.
    pub failures: Vec<String>,
}

/// One value of what is varied.
#[derive(Debug)]
pub struct Value {
    /// As it was written.
    pub text: String,
    /// How safe it is.
    pub fsync: Fsync,
}

/// All values under one load.
#[derive(Debug)]
pub struct Series {
    /// The load, or what was varied where that is the load.
    pub title: String,
    /// One for each value.
    pub rows: Vec<Row>,
}

/// The figures of one value: one for each round in which it was measured.
#[derive(Debug, Default)]
pub struct Row {
    /// Checkouts per second.
    pub per_second: Vec<f64>,
    /// Latency, milliseconds.
    pub p50_ms: Vec<f64>,
    /// Latency, milliseconds.
    pub p99_ms: Vec<f64>,
    /// CPU time of all processes, microseconds per checkout.
    pub cpu_us: Vec<f64>,
    /// Throughput as a multiple of the first value's in the same round.
    pub ratios: Vec<f64>,
    /// CPU time as a multiple of the first value's in the same round.
    pub cpu_ratios: Vec<f64>,
    /// The largest difference of fixed loops within the runs that one ratio compares, as a share.
    pub loop_spread: f64,
}

impl Measured {
    /// Nothing measured yet.
    pub fn new(name: &str, values: Vec<Value>, rounds: usize) -> Self {
        let runs = vec![vec![None; rounds]; values.len()];
        Self { name: name.to_owned(), values, runs, failures: Vec::new() }
    }

    /// One for each load.
    pub fn series(&self) -> Vec<Series> {
        let phases = self.runs.iter().flatten().flatten().map(|run| run.phases.len()).max().unwrap_or(0);
        (0..phases).map(|phase| self.one_series(phase)).collect()
    }

    fn one_series(&self, phase: usize) -> Series {
        let runs = self.runs.iter().flatten().flatten();
        let mut loads: Vec<String> =
            runs.filter_map(|run| run.phases.get(phase)).map(|it| it.load.to_string()).collect();
        loads.dedup();
        let title = if loads.len() == 1 { loads.remove(0) } else { self.name.clone() };
        Series { title, rows: (0..self.values.len()).map(|place| self.row(place, phase)).collect() }
    }

    fn row(&self, place: usize, phase: usize) -> Row {
        let mut row = Row::default();
        for (run, first) in self.runs[place].iter().zip(&self.runs[0]) {
            let Some((run, measured)) = phase_of(run.as_ref(), phase) else { continue };
            row.per_second.push(measured.per_second());
            row.p50_ms.push(measured.latency_ms(50.0));
            row.p99_ms.push(measured.latency_ms(99.0));
            row.cpu_us.push(measured.cpu_us_in_all());
            let Some((first, neighbour)) = phase_of(first.as_ref(), phase) else { continue };
            row.ratios.push(measured.per_second() / neighbour.per_second());
            row.cpu_ratios.push(measured.cpu_us_in_all() / neighbour.cpu_us_in_all());
            let (least, most) = range([run.fixed_loop_ms, first.fixed_loop_ms].as_flattened());
            row.loop_spread = row.loop_spread.max(most / least - 1.0);
        }
        row
    }

    /// The fixed loop over all runs, milliseconds: least and most.
    pub fn fixed_loop_ms(&self) -> (f64, f64) {
        let loops: Vec<f64> = self.runs.iter().flatten().flatten().flat_map(|run| run.fixed_loop_ms).collect();
        range(&loops)
    }

    /// The value that counts as 1.
    pub fn first(&self) -> String {
        self.values.first().map(|value| format!("{}={}", self.name, value.text)).unwrap_or_default()
    }

    /// A table for the terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for series in self.series() {
            let head = ["per s", "ratio", "p50 ms", "p99 ms", "CPU µs", "ratio of CPU", "loop ±"];
            // Infallible: it writes into a String. So below.
            let _ = writeln!(text, "{:<26}{}", series.title, line(&head.map(str::to_owned)));
            for (value, row) in self.values.iter().zip(&series.rows) {
                let label = format!("  {}={}", self.name, value.text);
                let _ = writeln!(text, "{label:<26}{}{}", line(&row.cells()), value.fsync.mark());
            }
        }
        for note in self.notes() {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// The same as Markdown.
    pub fn markdown(&self, command: &str, picture: &str) -> String {
        let mut text = format!("# {}\n\n`./dev bench {command}`\n\n![curves]({picture})\n", self.name);
        for series in self.series() {
            let _ = write!(
                text,
                "\n## {}\n\n| {} | checkouts/s | ratio | p50 ms | p99 ms | CPU µs per checkout | ratio of CPU | fixed loop ± |\n\
                 |---|---:|---:|---:|---:|---:|---:|---:|\n",
                series.title, self.name
            );
            for (value, row) in self.values.iter().zip(&series.rows) {
                let warning = value.fsync.warning().map(|warning| format!(" ({warning})")).unwrap_or_default();
                let label = value.text.replace('|', "\\|");
                let _ = writeln!(text, "| {label}{warning} | {} |", row.cells().join(" | "));
            }
        }
        text.push('\n');
        for note in self.notes() {
            let _ = writeln!(text, "- {note}");
        }
        text
    }

    /// What has to be known about the tables.
    pub fn notes(&self) -> Vec<String> {
        let (least, most) = self.fixed_loop_ms();
        let mut notes = vec![
            format!("medians over the rounds; a ratio is to {} of the same round: median (least..most)", self.first()),
            format!(
                "loop ±: how far the fixed CPU loop differed before and after the runs that one ratio compares; in all it \
                 took {least:.0} to {most:.0} ms"
            ),
        ];
        if self.series().iter().flat_map(|series| &series.rows).any(|row| row.loop_spread > DOUBTFUL_SPREAD) {
            notes.push("the machine was not equally fast within a round: a ratio with ? is doubtful".to_owned());
        }
        notes.extend(self.failures.iter().map(|failure| format!("FAILED: {failure}")));
        notes
    }
}

impl Row {
    /// Throughput as a multiple of the first value's: median and range over the rounds.
    pub fn ratio(&self) -> String {
        self.with_range(&self.ratios)
    }

    /// The same of the CPU time.
    pub fn cpu_ratio(&self) -> String {
        self.with_range(&self.cpu_ratios)
    }

    fn with_range(&self, ratios: &[f64]) -> String {
        let (value, (least, most)) = (median(ratios), range(ratios));
        let doubt = if self.loop_spread > DOUBTFUL_SPREAD { "?" } else { "" };
        if value.is_finite() { format!("{value:.2} ({least:.2}..{most:.2}){doubt}") } else { "-".to_owned() }
    }

    fn cells(&self) -> [String; 7] {
        let figure = |values: &[f64], decimals: usize| match median(values) {
            value if value.is_finite() => format!("{value:.decimals$}"),
            _ => "-".to_owned(),
        };
        let spread = if self.ratios.is_empty() { "-".to_owned() } else { format!("{:.0} %", self.loop_spread * 100.0) };
        [
            figure(&self.per_second, 0),
            self.ratio(),
            figure(&self.p50_ms, 1),
            figure(&self.p99_ms, 1),
            figure(&self.cpu_us, 0),
            self.cpu_ratio(),
            spread,
        ]
    }
}

fn line(cells: &[String; 7]) -> String {
    let [per_second, ratio, p50, p99, cpu, cpu_ratio, spread] = cells;
    format!("{per_second:>8} {ratio:>19} {p50:>8} {p99:>8} {cpu:>8} {cpu_ratio:>19} {spread:>7}")
}

fn phase_of(run: Option<&Run>, phase: usize) -> Option<(&Run, &Phase)> {
    let run = run?;
    Some((run, run.phases.get(phase)?))
}

/// Least and most; both 0 without any.
fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    (least, values.iter().copied().reduce(f64::max).unwrap_or(0.0))
}

/// The middle one, or the middle of the two; not a number without any.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get((sorted.len().max(1) - 1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::result::Load;
    use crate::result::tests::run;

    use super::*;

    /// Made-up results: checkouts in ten seconds, by value and round.
    pub(crate) fn measured(name: &str, values: &[(&str, Fsync, &[u64])]) -> Measured {
        let value = |(text, fsync, _): &(&str, Fsync, &[u64])| Value { text: (*text).to_owned(), fsync: *fsync };
        let rounds = values.iter().map(|(.., paid)| paid.len()).max().unwrap_or(0);
        let mut measured = Measured::new(name, values.iter().map(value).collect(), rounds);
        for (place, (.., paid)) in values.iter().enumerate() {
            for (round, paid) in paid.iter().enumerate() {
                measured.runs[place][round] = Some(run(64, *paid, 10.0, *paid as f64));
            }
        }
        measured
    }

    #[test]
    fn ratios_compare_the_runs_of_one_round() {
        // The machine was half as fast in the second round: across rounds there would be ratios of 0.25 and 1.
        let measured = measured(
            "replicas",
            &[("1", Fsync::Always, &[2000, 1000, 2000]), ("3", Fsync::Always, &[1000, 500, 1200])],
        );
        let row = &measured.series()[0].rows[1];
        assert_eq!((&row.ratios, &row.cpu_ratios), (&vec![0.5, 0.5, 0.6], &vec![0.5, 0.5, 0.6]));
        let text = measured.text();
        let line = text.lines().find(|line| line.contains("replicas=3")).unwrap();
        assert_eq!(line.split_whitespace().take(4).collect::<Vec<_>>(), ["replicas=3", "100", "0.50", "(0.50..0.60)"]);
        assert!(
            measured.markdown("sweep", "replicas.svg").contains("| 3 | 100 | 0.50 (0.50..0.60) | 2.5 | 10.0 | 1000 |")
        );
    }

    #[test]
    fn a_round_without_its_neighbour_has_no_ratio() {
        let mut measured =
            measured("replicas", &[("1", Fsync::Always, &[1000, 1000]), ("3", Fsync::Always, &[500, 800])]);
        measured.runs[0][0] = None;
        measured.failures.push("round 1, replicas=1: made up".to_owned());
        let row = &measured.series()[0].rows[1];
        assert_eq!((row.ratios.as_slice(), row.per_second.len()), ([0.8].as_slice(), 2));
        assert!(measured.text().contains("FAILED: round 1, replicas=1: made up"));
        measured.runs[0][1] = None;
        let text = measured.text();
        let line = text.lines().find(|line| line.contains("replicas=3")).unwrap();
        assert_eq!(line.split_whitespace().nth(2), Some("-"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn the_loop_counts_within_a_round_only() {
        let mut measured =
            measured("replicas", &[("1", Fsync::Always, &[1000, 1000]), ("3", Fsync::Always, &[500, 500])]);
        for place in 0..2 {
            measured.runs[place][1].as_mut().unwrap().fixed_loop_ms = [400.0, 404.0];
        }
        assert!((measured.series()[0].rows[1].loop_spread - 0.01).abs() < 1e-9);
        assert!(!measured.text().contains('?') && measured.text().contains("200 to 404 ms"));
        measured.runs[1][0].as_mut().unwrap().fixed_loop_ms[1] = 250.0;
        assert!(measured.text().contains("0.50 (0.50..0.50)?") && measured.text().contains("doubtful"));
    }

    #[test]
    fn what_may_be_forgotten_is_marked_everywhere() {
        let measured = measured("appendfsync", &[("always", Fsync::Always, &[1000]), ("no", Fsync::No, &[2000])]);
        for text in [measured.text(), measured.markdown("sweep", "appendfsync.svg")] {
            let row = |value: &str| text.lines().find(|line| line.contains(value)).unwrap().to_owned();
            let (safe, quick) = if text.contains("| always") { ("| always", "| no") } else { ("=always", "=no") };
            assert!(row(quick).contains("not safe: Redis may forget what it acknowledged"), "{text}");
            assert!(!row(safe).contains("not safe"), "{text}");
        }
    }

    #[test]
    fn where_the_load_is_varied_the_values_stay_together() {
        let mut measured = measured("rate", &[("50", Fsync::Always, &[500]), ("100", Fsync::Always, &[1000])]);
        for (place, rate) in [50.0, 100.0].into_iter().enumerate() {
            measured.runs[place][0].as_mut().unwrap().phases[0].load = Load::Rate(rate);
        }
        let series = measured.series();
        assert_eq!((series.len(), series[0].title.as_str()), (1, "rate"));
        assert_eq!(series[0].rows[1].ratios, [2.0]);
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
