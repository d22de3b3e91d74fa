//! Definitions for the tests: a few by hand, and random ones.

use std::fmt::Write as _;

use proptest::prelude::*;

pub(crate) const CHECKOUT: &str = include_str!("../../../../definitions/checkout.yaml");
pub(crate) const PARALLEL: &str = include_str!("../../../../definitions/checkout-parallel.yaml");

/// a → b → c, timeouts that undo, outputs that travel on.
pub(crate) const CHAIN: &str = "
name: chain
version: 1
deadline_ms: 10000
steps:
  - { name: a, participant: p, timeout_ms: 1000, backoff: { first_ms: 100, max_ms: 400 } }
  - { name: b, participant: q, after: [a], uses: [a], timeout_ms: 1000 }
  - { name: c, participant: p, after: [b], uses: [a, b], timeout_ms: 1000 }
";

/// a and b beside each other, then c.
pub(crate) const DIAMOND: &str = "
name: diamond
version: 1
deadline_ms: 10000
steps:
  - { name: a, participant: p }
  - { name: b, participant: q }
  - { name: c, participant: p, after: [a, b] }
";

/// A compensable step, the point of no return, and what must follow.
pub(crate) const PIVOT: &str = "
name: pivot
version: 1
deadline_ms: 10000
steps:
  - { name: book, participant: p, timeout_ms: 1000 }
  - { name: pay, participant: q, kind: pivot, after: [book], timeout_ms: 1000 }
  - { name: send, participant: p, kind: retriable, after: [pay], timeout_ms: 1000 }
";

/// One step of a random plan, before it has a name.
#[derive(Clone, Debug)]
struct RandomStep {
    /// Bit `n`: comes after step `n` (of those that are before it).
    edges: u8,
    /// Bit `n`: uses step `n`, if that comes before it.
    uses: u8,
    timeout_ms: u64,
    waits: bool,
    first_ms: u64,
}

/// A random plan of 1 to 8 steps that passes every check: a DAG, with a pivot or without.
pub(crate) fn definition_text() -> impl Strategy<Value = String> {
    let step = (any::<u8>(), any::<u8>(), 1_u64..3_000, any::<bool>(), 1_u64..500)
        .prop_map(|(edges, uses, timeout_ms, waits, first_ms)| RandomStep { edges, uses, timeout_ms, waits, first_ms });
    let steps = prop::collection::vec(step, 1..=8);
    (steps, prop::option::of(0_usize..8), 500_u64..20_000, any::<u64>()).prop_map(
        |(steps, pivot, deadline_ms, order)| {
            let pivot = pivot.filter(|pivot| *pivot < steps.len());
            text(&steps, pivot, deadline_ms, order)
        },
    )
}

fn text(steps: &[RandomStep], pivot: Option<usize>, deadline_ms: u64, order: u64) -> String {
    let mut text = format!("name: random\nversion: 1\ndeadline_ms: {deadline_ms}\nsteps:\n");
    let mut lines: Vec<String> = Vec::new();
    let mut before: Vec<Vec<usize>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let mut after: Vec<usize> = (0..index).filter(|other| step.edges & (1 << other) != 0).collect();
        let kind = match pivot {
            Some(pivot) if index == pivot => {
                after = (0..index).collect();
                "pivot"
            }
            Some(pivot) if index > pivot => {
                after.push(pivot);
                after.dedup();
                "retriable"
            }
            Some(_) | None => "compensable",
        };
        after.sort_unstable();
        after.dedup();
        let mut ancestors = after.clone();
        for direct in &after {
            ancestors.extend(&before[*direct]);
        }
        let uses = ancestors.iter().filter(|other| step.uses & (1 << **other) != 0);
        let on_timeout = if step.waits || kind != "compensable" { "wait" } else { "undo" };
        let mut line = String::new();
        let names = |steps: &mut dyn Iterator<Item = &usize>| -> String {
            let mut names: Vec<String> = steps.map(|other| format!("s{other}")).collect();
            names.sort();
            names.dedup();
            names.join(", ")
        };
        write!(
            line,
            "  - {{ name: s{index}, participant: p{}, kind: {kind}, after: [{}], uses: [{}], timeout_ms: {}, \
             on_timeout: {on_timeout}, backoff: {{ first_ms: {}, max_ms: 2000 }} }}",
            index % 3,
            names(&mut after.iter()),
            names(&mut uses.into_iter()),
            step.timeout_ms,
            step.first_ms,
        )
        .expect("a string");
        lines.push(line);
        before.push(ancestors);
    }
    // The order of the text must not matter.
    let turn = usize::try_from(order % 8).unwrap_or_default() % lines.len();
    lines.rotate_left(turn);
    text.push_str(&lines.join("\n"));
    text.push('\n');
    text
}
