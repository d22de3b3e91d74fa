//! Many seeds, on several threads: what went wrong, what was met, how fast.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::oracle::Violation;
use crate::run::run;
use crate::world::Options;

/// Failing seeds after which a campaign stops: what is wrong shows in the first of them.
const MAX_FAILURES: usize = 10;

/// Seeds to be run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// How each is run, but for its seed.
    pub options: Options,
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Seeds that run at the same time.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Seeds that were run.
    pub seeds: u64,
    /// Checkouts in all of them.
    pub sagas: u64,
    /// Those that failed, by seed.
    pub failures: Vec<(u64, Violation)>,
    /// What was met.
    pub coverage: Coverage,
    /// How long it took.
    pub took: Duration,
}

impl Campaign {
    /// Runs all of them, or until so many have failed that more would say nothing new. `progress` is told of each
    /// thousand that has ended.
    pub fn run(&self, progress: impl Fn(u64) + Sync) -> Outcome {
        let begun = Instant::now();
        let (next, ended, enough) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let found = Mutex::new((Vec::new(), Coverage::default(), 0));
        let work = || {
            let (mut coverage, mut sagas) = (Coverage::default(), 0);
            while !enough.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.seeds {
                    break;
                }
                let seed = self.from + index;
                let report = run(&Options { seed, ..self.options.clone() });
                coverage.add(&report.coverage);
                sagas += report.sagas as u64;
                if let Some(violation) = report.violation {
                    let mut found = found.lock().expect("no thread panics while it holds the findings");
                    found.0.push((seed, violation));
                    enough.store(found.0.len() >= MAX_FAILURES, Ordering::Relaxed);
                }
                let count = ended.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_multiple_of(1_000) {
                    progress(count);
                }
            }
            let mut found = found.lock().expect("no thread panics while it holds the findings");
            found.1.add(&coverage);
            found.2 += sagas;
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let (mut failures, coverage, sagas) = found.into_inner().expect("no thread panics while it holds the findings");
        failures.sort_by_key(|(seed, _)| *seed);
        Outcome { seeds: ended.into_inner(), sagas, failures, coverage, took: begun.elapsed() }
    }
}
