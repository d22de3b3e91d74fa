//! A sweep as a picture: throughput, latency and CPU time over what was varied. Every round is a dot, lines go through the
//! medians.

use std::fmt::Write as _;

use crate::curve::{Measured, Row, Series, median};
use crate::diagram::{COLOURS, Diagram, HEIGHT, Line, MARGIN, Scale, Stroke, Values, WIDTH, escaped};

/// From one row of diagrams to the next, pixels.
const PITCH: f64 = HEIGHT + 2.0 * MARGIN;
/// Height of a line of text, pixels.
const TEXT: f64 = 20.0;
/// Marks closer than this share of the axis would run into each other.
const LEAST_GAP: f64 = 0.08;

/// The x axis.
struct Axis {
    title: String,
    places: Vec<f64>,
    marks: Vec<(f64, String)>,
}

/// Draws the sweep as SVG; `title` is what was varied, with its unit.
pub fn draw(measured: &Measured, title: &str) -> String {
    let series = measured.series();
    // The legend has a line for each value of each load and for each warning, and four more.
    let texts = series.len() * (1 + measured.values.len()) + measured.values.len() + 4;
    let legend_height = (MARGIN + TEXT * texts as f64).max(PITCH);
    let (width, height) = (2.0 * (WIDTH + MARGIN) + MARGIN, PITCH + legend_height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let axis = Axis::new(measured, title);
    let right = WIDTH + 2.0 * MARGIN;
    let throughput = axis.lines(&series, &[|row: &Row| row.per_second.as_slice()]);
    axis.draw((MARGIN, MARGIN), "checkouts per second", throughput, &mut svg);
    let latency = axis.lines(&series, &[|row: &Row| row.p99_ms.as_slice(), |row: &Row| row.p50_ms.as_slice()]);
    axis.draw((right, MARGIN), "latency, milliseconds: p99 whole, p50 dashed", latency, &mut svg);
    let cpu = axis.lines(&series, &[|row: &Row| row.cpu_us.as_slice()]);
    axis.draw((MARGIN, PITCH + MARGIN), "CPU time of all processes, microseconds per checkout", cpu, &mut svg);
    legend(measured, &series, (right, PITCH + MARGIN), &mut svg);
    svg.push_str("</svg>\n");
    svg
}

impl Axis {
    /// Numbers in ascending order keep their distances, anything else is evenly spaced.
    fn new(measured: &Measured, title: &str) -> Self {
        let count = measured.values.len() as f64;
        let even = (0..measured.values.len()).map(|place| (place as f64 + 0.5) / count).collect();
        let numbers: Option<Vec<f64>> = measured.values.iter().map(|value| value.text.parse().ok()).collect();
        let scaled = numbers.as_deref().and_then(to_scale);
        let is_even = numbers.is_some() && scaled.is_none();
        let places: Vec<f64> = scaled.unwrap_or(even);
        let text = |value: &crate::curve::Value| match value.fsync.warning() {
            Some(_) => format!("{} (not safe)", value.text),
            None => value.text.clone(),
        };
        let marks = places.iter().copied().zip(measured.values.iter().map(text)).collect();
        let title = if is_even { format!("{title} (not to scale)") } else { title.to_owned() };
        Self { title, places, marks }
    }

    /// For each series a line of each figure: the first whole, the second dashed.
    fn lines(&self, series: &[Series], figures: &[fn(&Row) -> &[f64]]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (colour, series) in series.iter().enumerate() {
            for (number, figure) in figures.iter().enumerate() {
                let rounds = || self.places.iter().zip(&series.rows).map(|(x, row)| (*x, figure(row)));
                let points = rounds().map(|(x, values)| (x, median(values))).filter(|(_, y)| y.is_finite());
                let dots = rounds().flat_map(|(x, values)| values.iter().map(move |value| (x, *value)));
                lines.push(Line {
                    colour,
                    stroke: if number == 0 { Stroke::Whole } else { Stroke::Dashed },
                    points: points.collect(),
                    dots: dots.filter(|(_, y)| y.is_finite()).collect(),
                    values: Values::Nowhere,
                });
            }
        }
        // Values stand where other lines are not: those of the smaller figure below its line, else those of the lowest one.
        let height = |line: &Line| line.points.iter().map(|(_, y)| *y).sum::<f64>();
        let lowest = lines.iter().map(height).fold(f64::INFINITY, f64::min);
        let several = lines.len() > 1;
        for line in &mut lines {
            let is_lower =
                if figures.len() > 1 { line.stroke == Stroke::Dashed } else { several && height(line) <= lowest };
            line.values = if is_lower { Values::Below } else { Values::Above };
        }
        lines
    }

    fn draw(&self, (left, top): (f64, f64), title: &str, lines: Vec<Line>, svg: &mut String) {
        let scale = Scale::fitting(lines.iter().flat_map(|line| &line.dots).map(|(_, y)| *y));
        let title = match scale {
            Scale::Linear { .. } => title.to_owned(),
            Scale::Logarithmic { .. } => format!("{title} (logarithmic)"),
        };
        let diagram =
            Diagram { left, top, title: &title, x_title: &self.title, x_marks: self.marks.clone(), scale, lines };
        diagram.draw(svg);
    }
}

/// Places in proportion to the numbers; nothing when their marks would run into each other.
fn to_scale(numbers: &[f64]) -> Option<Vec<f64>> {
    let (first, last) = (numbers.first()?, numbers.last()?);
    let share = |number: &f64| (number - first) / (last - first);
    let far_apart = |pair: &[f64]| share(&pair[1]) - share(&pair[0]) >= LEAST_GAP;
    if !(last > first && numbers.windows(2).all(far_apart)) {
        return None;
    }
    Some(numbers.iter().map(|number| 0.06 + 0.88 * share(number)).collect())
}

/// What the colours mean, and what has to be known.
fn legend(measured: &Measured, series: &[Series], (left, top): (f64, f64), svg: &mut String) {
    let mut y = top;
    let mut text = |x: f64, style: &str, text: &str| {
        // Infallible: it writes into a String. So below.
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\"{style}>{}</text>", escaped(text));
        y += TEXT;
    };
    text(left, " font-weight=\"bold\"", "each dot is a round, the lines go through the medians");
    for (number, series) in series.iter().enumerate() {
        let style = format!(" fill=\"{}\" font-weight=\"bold\"", COLOURS[number % COLOURS.len()]);
        text(left, &style, &series.title);
        for (value, row) in measured.values.iter().zip(&series.rows) {
            let line = format!("{}={}: ratio {}, of CPU {}", measured.name, value.text, row.ratio(), row.cpu_ratio());
            text(left + 12.0, "", &line);
        }
    }
    for (value, warning) in measured.values.iter().filter_map(|value| Some((value, value.fsync.warning()?))) {
        text(left, " fill=\"#a00\"", &format!("{}={}: {warning}", measured.name, value.text));
    }
    let (least, most) = measured.fixed_loop_ms();
    text(left, "", &format!("ratios are to {} of the same round", measured.first()));
    text(left, "", &format!("fixed CPU loop: {least:.0} to {most:.0} ms"));
    if !measured.failures.is_empty() {
        text(left, " fill=\"#a00\"", &format!("{} runs failed or are missing", measured.failures.len()));
    }
}

#[cfg(test)]
mod tests {
    use crate::curve::tests::measured;
    use crate::fsync::Fsync;

    use super::*;

    /// The names of its elements, when they are closed in order and no text or attribute breaks out.
    fn elements(xml: &str) -> Result<Vec<String>, String> {
        let (mut names, mut open) = (Vec::new(), Vec::new());
        for piece in xml.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').ok_or_else(|| format!("open tag: {piece}"))?;
            let ends_well = |rest: &str| ["amp;", "lt;", "gt;", "quot;"].iter().any(|name| rest.starts_with(name));
            if text.contains('>') || !text.split('&').skip(1).all(ends_well) {
                return Err(format!("not escaped: {text}"));
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name.to_owned()) {
                    return Err(format!("{name} is closed and was not open"));
                }
                continue;
            }
            if tag.matches('"').count() % 2 != 0 || tag.matches("=\"").count() * 2 != tag.matches('"').count() {
                return Err(format!("attributes: {tag}"));
            }
            let name = tag.split([' ', '/']).next().unwrap_or_default().to_owned();
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            names.push(name);
        }
        if open.is_empty() { Ok(names) } else { Err(format!("not closed: {open:?}")) }
    }

    #[test]
    fn every_round_is_a_dot_and_every_figure_a_line() {
        let always = Fsync::Always;
        let mut two = measured(
            "NAME",
            &[("a<b", always, &[1000, 1100]), ("\"c\" & d", always, &[2000, 2100]), ("e", always, &[900, 950])],
        );
        for run in two.runs.iter_mut().flatten().flatten() {
            run.phases.push(run.phases[0].clone());
        }
        two.runs[2][1] = None;
        two.failures.push("round 2, NAME=e: made up".to_owned());
        let svg = draw(&two, "NAME & <unit>");
        let names = elements(&svg).unwrap();
        let count = |name: &str| names.iter().filter(|found| *found == name).count();
        // Four figures (throughput, p50, p99, CPU) of two loads, and five runs.
        assert_eq!((count("polyline"), count("circle")), (4 * 2, 4 * 2 * 5));
        let lines = svg.lines().filter(|line| line.starts_with("<polyline"));
        assert!(lines.clone().all(|line| line.split('"').nth(1).unwrap().split(' ').count() == 3));
        assert!(svg.contains("a&lt;b") && svg.contains("1 runs failed"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn the_checker_of_these_tests_notices_what_is_wrong() {
        for wrong in ["<a><b></a>", "<a>", "<a b=\"c></a>", "<a>b & c</a>", "<a>b > c</a>", "<a></a></b>"] {
            assert!(elements(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_measured_is_a_picture_too() {
        let empty = Measured::new("replicas", measured("replicas", &[("1", Fsync::Always, &[])]).values, 2);
        let svg = draw(&empty, "replicas");
        assert!(elements(&svg).is_ok() && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn what_may_be_forgotten_is_marked() {
        let svg = draw(
            &measured("appendfsync", &[("always", Fsync::Always, &[1000]), ("no", Fsync::No, &[2000])]),
            "appendfsync",
        );
        assert!(svg.contains("no (not safe)") && svg.contains("no: not safe: Redis may forget what it acknowledged"));
        assert!(!svg.contains("always (not safe)"));
    }

    #[test]
    fn numbers_keep_their_distances_where_there_is_room() {
        assert_eq!(to_scale(&[0.0, 5.0, 10.0]).unwrap(), [0.06, 0.5, 0.94]);
        for evenly in [[1.0, 10.0, 300.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]] {
            assert_eq!(to_scale(&evenly), None, "{evenly:?}");
        }
        let title = |values| Axis::new(&measured("partitions", values), "partitions").title;
        let few: &[(&str, Fsync, &[u64])] = &[("1", Fsync::Always, &[1]), ("300", Fsync::Always, &[1])];
        let many: &[(&str, Fsync, &[u64])] = &[few[0], ("10", Fsync::Always, &[1]), few[1]];
        assert_eq!((title(few).as_str(), title(many).as_str()), ("partitions", "partitions (not to scale)"));
    }
}
