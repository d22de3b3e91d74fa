//! Prints one measured phase.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::Phase;

/// The figures of one phase as lines of text.
pub fn lines(connections: usize, phase: &Phase, cpu: &BTreeMap<String, Duration>) -> Vec<String> {
    let seconds = phase.elapsed.as_secs_f64();
    let answers = phase.paid + phase.refused + phase.other;
    let ms = |quantile: f64| phase.latency_us.value_at_quantile(quantile) as f64 / 1e3;
    let mut lines = vec![
        format!(
            "{connections} connections, {seconds:.1} s: {:.0} checkouts/s ({} paid, {} refused, {} other)",
            phase.paid as f64 / seconds,
            phase.paid,
            phase.refused,
            phase.other
        ),
        format!(
            "  latency ms: p50 {:.1}, p99 {:.1}, max {:.1}",
            ms(0.5),
            ms(0.99),
            phase.latency_us.max() as f64 / 1e3
        ),
    ];
    let per_checkout = |used: Duration| used.as_secs_f64() * 1e6 / answers.max(1) as f64;
    let total: Duration = cpu.values().sum();
    lines.push(format!("  CPU µs per checkout: {:.0} in all", per_checkout(total)));
    for (name, used) in cpu {
        lines.push(format!("    {name:<14} {:>7.1}", per_checkout(*used)));
    }
    if phase.ran_dry {
        lines.push("  the fresh orders were used up before the time was over: raise --orders".to_owned());
    }
    lines
}
