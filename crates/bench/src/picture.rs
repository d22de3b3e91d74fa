//! A run as a picture: throughput over time and the curve of latency, one line for each phase.

use std::fmt::Write as _;

use crate::result::Run;

/// Width and height of one diagram, and the room around it, in pixels.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 60.0;
/// Colours that people who do not see red and green apart can tell from each other.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

struct Diagram<'a> {
    left: f64,
    title: &'a str,
    x_title: &'a str,
    /// Marks on the x axis: where, from 0 to 1, and their texts.
    x_marks: Vec<(f64, String)>,
    /// Largest y.
    most: f64,
    /// Points of each line, x from 0 to 1.
    lines: Vec<Vec<(f64, f64)>>,
}

/// Draws the run as SVG.
pub fn draw(run: &Run) -> String {
    let (width, height) = (2.0 * (WIDTH + MARGIN) + MARGIN, HEIGHT + 2.0 * MARGIN + 20.0 * run.phases.len() as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    throughput(run).draw(&mut svg);
    latency(run).draw(&mut svg);
    for (number, phase) in run.phases.iter().enumerate() {
        let y = HEIGHT + 2.0 * MARGIN + 20.0 * number as f64 - 10.0;
        let (colour, load) = (COLOURS[number % COLOURS.len()], phase.load);
        // Infallible: it writes into a String. So below.
        let _ = writeln!(
            svg,
            "<rect x=\"{MARGIN}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{}: \
             {load}, {:.0} checkouts/s, p50 {:.1} ms, p99 {:.1} ms</text>",
            y - 6.0,
            MARGIN + 18.0,
            run.scenario.name(),
            phase.per_second(),
            phase.latency_ms(50.0),
            phase.latency_ms(99.0)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn throughput(run: &Run) -> Diagram<'static> {
    let whole = |phase: &crate::result::Phase| phase.seconds.floor().max(1.0) as usize;
    let longest = run.phases.iter().map(whole).max().unwrap_or(1);
    let line = |phase: &crate::result::Phase| {
        // The last second is not a whole one.
        let seconds = phase.paid_by_second.iter().take(whole(phase)).enumerate();
        seconds.map(|(second, paid)| ((second as f64 + 0.5) / longest as f64, *paid as f64)).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = run.phases.iter().map(line).collect();
    Diagram {
        left: MARGIN,
        title: "paid checkouts per second",
        x_title: "seconds",
        x_marks: (0..=4).map(|mark| (f64::from(mark) / 4.0, format!("{}", longest * mark as usize / 4))).collect(),
        most: most(&lines),
        lines,
    }
}

/// Percentiles are drawn by how many requests are slower: each step to the right is a tenth of them.
fn latency(run: &Run) -> Diagram<'static> {
    const DECADES: f64 = 4.0;
    let x = |percentile: f64| (-(1.0 - percentile / 100.0).max(1e-4).log10() / DECADES).min(1.0);
    let line = |phase: &crate::result::Phase| {
        let points = phase.latency_ms.iter().filter(|(percentile, _)| *percentile < 100.0);
        points.map(|(percentile, ms)| (x(*percentile), *ms)).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = run.phases.iter().map(line).collect();
    Diagram {
        left: WIDTH + 2.0 * MARGIN,
        title: "latency, milliseconds",
        x_title: "per cent of the checkouts that are at least as fast",
        x_marks: [0.0, 90.0, 99.0, 99.9, 99.99].map(|percentile| (x(percentile), format!("{percentile}"))).to_vec(),
        most: most(&lines),
        lines,
    }
}

fn most(lines: &[Vec<(f64, f64)>]) -> f64 {
    lines.iter().flatten().map(|(_, y)| *y).fold(1.0, f64::max) * 1.05
}

impl Diagram<'_> {
    fn draw(&self, svg: &mut String) {
        let (left, bottom) = (self.left, MARGIN + HEIGHT);
        let y = |value: f64| bottom - value / self.most * HEIGHT;
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>", MARGIN - 14.0, self.title);
        for mark in 0..=4 {
            let value = self.most * f64::from(mark) / 4.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" \
                 text-anchor=\"end\" fill=\"#555\">{value:.0}</text>",
                left + WIDTH,
                y(value),
                left - 6.0,
                y(value) + 4.0
            );
        }
        for (place, text) in &self.x_marks {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{text}</text>",
                left + place * WIDTH,
                bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            left + WIDTH / 2.0,
            bottom + 34.0,
            self.x_title
        );
        for (number, line) in self.lines.iter().enumerate() {
            let points: Vec<String> =
                line.iter().map(|(x, value)| format!("{:.1},{:.1}", left + x * WIDTH, y(*value))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
                points.join(" "),
                COLOURS[number % COLOURS.len()]
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::result::tests::run;

    use super::*;

    #[test]
    fn every_phase_has_a_line_in_both_diagrams() {
        let mut both = run(64, 1000, 40.0, 500.0);
        both.phases.extend(run(256, 2000, 80.0, 400.0).phases);
        let svg = draw(&both);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(svg.contains("256 connections, 200 checkouts/s"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
