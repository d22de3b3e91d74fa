//! Prints what was measured.

use crate::disk::Silence;
use crate::result::{Phase, Run};
use crate::stages;

/// The figures of one phase as lines of text.
pub fn phase(phase: &Phase) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{}, {:.1} s: {:.0} checkouts/s ({} paid, {} refused, {} shed with 429, {} unknown)",
            phase.load,
            phase.seconds,
            phase.per_second(),
            phase.paid,
            phase.refused,
            phase.shed,
            phase.unknown
        ),
        format!(
            "  latency ms: p50 {:.1}, p95 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            phase.latency_ms(50.0),
            phase.latency_ms(95.0),
            phase.latency_ms(99.0),
            phase.latency_ms(99.9),
            phase.latency_ms(100.0)
        ),
    ];
    if let Some(Silence { longest_ms, in_all_s }) = phase.disk {
        lines.push(format!("  the disk stood still for up to {longest_ms:.0} ms, {in_all_s:.1} s in all"));
    }
    if let Some(stolen) = phase.stolen {
        lines.push(format!("  other machines of the host had {:.1} % of the processors' time", stolen * 100.0));
    }
    if let Some(window) = phase.window {
        lines.push(format!("  requests in a window: {window:.1}"));
    }
    lines.push(format!("  CPU µs per checkout: {:.0} in all; peak memory MB", phase.cpu_us_in_all()));
    for (name, used) in &phase.cpu_us {
        let memory = phase.memory_mb.get(name).copied().unwrap_or(f64::NAN);
        lines.push(format!("    {name:<18} {used:>7.1} {memory:>8.0}"));
    }
    lines.extend(stages::lines(&phase.stages_us));
    lines
}

/// The line before the phases.
pub fn head(run: &Run) -> String {
    format!(
        "{}: {} replicas, {} brokers, {} partitions, {} items, loaded in {:.1} s",
        run.scenario.name(),
        run.replicas,
        run.brokers,
        run.partitions,
        run.items,
        run.load_s
    )
}
