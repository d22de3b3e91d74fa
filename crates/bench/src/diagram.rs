//! One diagram of a picture: axes, lines, dots.

use std::fmt::Write as _;

/// Width and height of one diagram, and the room around it, in pixels.
pub const WIDTH: f64 = 520.0;
pub const HEIGHT: f64 = 260.0;
pub const MARGIN: f64 = 60.0;
/// Colours that people who do not see red and green apart can tell from each other.
pub const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];
/// Most steps of a linear axis.
const MAX_STEPS: f64 = 6.0;
/// From this quotient of the largest and the smallest value on, a logarithmic axis shows more.
const WIDE: f64 = 30.0;
/// The smallest value of a logarithmic axis is this much above its lower end: its text has to fit in between.
const ROOM: f64 = 1.6;

/// Axes and what is drawn between them.
pub struct Diagram<'a> {
    /// Left edge, pixels.
    pub left: f64,
    /// Upper edge, pixels.
    pub top: f64,
    /// What y is, with its unit.
    pub title: &'a str,
    /// What x is, with its unit.
    pub x_title: &'a str,
    /// Marks on the x axis: where, from 0 to 1, and their texts.
    pub x_marks: Vec<(f64, String)>,
    /// The y axis.
    pub scale: Scale,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// One line; x from 0 to 1, y as it is.
#[derive(Default)]
pub struct Line {
    /// Which of the colours.
    pub colour: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// What it goes through.
    pub points: Vec<(f64, f64)>,
    /// Single measurements around it.
    pub dots: Vec<(f64, f64)>,
    /// Where the values of its points are written.
    pub values: Values,
}

/// How a line is drawn.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Stroke {
    #[default]
    Whole,
    Dashed,
}

/// Where the values of a line's points are written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Values {
    #[default]
    Nowhere,
    Above,
    Below,
}

/// The y axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From 0, in even steps.
    Linear { step: f64, most: f64 },
    /// From one power of ten to another.
    Logarithmic { least: f64, most: f64 },
}

impl Scale {
    /// From 0 to a little more than the largest value, in steps of 1, 2 or 5.
    pub fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max) * 1.08;
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10_f64.powf((most / MAX_STEPS).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps.into_iter().find(|step| most / step <= MAX_STEPS).unwrap_or(10.0 * power);
        Self::Linear { step, most: (most / step).ceil() * step }
    }

    /// Logarithmic where the values are far apart.
    pub fn fitting(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = values.clone().filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = positive.fold((f64::MAX, 0.0_f64), |(least, most), y| (least.min(y), most.max(y)));
        if most / least < WIDE {
            return Self::linear(values);
        }
        let power = |exponent: f64| 10_f64.powf(exponent);
        Self::Logarithmic { least: power((least / ROOM).log10().floor()), most: power(most.log10().ceil()) }
    }

    /// From 0 at the bottom to 1 at the top.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear { most, .. } => value / most,
            Self::Logarithmic { least, most } => (value.max(least) / least).log10() / (most / least).log10(),
        }
    }

    fn marks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { step, most } => {
                let decimals = (-step.log10().floor()).max(0.0) as usize;
                let steps = (most / step).round() as u32;
                (0..=steps).map(|at| f64::from(at) * step).map(|value| (value, format!("{value:.decimals$}"))).collect()
            }
            Self::Logarithmic { least, most } => {
                let decades = (most / least).log10().round() as i32;
                (0..=decades).map(|at| least * 10_f64.powi(at)).map(|value| (value, format!("{value}"))).collect()
            }
        }
    }
}

impl Diagram<'_> {
    /// Adds it to the picture.
    pub fn draw(&self, svg: &mut String) {
        let (left, bottom) = (self.left, self.top + HEIGHT);
        // Infallible: it writes into a String. So below.
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            self.top - 14.0,
            escaped(self.title)
        );
        for (value, text) in self.scale.marks() {
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\" fill=\"#555\">{text}</text>",
                left + WIDTH,
                left - 6.0,
                y + 4.0
            );
        }
        let x_texts = self.x_marks.iter().map(|(place, text)| (left + place * WIDTH, bottom + 16.0, text.as_str()));
        for (x, y, text) in x_texts.chain([(left + WIDTH / 2.0, bottom + 34.0, self.x_title)]) {
            let text = escaped(text);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#555\">{text}</text>");
        }
        for line in &self.lines {
            self.draw_line(line, svg);
        }
    }

    fn draw_line(&self, line: &Line, svg: &mut String) {
        let colour = COLOURS[line.colour % COLOURS.len()];
        let at = |point: &(f64, f64)| (self.left + point.0 * WIDTH, self.y(point.1));
        let points: Vec<String> = line.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = if line.stroke == Stroke::Dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
            points.join(" ")
        );
        for (x, y) in line.dots.iter().map(at) {
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\" fill-opacity=\"0.5\"/>");
        }
        let down = match line.values {
            Values::Nowhere => return,
            Values::Above => -9.0,
            Values::Below => 18.0,
        };
        for ((x, y), (_, value)) in line.points.iter().map(at).zip(&line.points) {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{colour}\" stroke=\"white\" stroke-width=\"3\" \
                 paint-order=\"stroke\">{}</text>",
                y + down,
                short(*value)
            );
        }
    }

    fn y(&self, value: f64) -> f64 {
        self.top + HEIGHT * (1.0 - self.scale.place(value))
    }
}

/// Two or three digits that say something.
pub fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text as XML wants it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_has_round_steps_and_room_for_all() {
        for (largest, step, most) in
            [(3677.0, 1000.0, 4000.0), (134.0, 50.0, 150.0), (0.7, 0.2, 0.8), (95.0, 20.0, 120.0)]
        {
            let Scale::Linear { step: found, most: end } = Scale::linear([0.1, largest].into_iter()) else { panic!() };
            assert!((found - step).abs() < 1e-9 && (end - most).abs() < 1e-9, "{largest}: {found} {end}");
        }
        assert_eq!(Scale::linear(std::iter::empty()), Scale::linear([f64::NAN, 0.0].into_iter()));
    }

    #[test]
    fn values_far_apart_get_a_logarithmic_axis() {
        let scale = Scale::fitting([5.0, 4200.0].into_iter());
        assert_eq!(scale, Scale::Logarithmic { least: 1.0, most: 10_000.0 });
        assert!((scale.place(100.0) - 0.5).abs() < 1e-9);
        assert!(matches!(Scale::fitting([5.0, 100.0].into_iter()), Scale::Linear { .. }));
        let marks: Vec<String> = scale.marks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(marks, ["1", "10", "100", "1000", "10000"]);
    }
}
