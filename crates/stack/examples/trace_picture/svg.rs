//! A trace as a picture: one row for each span below its parent, one colour for each service, time to the right.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use otlp_sink::Span;

/// Width of the picture, of the column of names, and of what remains for time, in pixels.
const WIDTH: f64 = 1200.0;
const NAMES: f64 = 430.0;
const TIME: f64 = WIDTH - NAMES - 90.0;
/// Height of a row and of the head, in pixels.
const ROW: f64 = 20.0;
const HEAD: f64 = 64.0;
/// Indentation of a child, in pixels; deeper levels are not indented further.
const INDENT: f64 = 7.0;
const MAX_INDENTED: usize = 40;
/// Lines of the time axis.
const TICKS: u32 = 6;
/// One colour for each service, readable by people who do not see red and green apart.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

/// Draws the trace.
pub fn draw(title: &str, trace: &[Span]) -> String {
    let rows = rows(trace);
    let colours = colours(trace);
    let begin_ns = trace.iter().map(|span| span.start_ns).min().unwrap_or(0);
    let end_ns = trace.iter().map(|span| span.end_ns).max().unwrap_or(begin_ns + 1);
    let all_ms = (end_ns.saturating_sub(begin_ns).max(1)) as f64 / 1e6;
    let x = |ns: u64| NAMES + ns.saturating_sub(begin_ns) as f64 / 1e6 / all_ms * TIME;
    let height = HEAD + ROW * rows.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" role=\"img\">\n<title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" \
         fill=\"white\"/>\n<text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n"
    );
    let mut legend_x = 8.0;
    for (service, colour) in &colours {
        let text_x = legend_x + 14.0;
        // Infallible: it writes into a String. So below.
        let _ = writeln!(
            svg,
            "<rect x=\"{legend_x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{text_x}\" \
             y=\"39\">{service}</text>"
        );
        legend_x += 34.0 + 7.0 * service.len() as f64;
    }
    for tick in 0..=TICKS {
        let part = f64::from(tick) / f64::from(TICKS);
        let (tick_x, ms) = (NAMES + part * TIME, part * all_ms);
        let _ = writeln!(
            svg,
            "<line x1=\"{tick_x:.1}\" y1=\"{HEAD}\" x2=\"{tick_x:.1}\" y2=\"{height}\" stroke=\"#ddd\"/><text \
             x=\"{tick_x:.1}\" y=\"58\" text-anchor=\"middle\" fill=\"#666\">{ms:.1} ms</text>"
        );
    }
    for (row, (depth, span)) in rows.iter().enumerate() {
        let top = HEAD + ROW * row as f64;
        let name_x = 8.0 + INDENT * (*depth).min(MAX_INDENTED) as f64;
        let (left, right) = (x(span.start_ns), x(span.end_ns));
        let width = (right - left).max(2.0);
        let took_ms = span.end_ns.saturating_sub(span.start_ns) as f64 / 1e6;
        let colour = colours.get(span.service.as_str()).copied().unwrap_or("#999");
        let _ = writeln!(
            svg,
            "<text x=\"{name_x}\" y=\"{:.1}\">{}</text><rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
             height=\"12\" rx=\"2\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#444\" \
             font-size=\"11\">{took_ms:.2} ms</text>",
            top + 14.0,
            escape(&span.name),
            top + 4.0,
            left + width + 4.0,
            top + 14.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Children below their parents, by start, with their depth.
fn rows(trace: &[Span]) -> Vec<(usize, &Span)> {
    let mut children: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in trace {
        children.entry(span.parent.as_str()).or_default().push(span);
    }
    let mut rows = Vec::with_capacity(trace.len());
    let mut next: Vec<(usize, &Span)> = children.remove("").into_iter().flatten().map(|root| (0, root)).collect();
    while let Some((depth, span)) = next.pop() {
        rows.push((depth, span));
        let below = children.remove(span.id.as_str()).unwrap_or_default();
        next.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
    }
    rows
}

/// A colour for each service, in the order in which they take part.
fn colours(trace: &[Span]) -> BTreeMap<&str, &'static str> {
    let mut colours = BTreeMap::new();
    for span in trace {
        let colour = COLOURS[colours.len() % COLOURS.len()];
        colours.entry(span.service.as_str()).or_insert(colour);
    }
    colours
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
