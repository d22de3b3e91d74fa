//! A run as a picture: throughput over time and the curve of latency, one line for each phase.

use std::fmt::Write as _;

use crate::diagram::{COLOURS, Diagram, HEIGHT, Line, MARGIN, Scale, WIDTH};
use crate::result::{Phase, Run};

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
        // Infallible: it writes into a String.
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
    let whole = |phase: &Phase| phase.seconds.floor().max(1.0) as usize;
    let longest = run.phases.iter().map(whole).max().unwrap_or(1);
    let line = |(colour, phase): (usize, &Phase)| {
        // The last second is not a whole one.
        let seconds = phase.paid_by_second.iter().take(whole(phase)).enumerate();
        let points = seconds.map(|(second, paid)| ((second as f64 + 0.5) / longest as f64, *paid as f64)).collect();
        Line { colour, points, ..Line::default() }
    };
    let lines: Vec<Line> = run.phases.iter().enumerate().map(line).collect();
    Diagram {
        left: MARGIN,
        top: MARGIN,
        title: "paid checkouts per second",
        x_title: "seconds",
        x_marks: (0..=4).map(|mark| (f64::from(mark) / 4.0, format!("{}", longest * mark as usize / 4))).collect(),
        scale: scale(&lines),
        lines,
    }
}

/// Percentiles are drawn by how many requests are slower: each step to the right is a tenth of them.
fn latency(run: &Run) -> Diagram<'static> {
    const DECADES: f64 = 4.0;
    let x = |percentile: f64| (-(1.0 - percentile / 100.0).max(1e-4).log10() / DECADES).min(1.0);
    let line = |(colour, phase): (usize, &Phase)| {
        let points = phase.latency_ms.iter().filter(|(percentile, _)| *percentile < 100.0);
        let points = points.map(|(percentile, ms)| (x(*percentile), *ms)).collect();
        Line { colour, points, ..Line::default() }
    };
    let lines: Vec<Line> = run.phases.iter().enumerate().map(line).collect();
    Diagram {
        left: WIDTH + 2.0 * MARGIN,
        top: MARGIN,
        title: "latency, milliseconds",
        x_title: "per cent of the checkouts that are at least as fast",
        x_marks: [0.0, 90.0, 99.0, 99.9, 99.99].map(|percentile| (x(percentile), format!("{percentile}"))).to_vec(),
        scale: scale(&lines),
        lines,
    }
}

fn scale(lines: &[Line]) -> Scale {
    Scale::linear(lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y))
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
