//! Makes a failing seed smaller: fewer faults that still show the same thing.

use crate::run::{Report, run};
use crate::world::Options;

/// Runs that may be spent on it: most seeds need a tenth.
const MAX_ATTEMPTS: usize = 300;

/// The smallest way found to fail with a violation of this name.
#[derive(Debug)]
pub struct Shrunk {
    /// How to see it again.
    pub options: Options,
    /// What is seen, with its event list.
    pub report: Report,
    /// Faults that are left.
    pub faults: usize,
}

/// Leaves faults out as long as the violation stays. `None` if the options do not fail at all.
pub fn shrink(options: &Options) -> Option<Shrunk> {
    let first = run(options);
    let name = first.violation.as_ref()?.name;
    let mut attempts = 0;
    let mut fails = |options: &Options| {
        attempts += 1;
        let report = (attempts <= MAX_ATTEMPTS).then(|| run(options))?;
        report.violation.as_ref().is_some_and(|violation| violation.name == name).then_some(report.happened)
    };
    let mut best = options.clone();
    let mut happened = first.happened;

    // The length of the noise depends on whether faults are limited: from here on it is what it was.
    let fixed = Options { steps: Some(first.steps), ..best.clone() };
    if let Some(now) = fails(&fixed) {
        (best, happened) = (fixed, now);
    }
    // The last faults first, in ever smaller pieces.
    let mut piece = happened.len().div_ceil(2);
    while piece > 0 {
        let mut end = happened.len();
        while end > 0 {
            let begin = end.saturating_sub(piece);
            let mut fewer = best.clone();
            fewer.skip.extend(&happened[begin..end]);
            if let Some(now) = fails(&fewer) {
                (best, happened) = (fewer, now);
            }
            end = begin.min(happened.len());
        }
        piece /= 2;
    }
    // Only what was drawn before the end counts.
    best.skip.sort_unstable();
    best.skip.dedup();
    let report = run(&Options { trace: true, ..best.clone() });
    Some(Shrunk { options: best, report, faults: happened.len() })
}
