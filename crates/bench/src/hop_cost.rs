//! What a checkout costs by itself, and what each window of checkouts costs whatever it holds: a straight line through two
//! phases whose windows held different numbers of requests. A calculation, and no better than its two points; what a process
//! does whether there is load or not is in the second figure. Only open loops are put side by side: in a closed one requests come
//! in crowds and are cheaper, whatever a window holds.

use std::fmt::Write as _;

use crate::result::{Load, Phase};

/// Phases whose windows differ by less than this factor say nothing.
const APART: f64 = 3.0;

/// CPU time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    per_checkout: f64,
    per_window: f64,
}

/// The line through (requests in a window, CPU time per checkout) of both: `per_checkout + per_window / requests`.
fn line((few, us_of_few): (f64, f64), (many, us_of_many): (f64, f64)) -> Cost {
    let per_checkout = (us_of_many * many - us_of_few * few) / (many - few);
    Cost { per_checkout, per_window: (us_of_few - per_checkout) * few }
}

/// A table by process, if there are two such phases.
pub fn table(phases: &[Phase]) -> Option<String> {
    let is_open = |phase: &&Phase| matches!(phase.load, Load::Rate(_));
    let with_window = || phases.iter().filter(is_open).filter_map(|phase| Some((phase.window?, phase)));
    let (few, phase_of_few) = with_window().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let (many, phase_of_many) = with_window().max_by(|a, b| a.0.total_cmp(&b.0))?;
    if many < few * APART {
        return None;
    }
    let mut text = format!("CPU µs, from windows of {few:.1} and {many:.1} requests: per checkout, per window\n");
    let all = (phase_of_few.cpu_us_in_all(), phase_of_many.cpu_us_in_all());
    let of_both = |(name, us): (&'_ String, &f64)| Some((name.clone(), (*us, *phase_of_many.cpu_us.get(name)?)));
    let each = phase_of_few.cpu_us.iter().filter_map(of_both);
    for (name, (us_of_few, us_of_many)) in each.chain([("in all".to_owned(), all)]) {
        let Cost { per_checkout, per_window } = line((few, us_of_few), (many, us_of_many));
        // Infallible: it writes into a String.
        let _ = writeln!(text, "    {name:<18} {per_checkout:>7.1} {per_window:>8.0}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use crate::result::tests::run;

    use super::*;

    #[test]
    fn two_phases_tell_what_a_window_costs() {
        let closed = |window, us| Phase { window, ..run(64, 1_000, 10.0, us).phases.remove(0) };
        let phase = |window, us| Phase { load: Load::Rate(500.0), ..closed(window, us) };
        // 100 per checkout and 8 000 per window.
        let text = table(&[phase(Some(64.0), 225.0), phase(Some(8.0), 1_100.0), phase(None, 1.0)]).expect("a table");
        let last: Vec<&str> = text.lines().last().expect("a line").split_whitespace().collect();
        assert_eq!(last, ["in", "all", "100.0", "8000"]);
        assert_eq!(table(&[phase(Some(64.0), 225.0), phase(Some(30.0), 300.0)]), None, "too near");
        assert_eq!(table(&[closed(Some(64.0), 225.0), phase(Some(8.0), 1_100.0)]), None, "of another kind");
        assert_eq!(table(&[phase(None, 225.0)]), None);
    }
}
