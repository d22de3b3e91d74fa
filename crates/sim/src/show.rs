//! Findings as people read them.

use std::fmt::Write as _;

use crate::campaign::Outcome;
use crate::coverage::{Coverage, SagaEvent, SagaState};
use crate::faults::{Fault, Point};
use crate::hunt::{Case, Catch};
use crate::world::Options;

/// The head of the table of mistakes.
pub const CATCH_HEAD: &str = "| mistake | in words | without | seeds | noticed as |\n|---|---|---|---:|---|";

/// One line of the table of mistakes.
pub fn catch(case: &Case, from: u64, catch: Option<&Catch>) -> String {
    let without: Vec<&str> = case.without.iter().map(|defence| defence.id()).collect();
    let (seeds, name) = match catch {
        Some(catch) => ((catch.seed - from + 1).to_string(), catch.violation.name),
        None => ("-".to_owned(), "NOT NOTICED"),
    };
    let (id, text) = (case.mistake.id(), case.mistake.text());
    format!("| {id} | {text} | {} | {seeds} | {name} |", without.join(", "))
}

/// The command that runs one seed again.
pub fn command(options: &Options) -> String {
    let mut command = format!("./dev sim --replay {}", options.seed);
    if let Some(steps) = options.steps {
        let _ = write!(command, " --steps {steps}");
    }
    if !options.skip.is_empty() {
        let skip: Vec<String> = options.skip.iter().map(ToString::to_string).collect();
        let _ = write!(command, " --skip {}", skip.join(","));
    }
    if let Some(mistake) = options.mistake {
        let _ = write!(command, " --mistake {}", mistake.id());
    }
    for defence in &options.without {
        let _ = write!(command, " --without {}", defence.id());
    }
    command
}

/// What a campaign has met.
pub fn outcome(outcome: &Outcome) -> String {
    let mut text = String::new();
    let per_second = outcome.seeds as f64 / outcome.took.as_secs_f64();
    let faults: u64 = outcome.coverage.faults.values().sum();
    let _ = writeln!(
        text,
        "{} seeds, {} orders, {faults} faults, {} failed; {per_second:.1} seeds per second\n",
        outcome.seeds,
        outcome.sagas,
        outcome.failures.len()
    );
    let coverage = &outcome.coverage;
    for fault in Fault::ALL {
        let _ = writeln!(text, "{:>9}  {}", coverage.faults.get(fault).unwrap_or(&0), fault.text());
    }
    let _ = writeln!(text, "\n   passed      died");
    for point in Point::ALL {
        let (passed, died) = (coverage.passed.get(point).unwrap_or(&0), coverage.died.get(point).unwrap_or(&0));
        let _ = writeln!(text, "{passed:>9} {died:>9}  {}", point.text());
    }
    let _ = writeln!(text);
    for (name, count) in &coverage.numbers {
        let _ = writeln!(text, "{count:>9}  {name}");
    }
    let _ = write!(text, "\n{}", pairs(coverage));
    text
}

/// How often each event met each state of a saga; a dot where they never met.
pub fn pairs(coverage: &Coverage) -> String {
    let mut text = format!("{:>13}", "");
    for state in SagaState::ALL {
        let _ = write!(text, " {:>12}", state.text());
    }
    for event in SagaEvent::ALL {
        let _ = write!(text, "\n{:>13}", event.text());
        for state in SagaState::ALL {
            let count = coverage.pairs.get(&(*state, *event)).map_or_else(|| ".".to_owned(), u64::to_string);
            let _ = write!(text, " {count:>12}");
        }
    }
    text
}
