//! Which traces are recorded: decided once, where a trace begins; every later hop obeys the flag in the context.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which of the traces that begin here are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Share of all, from 0 to 1. Zero records nothing.
    pub ratio: f64,
    /// So many in every second are recorded before the ratio counts.
    pub min_per_s: u32,
}

impl Sampling {
    /// All of them.
    pub const ALL: Self = Self { ratio: 1.0, min_per_s: 0 };
}

/// Draws for every trace that begins.
pub(crate) struct Sampler {
    /// The bits of an `f64`.
    ratio: AtomicU64,
    min_per_s: AtomicU32,
    second: Mutex<Option<Second>>,
}

/// What has been recorded in the second that runs.
struct Second {
    began: Instant,
    recorded: u32,
}

impl Sampler {
    /// Records nothing.
    pub(crate) const fn new() -> Self {
        Self { ratio: AtomicU64::new(0), min_per_s: AtomicU32::new(0), second: Mutex::new(None) }
    }

    pub(crate) fn set(&self, sampling: Sampling) {
        self.ratio.store(sampling.ratio.to_bits(), Ordering::Relaxed);
        self.min_per_s.store(sampling.min_per_s, Ordering::Relaxed);
    }

    /// Whether a trace that begins now is recorded.
    pub(crate) fn draw(&self) -> bool {
        let ratio = f64::from_bits(self.ratio.load(Ordering::Relaxed));
        if ratio <= 0.0 {
            return false;
        }
        ratio >= 1.0 || rand::random::<f64>() < ratio || self.is_among_the_first(Instant::now())
    }

    fn is_among_the_first(&self, now: Instant) -> bool {
        let min_per_s = self.min_per_s.load(Ordering::Relaxed);
        if min_per_s == 0 {
            return false;
        }
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *second {
            Some(second) if now.saturating_duration_since(second.began) < Duration::from_secs(1) => {
                second.recorded += 1;
                second.recorded <= min_per_s
            }
            other => {
                *other = Some(Second { began: now, recorded: 1 });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(ratio: f64, min_per_s: u32) -> Sampler {
        let sampler = Sampler::new();
        sampler.set(Sampling { ratio, min_per_s });
        sampler
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        assert!(!Sampler::new().draw());
        let (none, all) = (sampler(0.0, 5), sampler(1.0, 0));
        assert!((0..1_000).all(|_| !none.draw() && all.draw()));
    }

    #[test]
    fn the_first_ones_of_every_second_are_recorded() {
        let sampler = sampler(1e-12, 3);
        let begin = Instant::now();
        let recorded = |after_ms| {
            let now = begin + Duration::from_millis(after_ms);
            (0..100).filter(|_| sampler.is_among_the_first(now)).count()
        };
        assert_eq!([recorded(0), recorded(999), recorded(1_000), recorded(1_001)], [3, 0, 3, 0]);
    }

    #[test]
    fn the_ratio_is_met_about() {
        let sampler = sampler(0.1, 0);
        let recorded = (0..10_000).filter(|_| sampler.draw()).count();
        assert!((700..1_300).contains(&recorded), "{recorded} of 10 000 at a tenth");
    }
}
